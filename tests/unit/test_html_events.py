"""The events of a run as HTML, frame by frame, without a browser: tests/browser/test_htmx.py has those with one."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from django.template import engines
from django.test import override_settings
from django.utils import translation

from taskapi.views.html import AGAIN, CANNOT_SHOW, NEVER, HTMLEvents
from tests.project.settings import TEMPLATES

UUID = "0b2f5f0e-7ad7-4bbf-9d53-5b3a1f1d8b0e"
RUN: dict[str, Any] = {
    "uuid": UUID, "task": "sum", "status": "running", "progress": None, "target": None, "inputs": {}, "outputs": None,
    "messages": [], "message_count": 0, "error": None, "attempt": 1, "seq": 1, "cancel_requested": False,
}  # fmt: skip


def frame(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, "uuid": UUID, "attempt": 1, "seq": 2, **fields})


def snapshot(**fields: Any) -> str:
    return json.dumps({"type": "snapshot", "task": RUN | fields})


def finished(**fields: Any) -> str:
    task = {name: value for name, value in (RUN | fields).items() if name not in ("messages", "inputs")}
    return frame("finished", status=task["status"], task=task)


def parsed(text: str) -> list[dict[str, str]]:
    """The server-sent events in a text, as a browser reads them."""
    events = []
    for block in text.split("\n\n")[:-1]:
        event: dict[str, str] = {}
        for line in re.split("\r\n|\r|\n", block):
            name, _, value = line.partition(": ")
            event[name] = f"{event[name]}\n{value}" if name in event else value
        events.append(event)
    return events


def shown(text: str) -> str:
    """The data of the only event."""
    (event,) = parsed(text)
    assert "event" not in event, "what is to be swapped has no name"
    return event["data"]


def began(after: int = 0, **fields: Any) -> HTMLEvents:
    events = HTMLEvents(after)
    events.write(snapshot(**fields), "0")
    return events


@pytest.fixture
def templates(tmp_path: Path) -> Any:
    """A folder of the project with templates; those that it has are used."""
    with override_settings(TEMPLATES=[{**TEMPLATES[0], "DIRS": [tmp_path]}]):
        (tmp_path / "taskapi").mkdir()
        yield tmp_path / "taskapi"


def test_each_event_begins_with_the_bar_and_has_the_id() -> None:
    events = HTMLEvents()
    for text in (
        snapshot(),
        frame("target", target=4),
        frame("progress", progress=1, target=4),
        frame("message", index=0, message="hello"),
        frame("status", status="pending"),
    ):
        (event,) = parsed(events.write(text, "7"))
        assert event["data"].startswith('<p class="taskapi-progress taskapi-')
        assert event["id"] == "7"


def test_the_bar_shows_progress_and_target() -> None:
    events = began()
    assert 'max="4" value="0"' in shown(events.write(frame("target", target=4), "0"))
    bar = shown(events.write(frame("progress", progress=3, target=4), "0"))
    assert 'max="4" value="3"' in bar
    assert "3 of 4" in bar


def test_the_bar_of_a_run_without_a_target_has_no_value() -> None:
    bar = shown(began().write(frame("progress", progress=3, target=None), "0"))
    assert "value=" not in bar
    assert '<span class="taskapi-count">3</span>' in bar


def test_a_new_attempt_starts_again() -> None:
    events = began(progress=3, target=4)
    text = shown(events.write(frame("status", status="running", attempt=2), "0"))
    assert "value=" not in text
    assert "Running (attempt 2)" in text


def test_numbers_in_attributes_are_not_localized() -> None:
    with override_settings(USE_THOUSAND_SEPARATOR=True), translation.override("de"):
        bar = shown(HTMLEvents().write(snapshot(progress=1234, target=56789), "0"))
    assert 'max="56789" value="1234"' in bar
    assert "1.234" in bar


def test_the_status_line_speaks_in_quarters_and_not_at_each_percent() -> None:
    events = began(target=100)
    texts = [shown(events.write(frame("progress", progress=number, target=100), "0")) for number in range(1, 101)]
    said = [number for number, text in enumerate(texts, 1) if f"#task-{UUID}-status" in text]
    assert said == [25, 50, 75, 100]
    assert "Running: half is done" in texts[49]


def test_a_snapshot_has_all_messages_and_replaces_those_of_the_page() -> None:
    text = shown(HTMLEvents().write(snapshot(messages=["a", "b"], message_count=2), "2"))
    assert re.search(f'<div hx-swap-oob="innerHTML:#task-{UUID}-messages"><li.*a</li>\n+<li.*b</li>\n*</div>', text)


def test_a_snapshot_for_a_page_that_has_some_adds_the_others() -> None:
    text = shown(HTMLEvents(after=2).write(snapshot(messages=["c"], message_count=3), "3"))
    assert re.search(f'<div hx-swap-oob="beforeend:#task-{UUID}-messages"><li.*c</li>\n*</div>', text)
    assert "messages" not in shown(HTMLEvents(after=3).write(snapshot(message_count=3), "3"))


@pytest.mark.parametrize(
    ("message", "html"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ('" onmouseover="alert(1)', "&quot; onmouseover=&quot;alert(1)"),
        ("two\r\nlines", "two<br>lines"),
        ("data: x\n\nevent: finished", "data: x<br><br>event: finished"),
        (3, ">3<"),
        (None, ">null<"),
        (True, ">true<"),
        ({"<b>": [1, "é"]}, "<code>{&quot;&lt;b&gt;&quot;: [1, &quot;é&quot;]}</code>"),
        ("\ud800 alone", "? alone"),
    ],
)
def test_a_message_is_shown_as_text(message: Any, html: str) -> None:
    text = began().write(frame("message", index=0, message=message), "1")
    assert html in shown(text)
    assert text.encode()


def test_a_message_that_did_not_fit_is_said_to_be_too_long() -> None:
    assert "too long to be shown" in shown(began().write(frame("message", index=0, omitted=True), "1"))


def test_all_is_shown_before_the_last_event_ends_the_stream() -> None:
    events = began(progress=2, target=2)
    last, end = parsed(events.write(finished(status="succeeded", progress=2, target=2, outputs={"sum": 6}), "9"))
    assert "event" not in last
    assert "Succeeded" in last["data"]
    assert f'<div hx-swap-oob="innerHTML:#task-{UUID}-end"><dl' in last["data"]
    assert end["event"] == "finished"
    assert (end["id"], end["retry"]) == ("9", str(NEVER))
    assert "<dt>sum</dt>" in end["data"]
    assert events.ended
    assert events.write(frame("message", index=0, message="late"), "10") == ""


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
def test_the_last_event_has_data_without_which_a_browser_passes_over_it(status: str) -> None:
    error = {"code": "task_error", "message": "No <rows>."} if status == "failed" else None
    last, end = parsed(began().write(finished(status=status, error=error), "9"))
    assert end["data"] == status
    assert ("Failed: No &lt;rows&gt;." in last["data"]) == (status == "failed")
    assert f'value="{int(status == "succeeded")}"' in last["data"], "the bar does not go on moving"


def test_outputs_that_did_not_fit_are_said_to_be_too_long() -> None:
    last, _ = parsed(began().write(finished(status="succeeded", omitted=["outputs"]), "9"))
    assert "The outputs are too long to be shown here." in last["data"]


def test_a_refusal_in_mid_stream_is_shown_and_ends_it() -> None:
    events = began()
    last, end = parsed(events.write(frame("error", code="not_found", detail="Not <found>."), "3"))
    assert last["data"] == '<p role="alert" class="taskapi-alert">Not &lt;found&gt;.</p>'
    assert end["event"] == "finished"
    assert events.ended


def test_a_fault_of_the_server_is_shown_and_the_page_comes_back() -> None:
    events = began()
    (event,) = parsed(events.write(frame("error", code="unavailable", detail="The database is away."), "3"))
    assert "event" not in event
    assert event["retry"] == str(AGAIN)
    assert events.ended


# Templates of a project


def test_a_project_has_templates_of_its_own_and_some_for_one_task(templates: Path) -> None:
    (templates / "progress.html").write_text("all: {{ percent }}")
    (templates / "sum").mkdir()
    (templates / "sum" / "progress.html").write_text("sum: {{ percent }}")
    (templates / "sum" / "message.html").write_text("<li>{{ index }} {{ value.a }} {{ run.task }}</li>")
    text = shown(HTMLEvents().write(snapshot(progress=1, target=3, messages=[{"a": "b"}]), "0"))
    assert text.startswith("sum: 33")
    assert "<li>0 b sum</li>" in text
    assert shown(HTMLEvents().write(snapshot(task="other", progress=1, target=3), "0")).startswith("all: 33")


@pytest.mark.parametrize(
    "source", ["{% nonsense %}", "{% extends 'nowhere.html' %}", "{{ run.status|add:nothing.at.all }}"]
)
@pytest.mark.parametrize("debug", [False, True])
def test_a_template_that_fails_is_logged_and_shown_and_ends_the_stream(
    templates: Path, caplog: pytest.LogCaptureFixture, settings: Any, source: str, debug: bool
) -> None:
    settings.DEBUG = debug
    (templates / "progress.html").write_text(source)
    events = HTMLEvents()
    last, end = parsed(events.write(snapshot(), "0"))
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage().startswith("The template taskapi/progress.html could not be ")
    assert record.exc_info is not None
    assert ("taskapi/progress.html" in last["data"]) == debug
    assert (CANNOT_SHOW.replace("'", "&#x27;") in last["data"]) != debug
    assert end["event"] == "finished"
    assert events.ended


def test_a_project_without_templates_is_told_what_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    with override_settings(TEMPLATES=[]):
        HTMLEvents().write(snapshot(), "0")
    assert "'taskapi' in INSTALLED_APPS" in caplog.text


def test_the_page_shows_a_run_as_it_is_before_the_stream_comes() -> None:
    template = engines["django"].from_string('{% include "taskapi/run.html" %}')
    html = template.render({"run": RUN | {"progress": 1, "target": 4}})
    assert 'max="4" value="1"' in html
    assert f'hx-sse:connect="/tasks/{UUID}/events/?format=html"' in html
    for place in ("status", "messages", "end"):
        assert f'id="task-{UUID}-{place}"' in html
