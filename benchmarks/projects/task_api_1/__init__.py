"""Django Task API 1.x with Celery, as its documentation and Celery's "First steps with Django" set it up."""

from benchmarks.projects.task_api_1.celery import app

__all__ = ["app"]
