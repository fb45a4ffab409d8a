"""How a process finds out that it serves. Only then does it execute runs: `migrate` and `shell` never do.

Several things tell it, and each may be the first:

- Django sends `request_started` for a request that a server passes on. Django's test client sends it as well, but is no
  server: it would have runs executed in the middle of a test's transaction.
- A socket is opened (taskapi.routing).
- The server has been started, and nobody has asked it for anything yet. daphne, also as `runserver`, runs Twisted's
  reactor; `runserver` without daphne is known by its command; others send ASGI's `lifespan` (taskapi.asgi).
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import threading
from importlib import import_module
from typing import Any

from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_started

from taskapi.backends import get_backend

PAUSE = 1.0  # seconds after the start of a server: if its port is taken, it has ended by then, and has begun no run


def serve() -> None:
    """Say that this process serves: if the backend has an engine, runs are executed here from now on."""
    engine = _engine()
    if engine is not None:
        engine.serve()


async def lifespan(scope: Any, receive: Any, send: Any) -> None:
    """The ASGI application for a server that tells when it begins to serve, and when it ends."""
    await receive()
    serve()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    engine = _engine()
    if engine is not None:
        await asyncio.to_thread(engine.stop)
    await send({"type": "lifespan.shutdown.complete"})


def _engine() -> Any:
    """The module that executes the backend's runs in this process; None without one."""
    try:
        engine = get_backend().engine
    except Exception:  # noqa: BLE001 - the backend cannot be made: `check` says why, and no request may fail for it
        return None
    return None if engine is None else import_module(engine)


def watch() -> None:
    """Call `serve` once this process serves."""
    request_started.connect(_request_started, dispatch_uid="taskapi")
    if is_runserver():
        _serve_soon()
    reactor: Any = sys.modules.get("twisted.internet.reactor")  # daphne has installed it; no other may be
    if reactor is not None:
        reactor.callWhenRunning(_serve_soon)


def is_runserver() -> bool:
    """Whether this is the process of `manage.py runserver` that serves: not the one that restarts it."""
    if multiprocessing.parent_process() is not None:  # the process of a run: it has the arguments of the server
        return False
    return sys.argv[1:2] == ["runserver"] and (os.environ.get("RUN_MAIN") == "true" or "--noreload" in sys.argv)


def _request_started(sender: Any, **kwargs: Any) -> None:
    if issubclass(sender, (WSGIHandler, ASGIHandler)):
        serve()


def _serve_soon() -> None:
    timer = threading.Timer(PAUSE, serve)
    timer.name, timer.daemon = "taskapi-serve", True
    timer.start()
