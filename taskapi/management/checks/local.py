"""What a site should know that executes its runs in its server process."""

from __future__ import annotations

from typing import Any

from django.core import checks
from django.core.checks import CheckMessage

from taskapi.backends import get_backend
from taskapi.backends.local import LocalBackend


def check_local_backend(**kwargs: Any) -> list[CheckMessage]:
    """How many server processes there are cannot be seen from here; so this is said to each site, with `--deploy`."""
    try:
        is_local = isinstance(get_backend(), LocalBackend)
    except Exception:  # noqa: BLE001 - check_settings reports what is wrong with it
        return []
    if not is_local:
        return []
    return [
        checks.Info(
            "TASK_API_BACKEND is LocalBackend, for which one server process is enough: in several, each run is still "
            "executed once, but a follower in another process hears of it only every few seconds.",
            hint="Serve the site with one process, which daphne always is; gunicorn: --workers 1 --threads 8. For "
            "several processes, use 'taskapi.backends.arq.ArqBackend' with Redis and `manage.py taskworker`.",
            id="taskapi.I002",
        )
    ]
