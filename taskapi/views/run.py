"""``tasks/{uuid}/`` and what hangs below: look at a run, cancel it, retry it."""

from __future__ import annotations

from typing import cast
from uuid import UUID

from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from taskapi.backends.attendance import hint_for
from taskapi.callers.requests import open_request
from taskapi.views.base import View, entity_tag, is_known, messages_known, public_path
from taskapi.views.waiting import preferred_wait, until_changed, until_final


class RunView(View):
    """``tasks/{uuid}/``"""

    has_waited = False  # this is the answer at last

    def get(self, request: Request, uuid: UUID) -> Response:
        """The representation; ``?after=N`` leaves out the first N messages."""
        after = messages_known(request)
        seconds = preferred_wait(request)
        info = self.find_run(uuid)
        info.hint = hint_for(info)
        known = is_known(request, entity_tag(info))
        if seconds and not self.has_waited and not info.is_final and known is not False:
            wait = until_final([info], seconds) if known is None else until_changed(info, seconds)
            return self.answer_later(wait, seconds, self._answer_at_last)
        if known:
            response = self.stamped(Response(status=status.HTTP_304_NOT_MODIFIED), info)
        else:
            response = self.represented(info, after)
        return self.waited(response, seconds)

    def _answer_at_last(self) -> Response:
        """The answer of a new view: the caller may be somebody else by now, and the run may be gone."""
        view = RunView(has_waited=True)
        request = open_request(self.request._request, again=True)  # noqa: SLF001 - DRF has no public name for it
        view.setup(request, **self.kwargs)
        return cast("Response", view.dispatch(request, **self.kwargs))


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
