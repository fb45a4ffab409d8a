"""The events of a run as HTML, for pages with htmx: ``GET tasks/{uuid}/events/?format=html``.

htmx 4 swaps the events that have no name, and htmx 2 calls these `message`. So one stream serves both: whatever is to
be shown comes in events without a name. Each begins with the bar, which is swapped into the element that follows the
run. What else has changed comes behind it, to be swapped out of band. One event has a name: `finished` comes last, when
all is shown already, and tells the page to close the connection.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from django.conf import settings
from django.core.exceptions import SynchronousOnlyOperation
from django.http import HttpResponse
from django.template import TemplateDoesNotExist
from django.template.loader import get_template
from django.utils.html import format_html
from django.utils.safestring import SafeString
from rest_framework.response import Response

from taskapi import protocol
from taskapi.protocol.sse import server_sent
from taskapi.protocol.states import FINAL

logger = logging.getLogger(__name__)

PARTS = ("progress", "status", "message", "finished")  # those of templates/taskapi/ that a stream renders
FINISHED = "finished"  # the name of the event that ends a stream
AGAIN, NEVER = 3_000, 86_400_000  # milliseconds until a page connects again: one that should, one that should not

CANNOT_SHOW = "This run cannot be followed here, because a template failed. The server's log says which, and why."
NO_TEMPLATES = (
    "There is no template {name}. Expected 'taskapi' in INSTALLED_APPS, and in TEMPLATES a backend with APP_DIRS"
    " (or with the loader app_directories)."
)
NO_QUERIES = (
    " A stream is rendered on the server's event loop, where nothing may query the database: let the page load what"
    " needs a query when the run has finished."
)


class TemplateFailed(Exception):
    """A template could not be loaded or rendered. The message names it."""


class HTMLEvents:
    """The events of one stream as HTML, for a page that has the first `after` messages."""

    def __init__(self, after: int = 0) -> None:
        self.ended = False  # what `write` gave last was the end: close the stream
        self._after = after
        self._run: dict[str, Any] = {}  # the representation, as the page shows it
        self._bar: str | None = None  # as it was rendered last; None if it has changed since
        self._said: object = None  # what the status line says
        self._templates: dict[str, tuple[str, Any]] = {}  # by part; with its name

    def write(self, frame: str, event_id: str) -> str:
        """The server-sent events for a frame, as a WebSocket would get it; "" if there is nothing to show."""
        if self.ended:
            return ""
        try:
            return self._write(protocol.decode(frame), event_id)
        except TemplateFailed as failure:
            logger.error("%s", failure, exc_info=failure.__cause__)
            return self._give_up(f"{failure} {failure.__cause__!r}" if settings.DEBUG else CANNOT_SHOW, event_id)

    def _write(self, event: dict[str, Any], event_id: str) -> str:
        match event["type"]:
            case "snapshot":
                return server_sent(self._begin(event["task"]), id=event_id)
            case "message":
                message = event.get("message", protocol.OMITTED)
                return server_sent(self._changed(self._add_messages([message], event["index"])), id=event_id)
            case "finished":
                return self._finish(event["task"], event_id)
            case "error":
                return self._refuse(event, event_id)
        self._take(event)
        return server_sent(self._changed(), id=event_id)

    def _begin(self, task: dict[str, Any]) -> str:
        self._run = task
        self._templates = {part: find_template(task["task"], part) for part in PARTS}
        messages = task["messages"]
        if self._after:
            return self._changed(self._add_messages(messages, self._after))
        # The page may have messages all the same: after an answer that is no stream, htmx 2 forgets where it was.
        return self._changed(self._beside("innerHTML", "messages", self._render_messages(messages, 0)))

    def _take(self, event: dict[str, Any]) -> None:
        """Take over what a `status`, `target` or `progress` says."""
        if event["attempt"] > self._run["attempt"]:
            self._run |= {"progress": None, "target": None}
        names = ("attempt", "status", "target", "progress")
        self._run |= {name: event[name] for name in names if name in event}
        self._bar = None

    def _finish(self, task: dict[str, Any], event_id: str) -> str:
        self._run |= task
        self._bar = None
        end = self._render("finished", outputs=_outputs(task))
        shown = self._changed(self._beside("innerHTML", "end", end))
        self.ended = True
        # Browsers pass over an event without data: the page would not close the connection, and ask again for ever.
        data = _sendable(end).strip() or task["status"]
        return server_sent(shown) + server_sent(data, event=FINISHED, id=event_id, retry=NEVER)

    def _refuse(self, event: dict[str, Any], event_id: str) -> str:
        """The server ends the stream before the run has ended."""
        if event["code"] != "unavailable":
            return self._give_up(str(event["detail"]), event_id)
        self.ended = True
        return server_sent(_sendable(alert(str(event["detail"]))), id=event_id, retry=AGAIN)

    def _give_up(self, sentence: str, event_id: str) -> str:
        self.ended = True
        shown = _sendable(alert(sentence))
        return server_sent(shown) + server_sent(shown, event=FINISHED, id=event_id, retry=NEVER)

    # What the page gets

    def _changed(self, *others: str) -> str:
        """The bar, the status line if it says something new, and the others."""
        if self._bar is None:
            self._bar = self._render("progress", percent=_percent(self._run))
        return _sendable("\n".join([self._bar, *self._status(), *others]))

    def _status(self) -> Iterator[str]:
        """The status line. It is read aloud, so it changes with each quarter, and not with each percent."""
        run = self._run
        quarters = None if run["status"] in FINAL else _quarters(run)
        said = (run["status"], run["attempt"], run["cancel_requested"], quarters)
        if said != self._said:
            self._said = said
            yield self._beside("innerHTML", "status", self._render("status", quarters=quarters))

    def _add_messages(self, messages: Sequence[Any], index: int) -> str:
        return self._beside("beforeend", "messages", self._render_messages(messages, index)) if messages else ""

    def _render_messages(self, messages: Sequence[Any], index: int) -> str:
        numbered = enumerate(messages, index)
        return "\n".join(self._render("message", index=number, **_readable(message)) for number, message in numbered)

    def _beside(self, swap: str, place: str, content: str) -> str:
        """What is swapped out of band, into a place that templates/taskapi/run.html has."""
        return f'<div hx-swap-oob="{swap}:#task-{self._run["uuid"]}-{place}">{content}</div>'

    def _render(self, part: str, **context: Any) -> str:
        name, template = self._templates[part]
        try:
            return str(template.render({"run": self._run, **context}))
        except Exception as error:  # the project's own code: its tags and filters may raise anything
            remedy = NO_QUERIES if isinstance(error, SynchronousOnlyOperation) else ""
            raise TemplateFailed(f"The template {name} could not be rendered.{remedy}") from error


def find_template(task: str, part: str) -> tuple[str, Any]:
    """The name of a part's template, and the template: that of the task, else that for all tasks."""
    names = (f"taskapi/{task}/{part}.html", f"taskapi/{part}.html")
    for name in names:
        try:
            return name, get_template(name)
        except TemplateDoesNotExist as error:
            missing = error
        except Exception as error:  # as above: a template may load the project's own tags
            raise TemplateFailed(f"The template {name} could not be loaded.") from error
    raise TemplateFailed(NO_TEMPLATES.format(name=names[-1])) from missing


