"""``manage.py taskworker``: execute runs until told to stop."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from taskapi.backends import get_backend
from taskapi.conf import DEFAULT_BACKEND, settings
from taskapi.tasks import Task
from taskapi.workers.host import DEFAULT_CONCURRENCY
from taskapi.workers.processes import log_to_terminal
from taskapi.workers.reloading import RELOAD_GRACE
from taskapi.workers.supervised import Surroundings
from taskapi.workers.supervisor import Supervisor
from taskapi.workers.worker import DEFAULT_GRACE, Worker


def _positive(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise ArgumentTypeError(f"expected a number of 1 or more, got {value!r}")
    return int(value)


class Command(BaseCommand):
    help = "Executes the runs of tasks: the worker of Django Task API."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--queue",
            action="append",
            metavar="NAME",
            dest="queues",
            help=f"a queue to take runs from; repeat it for several, the first first (default: {Task.queue})",
        )
        parser.add_argument(
            "--concurrency",
            type=_positive,
            default=DEFAULT_CONCURRENCY,
            metavar="N",
            help="runs at once in each process (default: %(default)s)",
        )
        parser.add_argument(
            "--processes", type=_positive, default=1, metavar="N", help="worker processes (default: %(default)s)"
        )
        parser.add_argument("--burst", action="store_true", help="end when no run is due")
        parser.add_argument(
            "--reload",
            action="store_true",
            help="start again when the code changes, as runserver does: for development. Running tasks get "
            f"{RELOAD_GRACE:g} seconds to finish, then their runs are handed back",
        )
        parser.add_argument(
            "--grace",
            type=float,
            default=DEFAULT_GRACE,
            metavar="SECONDS",
            help="how long running tasks may take to finish after SIGTERM or Ctrl-C, before their runs are handed "
            "back to other workers (default: %(default)g)",
        )

    def execute(self, *args: Any, **options: Any) -> str | None:
        if options.get("reload"):  # each new process makes the checks: what they find may be mended while it waits
            self._checks = not options.get("skip_checks")
            options["skip_checks"] = True
        return super().execute(*args, **options)

    def handle(self, *args: Any, **options: Any) -> None:
        if options["reload"] and options["burst"]:
            raise CommandError("--burst ends when no run is due, and --reload does not end: give one of them.")
        terminal = {"verbosity": options["verbosity"], "colour": _colour(options)}
        log_to_terminal(**terminal)
        backend = get_backend()
        if backend.engine is not None:
            raise CommandError(
                f"TASK_API_BACKEND is {settings.backend!r}, which needs no worker: the server process executes the "
                f"runs. To use workers, set TASK_API_BACKEND to {DEFAULT_BACKEND!r}."
            )
        if not backend.has_worker_queue:
            raise CommandError(
                f"TASK_API_BACKEND is {settings.backend!r}, which does not use this worker. Start the worker of that "
                f"backend, or set TASK_API_BACKEND to one that has a `worker_queue`, such as {DEFAULT_BACKEND!r}."
            )
        worker = {
            "queues": options["queues"] or [Task.queue],
            "concurrency": options["concurrency"],
            "burst": options["burst"],
            "grace": options["grace"],
        }
        if options["reload"]:
            Supervisor(options["processes"], worker, Surroundings(terminal, reload=True, checks=self._checks)).run()
        elif options["processes"] > 1:
            Supervisor(options["processes"], worker, Surroundings(terminal)).run()
        else:
            Worker(**worker).run()


def _colour(options: dict[str, Any]) -> bool | None:
    """Whether --force-color or --no-color was given; None: neither."""
    return True if options["force_color"] else False if options["no_color"] else None
