"""celery-progress over WebSockets, as its README and Celery's "First steps with Django" set it up."""

from benchmarks.projects.celery_progress.celery import app

__all__ = ["app"]
