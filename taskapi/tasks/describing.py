"""What a task says of itself, for documents about many tasks: one that cannot do so takes no other along."""

from __future__ import annotations

import json
import logging
from inspect import cleandoc
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder

from taskapi.tasks.base import Task

logger = logging.getLogger(__name__)


def described(task: type[Task]) -> dict[str, Any]:
    """As `Task.describe`. If that fails, the schemas take everything (``{}``), and the log says why."""
    try:
        said: dict[str, Any] = json.loads(json.dumps(task.describe(), cls=DjangoJSONEncoder, allow_nan=False))
    except Exception:
        # A parameter of the project's own may raise anything about its schema, or give what is not JSON.
        logger.exception("The task %r cannot be described. Look at the `json_schema` of its parameters.", task.name)
        return {"name": task.name, "description": cleandoc(task.__doc__ or ""), "inputs": {}, "outputs": {}}
    return said
