"""``manage.py taskschema``: write the OpenAPI and the AsyncAPI document of the project's tasks."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any, get_args

from django.core.management.base import BaseCommand, CommandError

from taskapi.schemas.documents import ExtraMissing, Kind, document
from taskapi.schemas.mount import find_mount
from taskapi.tasks.registry import tasks

STDOUT = "-"
MISUSED = 2  # exit code


class Command(BaseCommand):
    help = (
        "Writes what the API says of itself: OpenAPI 3.1 of REST, AsyncAPI 3 of the WebSocket, with all tasks of the "
        "project. Without options, prints OpenAPI. The same code gives the same text, so it can be committed."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--openapi", metavar="FILE", help="write OpenAPI to this file; - is standard output")
        parser.add_argument("--asyncapi", metavar="FILE", help="write AsyncAPI to this file; - is standard output")
        parser.add_argument(
            "--server",
            metavar="URL",
            help="the URL of the server, without a path; else OpenAPI names none, and AsyncAPI that of runserver",
        )

    def handle(self, *args: Any, server: str | None, **options: Any) -> None:
        wanted: dict[Kind, str] = {kind: options[kind] for kind in get_args(Kind) if options[kind]}
        if list(wanted.values()).count(STDOUT) > 1:
            raise CommandError("Standard output can have one document. Give a file for the other.", returncode=MISUSED)
        try:
            texts = {
                target: document(kind, tasks().values(), find_mount(), server)
                for kind, target in (wanted or {"openapi": STDOUT}).items()
            }
        except ExtraMissing as error:
            raise CommandError(str(error)) from None
        for target, text in texts.items():
            self._write(target, text)

    def _write(self, target: str, text: str) -> None:
        if target == STDOUT:
            self.stdout.write(text)
            return
        try:
            Path(target).write_text(f"{text}\n", encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{target} could not be written: {error}") from None