def alert(sentence: str) -> SafeString:
    """What is shown in place of the bar if a run cannot be followed."""
    return format_html('<p role="alert" class="taskapi-alert">{}</p>', sentence)


def shown_refusal(response: Response) -> HttpResponse:
    """The refusal as HTML: htmx 4 shows each answer as if it were, and this one may quote the request."""
    said = response.data.get("detail") or next(iter(response.data.values()))
    sentence = said[0] if isinstance(said, list) else said
    headers = {name: value for name, value in response.items() if name.lower() != "content-type"}
    return HttpResponse(alert(str(sentence)), status=response.status_code, headers=headers)


def _percent(run: dict[str, Any]) -> int | None:
    """0 to 100; None if the run has no target."""
    return _parts(run, 100)


def _quarters(run: dict[str, Any]) -> int | None:
    """0 to 4; None if the run has no target."""
    return _parts(run, 4)


def _parts(run: dict[str, Any], count: int) -> int | None:
    target: int | None = run["target"]
    progress: int = run["progress"] or 0
    return max(0, min(count, progress * count // target)) if target else None


def _outputs(task: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, **_readable(value)} for name, value in (task.get("outputs") or {}).items()]


def _readable(value: Any) -> dict[str, Any]:
    """The value for a template: as it is, as text, and whether this text is JSON and not a sentence or a number."""
    if value is protocol.OMITTED:
        return {"value": None, "text": "", "is_json": False, "omitted": True}
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return {"value": value, "text": text, "is_json": isinstance(value, (list, dict)), "omitted": False}


def _sendable(text: str) -> str:
    """The text without lone surrogates, which have no bytes in UTF-8."""
    return text if text.isascii() else text.encode(errors="replace").decode()
