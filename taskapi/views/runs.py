"""``tasks/``: start runs."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers, status
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from taskapi.protocol import KEY_LENGTH, TASK_LENGTH
from taskapi.views.base import View, public_path


class RunRequest(serializers.Serializer[Any]):
    """The body of ``POST tasks/``."""

    task = serializers.CharField(max_length=TASK_LENGTH)
    inputs = serializers.JSONField(default=dict, allow_null=True)  # the task checks them


class RunsView(View):
    """``tasks/``"""

    def post(self, request: Request) -> Response:
        """Start a run."""
        body = RunRequest(data=request.data)
        body.is_valid(raise_exception=True)
        key = request.headers.get("Idempotency-Key")
        if key is not None and not 0 < len(key) <= KEY_LENGTH:
            raise ValidationError({"Idempotency-Key": [f"Expected 1 to {KEY_LENGTH} characters."]})
        given = body.validated_data
        info, created = self.start_run(given["task"], given["inputs"], idempotency_key=key)
        location = f"{public_path(request)}{info.uuid}/"
        code = status.HTTP_201_CREATED if created else status.HTTP_200_OK
        return self.represented(info, code=code, location=location)
