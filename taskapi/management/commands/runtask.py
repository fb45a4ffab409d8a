"""``manage.py runtask``: start a run, show how it goes, and end as it ends."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from argparse import ArgumentParser
from collections.abc import Mapping
from contextlib import ExitStack
from difflib import get_close_matches
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from taskapi.exceptions import InvalidInputs, UnknownTask
from taskapi.management.running.display import as_text, choose
from taskapi.management.running.following import LEFT, Run, RunGone, conduct
from taskapi.management.running.here import RunHere
from taskapi.management.running.inputs import Unreadable, names_files, open_files, read_inputs
from taskapi.management.running.remote import TOKEN, Refused, RemoteRun, Server
from taskapi.protocol.states import Status
from taskapi.tasks import Task
from taskapi.tasks.registry import get_task, tasks

FAILED, MISUSED, CANCELLED = 1, 2, LEFT  # exit codes


class Command(BaseCommand):
    help = (
        "Runs a task and shows its progress. Ctrl-C cancels the run; a second one leaves it alone. "
        f"Exit code: 0 if it succeeded, {FAILED} if it failed, {CANCELLED} if it was cancelled or left alone, "
        f"{MISUSED} if it could not be started as it was given."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", metavar="NAME", help="the task")
        parser.add_argument(
            "--input",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            dest="inputs",
            help="an input; repeat it for several, and for the items of a list; NAME=@PATH for a file",
        )
        parser.add_argument(
            "--json", metavar="OBJECT", help="the inputs as one JSON object; with -, it is read from standard input"
        )
        parser.add_argument(
            "--output",
            choices=["text", "json"],
            default="text",
            help="how to print the outputs; nothing else goes to standard output (default: %(default)s)",
        )
        parser.add_argument("--detach", action="store_true", help="print the uuid of the run, and do not wait for it")
        parser.add_argument(
            "--url",
            help="the address of tasks/ on a server, to run the task there instead of in this project; the "
            f"environment's {TOKEN} goes with it as `Authorization`",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        begun = time.monotonic()
        try:
            run = _start(options)
            if options["detach"]:
                self._detach(run, options)
                return
            ended = asyncio.run(self._follow(run, options))
        except KeyboardInterrupt:
            raise CommandError("Interrupted while the run was started; it may go on.", returncode=CANCELLED) from None
        except Refused as error:
            raise CommandError(_refusal(error, options), returncode=MISUSED if error.status < 500 else FAILED) from None
        except RunGone as error:
            raise CommandError(str(error), returncode=FAILED) from None
        if ended is None:
            raise CommandError(f"The run was asked to stop, and is left alone: {run.uuid}", returncode=CANCELLED)
        self._conclude(ended, time.monotonic() - begun, options)

    def _detach(self, run: Run, options: Mapping[str, Any]) -> None:
        self.stdout.write(run.uuid)
        if run.is_executed_here and options["verbosity"] > 0:
            self.stderr.write("A server process of the project executes the run; this one ends.", style_func=str)

    async def _follow(self, run: Run, options: Mapping[str, Any]) -> dict[str, Any] | None:
        colour = True if options["force_color"] else False if options["no_color"] else None
        return await conduct(run, options["name"], choose(self.stderr, verbosity=options["verbosity"], colour=colour))

    def _conclude(self, ended: Mapping[str, Any], seconds: float, options: Mapping[str, Any]) -> None:
        """Print the outputs, or say why there are none."""
        which = f"Run {ended['uuid']} ({ended['task']})"
        match ended["status"]:
            case Status.CANCELLED:
                raise CommandError(f"{which} was cancelled after {seconds:.1f} s.", returncode=CANCELLED)
            case Status.FAILED:
                error = ended["error"] or {}
                why = f"{error.get('code')}: {as_text(error.get('message', ''))}"
                raise CommandError(f"{which} failed after {seconds:.1f} s: {why}", returncode=FAILED)
        if options["verbosity"] > 0:
            self.stderr.write(f"{which} succeeded after {seconds:.1f} s.", style_func=self.style.SUCCESS)
        outputs = ended["outputs"] or {}
        if options["output"] == "json":
            self.stdout.write(json.dumps(outputs))
        else:
            for name, value in outputs.items():
                self.stdout.write(f"{name}: {as_text(value)}")


def _start(options: Mapping[str, Any]) -> Run:
    text = sys.stdin.read() if options["json"] == "-" else options["json"]
    task = _find(options["name"], anywhere=options["url"] is not None)
    try:
        inputs = read_inputs(None if task is None else task.inputs, options["inputs"], text)
        if options["url"] is not None:
            return _start_there(options["url"], options["name"], inputs, task)
        assert task is not None  # noqa: S101 - `_find` has raised otherwise
        with ExitStack() as opened:  # they are stored when the run is started
            return RunHere(task, open_files(inputs, task.inputs, opened))
    except Unreadable as error:
        raise CommandError(str(error), returncode=MISUSED) from None
    except InvalidInputs as error:
        raise CommandError(_misfits(options["name"], error.detail), returncode=MISUSED) from None


def _start_there(url: str, name: str, inputs: dict[str, Any], task: type[Task] | None) -> Run:
    if task is not None and names_files(inputs, task.inputs):
        raise Unreadable(
            "With --url, this command sends no files. Upload the file (POST tasks/uploads/, with the field `file`), "
            "and give what the server answers, as JSON: --input NAME=ANSWER."
        )
    try:
        return RemoteRun(Server(url), name, inputs)
    except OSError as error:
        raise CommandError(f"{url} cannot be reached: {error}", returncode=FAILED) from None


def _find(name: str, *, anywhere: bool) -> type[Task] | None:
    """The task of this project; None if there is none, and a server may have it."""
    try:
        return get_task(name)
    except UnknownTask as error:
        if anywhere:
            return None
        raise CommandError(f"{error} {_alternative(name)}", returncode=MISUSED) from None


def _alternative(name: str) -> str:
    known = sorted(tasks())
    close = get_close_matches(name, known, n=1)
    if close:
        return f"Did you mean {close[0]!r}?"
    if known:
        return f"The tasks of this project are: {', '.join(known)}."
    return "TASK_API_BACKGROUND_TASKS names no task."


def _refusal(error: Refused, options: Mapping[str, Any]) -> str:
    """Why the server does not start or show the run."""
    detail = error.detail if isinstance(error.detail, dict) else {}
    if error.status == 400 and "inputs" in detail:
        return _misfits(options["name"], detail["inputs"])
    if error.status == 400 and "task" in detail:
        return " ".join(map(str, detail["task"]))
    return str(error)


def _misfits(name: str, detail: Any) -> str:
    """The sentences about each input."""
    lines = [f"The inputs do not fit the task {name!r}."]
    named = detail.items() if isinstance(detail, dict) else [("", detail)]
    for which, said in named:
        lines += [f"  {which}: {sentence}" if which else f"  {sentence}" for sentence in _sentences(said)]
    return "\n".join(lines)


def _sentences(said: Any) -> list[str]:
    return [str(sentence) for sentence in (said if isinstance(said, list) else [said])]
