import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.projects.task_api_1.settings")

app = Celery("task_api_1")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
