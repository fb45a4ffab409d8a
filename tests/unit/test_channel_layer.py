"""Publishing to followers and workers over a channel layer that may hang."""

import asyncio
from types import SimpleNamespace
from uuid import uuid4

import pytest

from taskapi import events
from taskapi.backends.redis import Breaker
from taskapi.events import channel_layer, get_events
from taskapi.protocol import Report

pytestmark = pytest.mark.usefixtures("memory_layer")

SAYING = {
    "followers": lambda: events.publish_from_thread(uuid4(), Report(1, 0, 0, False, [])),
    "workers": lambda: events.tell_workers(uuid4(), 1),
}


@pytest.fixture
def hanging(monkeypatch):
    """The layer takes messages and never answers; the fixture is the list of groups that were sent to."""
    taken = []

    async def hang(group, message):
        taken.append(group)
        await asyncio.Event().wait()

    monkeypatch.setattr(channel_layer, "THREAD_TIMEOUT", 0.05)
    monkeypatch.setattr(get_events(), "_breaker", Breaker())
    monkeypatch.setattr(channel_layer.get_layer(), "group_send", hang)
    return taken


@pytest.mark.parametrize("whom", SAYING)
def test_threads_do_not_wait_one_after_the_other_for_a_layer_that_hangs(hanging, caplog, whom):
    for _ in range(20):
        SAYING[whom]()
    assert len(hanging) == 1
    assert len(caplog.records) == 20, "each call logs what was not sent"


def test_a_layer_that_hung_is_tried_again_in_a_while(hanging, monkeypatch):
    SAYING["workers"]()
    moment = get_events()._breaker._refusing_until
    monkeypatch.setattr("taskapi.backends.redis.breaker.time", SimpleNamespace(monotonic=lambda: moment))
    SAYING["followers"]()
    assert len(hanging) == 2


async def test_a_run_publishes_what_it_says_whatever_threads_have_found(hanging, monkeypatch):
    await asyncio.to_thread(SAYING["workers"])
    monkeypatch.setattr(channel_layer, "PUBLISH_TIMEOUT", 0.05)
    for _ in range(2):
        assert not await events.publish(uuid4(), Report(1, 0, 0, False, []))
    assert len(hanging) == 3
