"""The WebSocket front door."""

from taskapi.consumers.tasks import TaskConsumer

__all__ = ["TaskConsumer"]
