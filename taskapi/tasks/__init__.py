"""What a developer writes: a Task class. It can be imported while Django reads its settings."""

from taskapi.tasks.base import StartOptions, Task

__all__ = ["StartOptions", "Task"]
