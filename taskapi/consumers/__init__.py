"""The WebSocket."""

from taskapi.consumers.tasks import TaskConsumer

__all__ = ["TaskConsumer"]
