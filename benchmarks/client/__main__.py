"""Make one measure of one stack, given by its only argument in JSON, and print the figures as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from benchmarks.client import growth, measures, pages

PAGES: dict[str, type[pages.Page]] = {
    "task_api": pages.TaskApi,
    "task_api_1": pages.TaskApi1,
    "celery_progress": pages.CeleryProgress,
    "idle_celery_progress": pages.IdleCeleryProgress,
    "afternoon": pages.Afternoon,
    "echo": pages.Echo,
}
MEASURES: dict[str, Callable[..., Coroutine[Any, Any, Any]]] = {
    "run": measures.run,
    "busy": measures.busy,
    "answer": measures.answer,
    "burst": measures.burst,
    "call": measures.call,
    "followers": measures.followers,
    "memory": measures.memory,
    "poll": measures.poll,
    "crowd": measures.crowd,
    "open_loop": growth.open_loop,
    "idle": growth.idle,
    "on_one_socket": growth.on_one_socket,
    "long_list": growth.long_list,
    "many_messages": growth.many_messages,
}


def main() -> None:
    order = json.loads(sys.argv[1])
    measure = MEASURES[order["measure"]]
    print(json.dumps(asyncio.run(measure(PAGES[order["page"]], order["port"], **order["options"]))))


if __name__ == "__main__":
    main()
