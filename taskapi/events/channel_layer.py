"""Events over the channel layer of the project, or over one of our own.

A layer delivers at most once. taskapi.events.hub says how a follower gets what a layer has lost.
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
from taskapi.events import pubsub
from taskapi.events.port import Events, Feed
from taskapi.protocol import Event, Report
from taskapi.protocol.states import Execution

logger = logging.getLogger(__name__)

GROUP_INFIX = ".run."  # after the prefix of the installation; then the run's uuid in hex: within 100 characters
WORKERS_SUFFIX = ".workers"  # after the prefix: the group of all workers
CANCEL_TYPE = "taskapi.cancel"
MESSAGE_TYPE = "taskapi.report"
PUBLISH_TIMEOUT = 5.0  # seconds: a run does not wait longer for its followers
REJOINS = 4  # times that a channel joins its groups within the time for which the layer keeps it in them


def get_layer() -> Any:
    """The layer named `taskapi` in CHANNEL_LAYERS, else `default`, else one of our own at TASK_API_REDIS_URL."""
    alias = settings.channel_layer_alias()
    return pubsub.own_layer(settings.redis_url) if alias is None else get_channel_layer(alias)


def group(uuid: UUID) -> str:
    """The name of the group of the run's followers."""
    return settings.redis_prefix + GROUP_INFIX + uuid.hex


def workers() -> str:
    """The name of the group of all workers."""
    return settings.redis_prefix + WORKERS_SUFFIX


def message_of(uuid: UUID, report: Report) -> dict[str, Any]:
    """The report as a message of the layer."""
    report = report.within(settings.sent_frame_bytes)
    return {
        "type": MESSAGE_TYPE,
        "uuid": uuid.hex,
        "report": [*report[:4], [list(event) for event in report.events]],
    }


def read(message: dict[str, Any]) -> tuple[UUID, Report]:
    """The run and the report that a message of the layer holds."""
    seq, since, known, finished, events = message["report"]
    return UUID(message["uuid"]), Report(seq, since, known, finished, [Event(*event) for event in events])


class ChannelLayerEvents(Events):
    """Each run has a group in the layer, and all workers share one."""

    def __init__(self) -> None:
        self._breaker = Breaker()

    async def publish(self, uuid: UUID, report: Report) -> bool:
        try:
            await _send(group(uuid), message_of(uuid, report), PUBLISH_TIMEOUT)
        except Exception as error:  # noqa: BLE001 - each layer has errors of its own, and none of them may end a run
            _say_not_published(uuid, error)
            return False
        return True

    def publish_from_thread(self, uuid: UUID, report: Report) -> None:
        """As `publish`, and seldom: outside a server it opens a connection."""
        try:
            self._send_from_thread(group(uuid), message_of(uuid, report))
        except Exception as error:  # noqa: BLE001 - each layer has errors of its own
            _say_not_published(uuid, error)

    async def connect(self) -> ChannelLayerFeed:
        layer = get_layer()
        try:
            return ChannelLayerFeed(layer, await layer.new_channel())
        except Exception as error:
            await _reconnect(layer, error)
            raise

    def tell_workers(self, uuid: UUID, attempt: int) -> None:
        try:
            self._send_from_thread(workers(), {"type": CANCEL_TYPE, "uuid": uuid.hex, "attempt": attempt})
        except Exception as error:  # noqa: BLE001 - each layer has errors of its own
            logger.warning(
                "The workers could not be told to stop run %s; its worker reads it from the row soon: %r", uuid, error
            )

    async def cancellations(self) -> AsyncIterator[Execution]:
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
                        logger.warning(
                            "A message of the channel layer is not a request of this version; it is ignored: %.200r",
                            message,
                        )
                    else:
                        yield execution
            finally:
                rejoining.cancel()
        except Exception as error:
            await _reconnect(layer, error)
            raise

    def _send_from_thread(self, to: str, message: dict[str, Any]) -> None:
        with self._breaker.guard():
            async_to_sync(_send)(to, message, THREAD_TIMEOUT)


class ChannelLayerFeed(Feed):
    """One channel of the layer, which joins the group of each run that is followed."""

    def __init__(self, layer: Any, channel: str) -> None:
        self.layer = layer
        self.channel = channel

    @property
    def refresh_after(self) -> float:
        return _rejoin_after(self.layer)

    async def follow(self, uuid: UUID) -> None:
        await self.layer.group_add(group(uuid), self.channel)

    async def unfollow(self, uuid: UUID) -> None:
        await self.layer.group_discard(group(uuid), self.channel)

    async def receive(self) -> tuple[UUID, Report]:
        while True:
            try:
                message = await self.layer.receive(self.channel)
            except Exception as error:
                await _reconnect(self.layer, error)
                raise
            try:
                return read(message)
            except (LookupError, TypeError, ValueError):
                logger.warning(
                    "A message of the channel layer is not a report of this version; it is ignored: %.200r", message
                )


def _rejoin_after(layer: Any) -> float:
    """Seconds after which a channel has to join its groups again: a core layer forgets it after its `group_expiry`."""
    expiry: float | None = getattr(layer, "group_expiry", None)
    return inf if expiry is None else expiry / REJOINS


async def _stay_in(group: str, channel: str) -> None:
    """Join the group again and again, before the layer forgets that the channel is in it."""
    while (pause := _rejoin_after(get_layer())) < inf:
        await asyncio.sleep(pause)
        try:
            await get_layer().group_add(group, channel)
        except Exception as error:  # noqa: BLE001 - each layer has errors of its own; the next time is in time, too
            logger.warning("The channel layer is away; its group is joined again in %g s: %r", pause, error)


async def _send(to: str, message: dict[str, Any], seconds: float) -> None:
    layer = get_layer()
    try:
        async with asyncio.timeout(seconds):
            await layer.group_send(to, message)
    except Exception as error:
        await _reconnect(layer, error)
        raise


async def _reconnect(layer: Any, error: BaseException) -> None:
    """Do what is needed after an error of the layer, so that the next try finds its server again."""
    if is_demoted(error):
        with suppress(Exception):  # each layer has errors of its own; the next try says what is wrong
            await pubsub.reconnect(layer)


def _say_not_published(uuid: UUID, error: Exception) -> None:
    logger.warning("An event of run %s could not be published; followers read the row soon: %r", uuid, error)
