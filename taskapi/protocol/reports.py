"""What changed between two states of a run, in events; and those events on their way to the followers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast
from uuid import UUID

from taskapi.protocol.events import (
    SEQ_PROGRESS,
    SEQ_TARGET,
    Event,
    begin_seq,
    begun_event,
    finished_event,
    message_event,
    progress_event,
    status_event,
    target_event,
)
from taskapi.protocol.fitting import within
from taskapi.protocol.snapshots import Message
from taskapi.protocol.states import FINAL, Status

if TYPE_CHECKING:
    from taskapi.models import TaskInfo, TaskMessage


_RUNNING = Status.RUNNING.value


class State(NamedTuple):
    """A run at one moment, as far as events tell of it; its row (`TaskInfo`) is one as well.

    With a `seq` alone it is what a follower knows that has heard up to there, and remembers no numbers.
    """

    uuid: UUID
    seq: int
    attempt: int = 0
    target: int | None = None
    progress: int | None = None
    status: str = _RUNNING


def changes(
    before: State | TaskInfo, after: State | TaskInfo, messages: Iterable[Message | TaskMessage] = ()
) -> Iterator[Event]:
    """The events between two states of one run: what a follower that knows `before` has to be told to know `after`.

    `messages` are those that were said in between, in order. Each event has a higher `seq` than the one before it, and
    than `before`. A final `after` has to be the row, because `finished` shows all of it. Events are encoded one by one,
    as they are asked for.
    """
    uuid, attempt, told = str(after.uuid), after.attempt, before.seq
    for message in messages:
        seq = message.seq
        if seq <= told:
            continue
        if begin_seq(message.attempt) > told:
            yield begun_event(uuid, message.attempt)
        yield message_event(uuid, message.attempt, seq, message.index, message.body)
        told = seq
    seq = after.seq
    if seq <= told:
        return
    target, progress = before.target, before.progress
    if attempt and (begun := begin_seq(attempt)) > before.seq:
        target = progress = None  # an attempt begins without them
        if begun > told:
            yield begun_event(uuid, attempt)
    if after.target != target and seq + SEQ_TARGET > told:
        yield target_event(uuid, attempt, seq + SEQ_TARGET, after.target)
    if after.progress != progress and seq + SEQ_PROGRESS > told:
        yield progress_event(uuid, attempt, seq + SEQ_PROGRESS, after.progress, after.target)
    if after.status == _RUNNING:
        return
    if after.status in FINAL:
        yield finished_event(cast("TaskInfo", after))
    else:  # `pending` is the last thing that an attempt says: it has the number of `finished`
        yield status_event(uuid, attempt, seq, after.status)


class Report(NamedTuple):
    """What writes of the row said, on its way to the followers of the run.

    `seq` is that of the row after the writes, and `since` that of the row before them: a follower that has not heard up
    to `since` reads the row first. `known` is how many messages there were after the writes.
    """

    seq: int
    since: int
    known: int
    finished: bool
    events: Sequence[Event]

    @classmethod
    def between(
        cls,
        before: State | TaskInfo,
        after: State | TaskInfo,
        known: int,
        messages: Iterable[Message | TaskMessage] = (),
    ) -> Report:
        """The report of the write that made `after` out of `before`."""
        return cls(after.seq, before.seq, known, after.status in FINAL, list(changes(before, after, messages)))

    @property
    def characters(self) -> int:
        """How much text its events are."""
        return sum(len(event.text) for event in self.events)

    def within(self, limit: int) -> Report:
        """The same report, with events of at most `limit` bytes each."""
        if all(4 * len(event.text) <= limit for event in self.events):
            return self
        return self._replace(events=[event._replace(text=within(event.text, limit)) for event in self.events])

    def then(self, later: Report) -> Report:
        """Both reports in one."""
        return later._replace(since=self.since, events=[*self.events, *later.events])
