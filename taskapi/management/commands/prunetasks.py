"""``manage.py prunetasks``: delete finished runs that have been kept for as long as they should be."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from taskapi import files
from taskapi.workers.upkeep import Pruner


class Command(BaseCommand):
    help = "Deletes finished runs, and their messages, that TASK_API_RETENTION or their task's `retain` lets go."

    def handle(self, *args: Any, **options: Any) -> None:
        pruner = Pruner()
        while pruner.page():
            pass
        while files.clear():
            pass
        self.stdout.write(f"Deleted {pruner.deleted} runs.")
        if pruner.left:
            self.stdout.write(f"{len(pruner.left)} more have expired, but could not be deleted.")
