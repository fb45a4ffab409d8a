"""``tasks/{uuid}/`` and what hangs below: look at a run, cancel it, retry it."""

from __future__ import annotations

from uuid import UUID

from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from taskapi.views.base import View, messages_known, public_path


class RunView(View):
    """``tasks/{uuid}/``"""

    def get(self, request: Request, uuid: UUID) -> Response:
        """The representation; ``?after=N`` leaves out the first N messages."""
        return self.represented(self.find_run(uuid), messages_known(request))


class CancelView(View):
    """``tasks/{uuid}/cancel/``"""

    def post(self, request: Request, uuid: UUID) -> Response:
        """Ask the run to stop; 409 if it has ended."""
        return self.represented(self.cancel_run(uuid), code=status.HTTP_202_ACCEPTED)


class RetryView(View):
    """``tasks/{uuid}/retry/``"""

    def post(self, request: Request, uuid: UUID) -> Response:
        """Start a new run of the same inputs; 409 if this one has not ended."""
        info = self.retry_run(uuid)
        location = public_path(request).replace(str(uuid), str(info.uuid)).removesuffix("retry/")
        return self.represented(info, code=status.HTTP_202_ACCEPTED, location=location)
