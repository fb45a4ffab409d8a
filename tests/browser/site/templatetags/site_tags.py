"""A tag as a project may have it."""

from django import template

from taskapi.models import TaskInfo

register = template.Library()


@register.simple_tag
def count_runs() -> int:
    return TaskInfo.objects.count()
