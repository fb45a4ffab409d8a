"""The channel layer: where reports of runs are published, for whoever follows them.

A layer delivers at most once, and an event is only a hint: see taskapi.subscriptions for what a follower
does about the ones that are lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer

from taskapi.conf import settings
from taskapi.layers import own_layer
from taskapi.protocol import Event, Report
from taskapi.redis import THREAD_TIMEOUT, Breaker

logger = logging.getLogger(__name__)

GROUP_PREFIX = "taskapi.run."  # then the run's uuid in hex: within the 100 characters that Channels allows
WORKERS = "taskapi.workers"  # the group of all workers
CANCEL_TYPE = "taskapi.cancel"
MESSAGE_TYPE = "taskapi.report"
PUBLISH_TIMEOUT = 5.0  # seconds: a run does not wait longer for those who follow it

_breaker = Breaker()


def get_layer() -> Any:
    """The layer named `taskapi` in CHANNEL_LAYERS, else `default`, else one of our own at TASK_API_REDIS_URL."""
    alias = settings.channel_layer_alias()
    return own_layer(settings.redis_url) if alias is None else get_channel_layer(alias)


def group(uuid: UUID) -> str:
    """The name of the group of those who follow the run."""
    return GROUP_PREFIX + uuid.hex


async def publish(uuid: UUID, report: Report) -> bool:
    """Send the report to those who follow the run. A layer that is away is a line in the log, and no error: False."""
    try:
        await _send(group(uuid), _message(uuid, report), PUBLISH_TIMEOUT)
    except Exception as error:  # noqa: BLE001 - each layer has errors of its own, and none of them may end a run
        logger.warning("An event of run %s could not be published: %r", uuid, error)
        return False
    return True


def publish_from_thread(uuid: UUID, report: Report) -> None:
    """As `publish`, for code that runs in a thread, and seldom: outside a server it opens a connection."""
    try:
        _send_from_thread(group(uuid), _message(uuid, report))
    except Exception as error:  # noqa: BLE001 - each layer has errors of its own
        logger.warning("An event of run %s could not be published: %r", uuid, error)


def tell_workers(uuid: UUID) -> None:
    """Tell the workers, from a thread, that somebody asked this run to stop. It may be lost: the row says it, too."""
    try:
        _send_from_thread(WORKERS, {"type": CANCEL_TYPE, "uuid": uuid.hex})
    except Exception as error:  # noqa: BLE001 - each layer has errors of its own
        logger.warning("The workers could not be told that run %s should stop: %r", uuid, error)


def _message(uuid: UUID, report: Report) -> dict[str, Any]:
    report = report.within(settings.sent_frame_bytes)
    return {
        "type": MESSAGE_TYPE,
        "uuid": uuid.hex,
        "report": [*report[:4], [list(event) for event in report.events]],
    }


def _send_from_thread(to: str, message: dict[str, Any]) -> None:
    with _breaker.guard():
        async_to_sync(_send)(to, message, THREAD_TIMEOUT)


async def _send(to: str, message: dict[str, Any], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        await get_layer().group_send(to, message)


async def cancellations() -> AsyncIterator[UUID]:
    """The runs that somebody asks to stop, as it happens; raises whatever the layer raises when it is away."""
    layer = get_layer()
    channel = await layer.new_channel()
    await layer.group_add(WORKERS, channel)
    while True:
        yield UUID((await layer.receive(channel))["uuid"])


def read(message: dict[str, Any]) -> tuple[UUID, Report]:
    """The run and the report that a message of the layer holds."""
    seq, since, known, finished, events = message["report"]
    return UUID(message["uuid"]), Report(seq, since, known, finished, [Event(*event) for event in events])
