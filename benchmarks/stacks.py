"""The stacks that are measured side by side, and how each is set up."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

CELERY = ("Django", "celery", "kombu", "redis")
CHANNELS = ("channels", "channels-redis", "daphne")


@dataclass(frozen=True)
class Stack:
    """A project of benchmarks/projects/, how it is run, and what can be measured on it."""

    name: str
    title: str
    project: str
    page: str  # its class in benchmarks/client/pages.py
    worker: tuple[str, ...]  # the command of its worker, after `python -m`
    worker_ready: str  # what the worker prints when it is ready
    configured: str  # how it is set up, for readers of the results
    packages: tuple[str, ...]
    measures: tuple[str, ...] = ("memory", "run", "busy", "burst", "call", "followers", "start")
    environment: str | None = None  # of requirements/bench-NAME.txt; None: this one
    variables: dict[str, str] = field(default_factory=dict)
    idle_page: str = ""  # if it differs from `page`
    calls: int = 500  # of `set_progress` in a loop
    messages: int = 0  # a second to the subscribers, beside the progress
    pause: float = 0.0  # seconds at most between two timed runs: the interval at which its worker polls
    migrates: bool = True
    source: Path | None = None  # a folder with its `taskapi`; None: the one of this repository

    @property
    def module(self) -> str:
        return f"benchmarks.projects.{self.project}"


OURS = Stack(
    name="ours",
    title="here",
    project="ours",
    page="task_api",
    worker=("django", "taskworker"),
    worker_ready="takes runs from",
    configured="`manage.py taskworker` with its defaults (one process, ten threads); no channel layer configured, so "
    "that events take the default one; a page has one WebSocket. The subscribers get 10 messages a second beside the "
    "progress; what is delivered counts the messages, since progress is coalesced.",
    packages=("Django", *CHANNELS, "arq", "redis", "djangorestframework"),
    measures=("memory", "answer", "run", "busy", "burst", "call", "followers", "start", "rest", "poll", "crowd"),
    calls=200_000,
    messages=10,
)

AFTERNOON = (
    "A consumer that adds a row, joins the job's group and calls `enqueue_job`; an arq worker that saves the row's "
    "status and `group_send`s, with tasks as plain functions in a thread (`sync_to_async`)"
)

PEERS = (
    Stack(
        name="task-api-1",
        title="1.x + Celery",
        project="task_api_1",
        page="task_api_1",
        worker=("celery", "-A", "benchmarks.projects.task_api_1", "worker", "--loglevel=INFO"),
        worker_ready=r" ready\.",
        configured="`celery worker` with its defaults (prefork, a process for each core), Redis as broker. The page "
        "polls as 1.x's script does, but every 50 ms instead of every second, and every 5 s if a run has not ended "
        "within a second: polls of runs that never end would slow the others down. Nothing is pushed, so there are "
        "no subscribers to measure.",
        packages=("django-task-api", *CELERY, "djangorestframework", "daphne"),
        measures=("run", "rest", "poll", "call", "start", "busy", "burst"),  # last: it leaves runs that never end
        environment="task-api-1",
    ),
    Stack(
        name="celery-progress",
        title="celery-progress, WebSocket",
        project="celery_progress",
        page="celery_progress",
        idle_page="idle_celery_progress",
        worker=("celery", "-A", "benchmarks.projects.celery_progress", "worker", "--loglevel=INFO"),
        worker_ready=r" ready\.",
        configured="`celery worker` with its defaults (prefork, a process for each core), Redis as broker and for "
        "results; the core channel layer, the only one that it works with. The page starts a task by a view and then "
        "opens a WebSocket for it, which asks whether it is complete, as the package's script does. No database.",
        packages=("celery-progress", *CELERY, *CHANNELS),
        environment="celery-progress",
        migrates=False,
    ),
    Stack(
        name="afternoon",
        title="Channels + arq in an afternoon",
        project="afternoon",
        page="afternoon",
        worker=("arq", "benchmarks.projects.afternoon.worker.WorkerSettings"),
        worker_ready="Starting worker",
        configured=f"{AFTERNOON}. arq's defaults (it polls every 0.5 s); the core channel layer.",
        packages=("Django", *CHANNELS, "arq", "redis"),
        environment="channels-arq",
        pause=0.5,
    ),
    Stack(
        name="afternoon-tuned",
        title="the same, polling every 10 ms, pubsub",
        project="afternoon",
        page="afternoon",
        worker=("arq", "benchmarks.projects.afternoon.worker.WorkerSettings"),
        worker_ready="Starting worker",
        configured="The same with `poll_delay = 0.01` and the pubsub channel layer.",
        packages=("Django", *CHANNELS, "arq", "redis"),
        environment="channels-arq",
        variables={
            "BENCH_POLL_DELAY": "0.01",
            "BENCH_LAYER": "channels_redis.pubsub.RedisPubSubChannelLayer",
        },
        pause=0.01,
    ),
    Stack(
        name="floors",
        title="bare floor",
        project="floors",
        page="echo",
        worker=("arq", "benchmarks.projects.floors.worker.WorkerSettings"),
        worker_ready="Starting worker",
        configured="Not a stack, but the limit of every stack on these parts: a frame echoed by a JSON consumer behind "
        "daphne (run, frame, memory); arq alone with jobs that do nothing, polling every 10 ms, no database (2,000); a "
        "process that blocks on a list in Valkey (enqueue to start); a Python method that stores a number (progress).",
        packages=("Django", *CHANNELS, "arq", "redis"),
        measures=("memory", "answer", "run", "burst", "call", "start"),
        environment="channels-arq",
        variables={"BENCH_POLL_DELAY": "0.01"},
        calls=1_000_000,
        migrates=False,
    ),
)

STACKS = (OURS, *PEERS)
