import json

from django.http import HttpRequest, JsonResponse

from benchmarks.projects.celery_progress import tasks


def start(request: HttpRequest, name: str) -> JsonResponse:
    """Start the task of that name; the page then follows it at `ws/progress/<task_id>/`."""
    result = tasks.BY_NAME[name].delay(**json.loads(request.body))
    return JsonResponse({"task_id": result.task_id})
