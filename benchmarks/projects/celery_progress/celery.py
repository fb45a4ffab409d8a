import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.projects.celery_progress.settings")

app = Celery("celery_progress", include=["benchmarks.projects.celery_progress.tasks"])
app.config_from_object("django.conf:settings", namespace="CELERY")
