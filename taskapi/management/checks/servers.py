"""Whether the servers of the project can open a WebSocket: its `asgi.py`, and `runserver`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.core import checks
from django.core.checks import CheckMessage

DJANGOS = "django.core.asgi"
HARMLESS = {"__future__", "django", "os", "pathlib", "sys", "typing"}  # what is imported here routes no WebSocket
REMEDY = "Import `get_asgi_application` from `taskapi.asgi` instead of `django.core.asgi`: it routes WebSockets, too."


def check_servers(**kwargs: Any) -> list[CheckMessage]:
    """The project's `asgi.py` routes WebSockets, and `runserver` serves it."""
    return [*_check_asgi(), *_check_runserver()]


def _check_asgi() -> Iterator[CheckMessage]:
    module = _asgi_module()
    if module is not None and _is_djangos_own(module):
        yield checks.Warning(
            f"{module} is Django's own, which serves no WebSocket: pages poll their runs instead of being told.",
            hint=f"{REMEDY} If you want no WebSocket, remove ASGI_APPLICATION.",
            id="taskapi.W011",
        )


def _check_runserver() -> Iterator[CheckMessage]:
    """It is a server for development only."""
    if not django_settings.DEBUG:
        return
    module = _asgi_module()
    if module is None:
        example = f"{django_settings.ROOT_URLCONF.rpartition('.')[0] or 'mysite'}.asgi"
        yield checks.Info(
            "ASGI_APPLICATION is not set, so `runserver` serves no WebSocket: pages poll their runs.",
            hint="Put 'daphne' first into INSTALLED_APPS, and set "
            f"ASGI_APPLICATION = '{example}.application'. "
            + (f"In {example}: {REMEDY[0].lower()}{REMEDY[1:]} " if _is_djangos_own(example) else "")
            + "If you want no WebSocket, set SILENCED_SYSTEM_CHECKS = ['taskapi.I001'].",
            id="taskapi.I001",
        )
    elif not apps.is_installed("daphne"):
        yield checks.Warning(
            "'daphne' is not in INSTALLED_APPS, so `runserver` is Django's own and serves no WebSocket: pages poll "
            "their runs.",
            hint="Put 'daphne' first into INSTALLED_APPS. If you develop with another ASGI server than `runserver`, "
            "set SILENCED_SYSTEM_CHECKS = ['taskapi.W012'].",
            id="taskapi.W012",
        )


def _asgi_module() -> str | None:
    """The module of ASGI_APPLICATION; None if that is not set."""
    path = getattr(django_settings, "ASGI_APPLICATION", None)
    return path.rpartition(".")[0] if isinstance(path, str) and "." in path else None


def _is_djangos_own(module: str) -> bool:
    """Whether the module gets its application from Django, and uses nothing else that could route WebSockets.

    It is read and not imported: an `asgi.py` sets Django up once more, which would configure logging again.
    """
    try:
        spec = find_spec(module)
        source = Path(spec.origin).read_bytes() if spec is not None and spec.origin is not None else b""
        used = set(_imports(ast.parse(source)))
    except (ImportError, ValueError, OSError, SyntaxError):
        return False
    return DJANGOS in used and {name.partition(".")[0] for name in used} <= HARMLESS


def _imports(tree: ast.AST) -> Iterator[str]:
    """The modules that the source imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield node.module or "."
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
