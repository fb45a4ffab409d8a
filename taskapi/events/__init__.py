"""The channel layer: where reports of runs are published, for whoever follows them.

A layer delivers at most once, and an event is only a hint: see taskapi.events.subscriptions for what a follower
does about the ones that are lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from math import inf
from typing import Any
from uuid import UUID

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer

from taskapi.backends.redis import THREAD_TIMEOUT, Breaker, is_demoted
from taskapi.conf import settings
from taskapi.events import pubsub as layers
from taskapi.events.pubsub import own_layer
from taskapi.protocol import Event, Report
from taskapi.protocol.states import Execution

logger = logging.getLogger(__name__)

GROUP_INFIX = ".run."  # after the prefix of the installation; then the run's uuid in hex: within 100 characters
WORKERS_SUFFIX = ".workers"  # after the prefix: the group of all workers
CANCEL_TYPE = "taskapi.cancel"
MESSAGE_TYPE = "taskapi.report"
PUBLISH_TIMEOUT = 5.0  # seconds: a run does not wait longer for those who follow it
REJOINS = 4  # times that a channel joins its groups within the time for which the layer keeps it in them

_breaker = Breaker()


def get_layer() -> Any:
    """The layer named `taskapi` in CHANNEL_LAYERS, else `default`, else one of our own at TASK_API_REDIS_URL."""
    alias = settings.channel_layer_alias()
    return own_layer(settings.redis_url) if alias is None else get_channel_layer(alias)


def group(uuid: UUID) -> str:
    """The name of the group of those who follow the run."""
    return settings.redis_prefix + GROUP_INFIX + uuid.hex


def workers() -> str:
    """The name of the group of all workers."""
    return settings.redis_prefix + WORKERS_SUFFIX


def rejoin_after() -> float:
    """Seconds after which a channel has to join its groups again: a core layer forgets it after its `group_expiry`."""
    expiry: float | None = getattr(get_layer(), "group_expiry", None)
    return inf if expiry is None else expiry / REJOINS


async def reconnect(error: BaseException) -> None:
    """Do what is needed after an error of the layer, so that the next try finds its server again."""
    if is_demoted(error):
        with suppress(Exception):  # each layer has errors of its own; the next try says what is wrong
            await layers.reconnect(get_layer())


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


def tell_workers(uuid: UUID, attempt: int) -> None:
    """Tell the workers, from a thread, that somebody asked this attempt to stop. It may be lost; the row says it."""
    try:
        _send_from_thread(workers(), {"type": CANCEL_TYPE, "uuid": uuid.hex, "attempt": attempt})
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
    try:
        async with asyncio.timeout(seconds):
            await get_layer().group_send(to, message)
    except Exception as error:
        await reconnect(error)
        raise


async def cancellations() -> AsyncIterator[Execution]:
    """The attempts that somebody asks to stop, as it happens; raises whatever the layer raises when it is away."""
    layer = get_layer()
    try:
        channel = await layer.new_channel()
        await layer.group_add(workers(), channel)
        rejoining = asyncio.get_running_loop().create_task(_stay_in(workers(), channel))
        try:
            while True:
                message = await layer.receive(channel)
                try:
                    execution = UUID(message["uuid"]), int(message["attempt"])
                except (LookupError, TypeError, ValueError):  # of another version; the row says it, too
                    logger.warning("A message of the channel layer is not a request of this version: %.200r", message)
                else:
                    yield execution
        finally:
            rejoining.cancel()
    except Exception as error:
        await reconnect(error)
        raise


async def _stay_in(group: str, channel: str) -> None:
    """Join the group again and again, before the layer forgets that the channel is in it."""
    while (pause := rejoin_after()) < inf:
        await asyncio.sleep(pause)
        try:
            await get_layer().group_add(group, channel)
        except Exception as error:  # noqa: BLE001 - each layer has errors of its own; the next time is in time, too
            logger.warning("The channel layer is not there: %r", error)


def read(message: dict[str, Any]) -> tuple[UUID, Report]:
    """The run and the report that a message of the layer holds."""
    seq, since, known, finished, events = message["report"]
    return UUID(message["uuid"]), Report(seq, since, known, finished, [Event(*event) for event in events])
