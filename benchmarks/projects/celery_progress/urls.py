from django.urls import path

from benchmarks.projects.celery_progress.views import start

urlpatterns = [path("start/<name>/", start)]
