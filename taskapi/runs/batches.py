"""Many runs of a task that one call starts: all of them or none, in the order given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, Unpack

from django.db import IntegrityError

from taskapi.exceptions import IdempotencyConflict, InvalidInputs
from taskapi.models import TaskInfo
from taskapi.protocol import encode
from taskapi.runs.inputs import GivenInputs
from taskapi.runs.moves import refresh
from taskapi.runs.queueing import enqueue_all, on_commit
from taskapi.runs.starting import context_of, digest, key_of, new_run, read_again_if_inline, start_time
from taskapi.store import rows
from taskapi.tasks import StartOptions, Task

READ_TOGETHER = 500  # rows that are looked up by their keys at once: databases limit the parameters of a statement

#: What a run may have much of. Rows of an earlier call are read without it: their number is the caller's.
LARGE_FIELDS = ("inputs", "outputs", "error", "traceback")


class Batch(NamedTuple):
    """The runs, and how many of them this call made; the others are of an earlier call with the same key.

    Those of an earlier call have no LARGE_FIELDS yet.
    """

    infos: list[TaskInfo]
    created: int


def start_many(task: type[Task], many: Iterable[Any], **options: Unpack[StartOptions]) -> list[TaskInfo]:
    """Record a run for each of the inputs, and queue them once the rows are committed.

    Raises InvalidInputs (`detail`: ``{index: {name: [sentence, …]}}``) or IdempotencyConflict, which leave no row.
    """
    infos, _ = save_many(draft_many(task, many, **options))
    for info in infos:
        if info.get_deferred_fields():  # of an earlier call
            refresh(info)
    return [read_again_if_inline(info) for info in infos]


def draft_many(
    task: type[Task],
    many: Iterable[Any],
    *,
    user: Any = None,
    delay: float | timedelta | None = None,
    run_at: datetime | None = None,
    idempotency_key: str | None = None,
    build_absolute_uri: Callable[[str], str] = str,
) -> list[TaskInfo]:
    """Runs of the task that are not recorded yet, as `draft` makes one. Raises InvalidInputs with all that is wrong.

    Each run has an idempotency key of its own, made of the caller's. That of the first is the key of a single start,
    so neither is taken for the other. Each stands for the whole list of inputs.
    """
    context = context_of(user, build_absolute_uri)
    accepted: list[GivenInputs] = _each([partial(GivenInputs, task, inputs, context) for inputs in many])
    moment = start_time(delay, run_at)
    drafts = [new_run(task, context.user, moment) for _ in accepted]
    if idempotency_key is not None and drafts:
        first = key_of(drafts[0], idempotency_key)
        inputs = digest(encode([given.identity() for given in accepted]))
        for index, draft in enumerate(drafts):
            draft.idempotency = digest(first, str(index)) if index else first
            draft.idempotency_inputs = inputs
    try:
        recorded = _each([given.to_record for given in accepted])
    except InvalidInputs:
        earlier = _earlier(drafts)
        if len(earlier) < len(drafts) or _is_other(earlier, drafts):
            raise
        return _in_order(earlier, drafts)
    for draft, inputs_of_run in zip(drafts, recorded, strict=True):
        draft.inputs = inputs_of_run
    return drafts


def save_many(drafts: Sequence[TaskInfo]) -> Batch:
    """Record drafted runs in one transaction, and queue them once it is committed; or find those of their keys.

    Raises IdempotencyConflict, which leaves no row.
    """
    if all(draft.pk for draft in drafts):  # the earlier runs of their keys; or none
        return Batch(list(drafts), 0)
    found: dict[str | None, TaskInfo] = {}
    while True:
        new = [copy(draft) for draft in drafts if draft.idempotency is None or draft.idempotency not in found]
        try:
            rows.insert_all(new)
            break
        except IntegrityError:
            earlier = _earlier(drafts)
            if len(earlier) <= len(found):  # it is not the keys: the user was deleted, say
                raise
            if _is_other(earlier, drafts):
                raise IdempotencyConflict from None
            found = earlier  # not all, if some were deleted: those are started again, as a single run would be
    if new:
        on_commit(partial(enqueue_all, new))
    return Batch(_in_order(found | {info.idempotency: info for info in new}, drafts) if found else new, len(new))


def _each(functions: Iterable[Callable[[], Any]]) -> list[Any]:
    """What each returns. Raises InvalidInputs with the details of all that raise it, by their indices."""
    results, details = [], {}
    for index, function in enumerate(functions):
        try:
            results.append(function())
        except InvalidInputs as error:
            details[index] = error.detail
    if details:
        raise InvalidInputs(details)
    return results


def _earlier(drafts: Sequence[TaskInfo]) -> dict[str | None, TaskInfo]:
    """The recorded runs that have the keys of these drafts, by their keys."""
    keys = [draft.idempotency for draft in drafts if draft.idempotency is not None]
    found: dict[str | None, TaskInfo] = {}
    for first in range(0, len(keys), READ_TOGETHER):
        same = TaskInfo.rows().filter(idempotency__in=keys[first : first + READ_TOGETHER]).order_by()
        found |= {info.idempotency: info for info in same.defer(*LARGE_FIELDS)}
    return found


def _is_other(earlier: dict[str | None, TaskInfo], drafts: Sequence[TaskInfo]) -> bool:
    """Whether a key was used for other inputs: for another list, or for a single run."""
    return any(info.idempotency_inputs != drafts[0].idempotency_inputs for info in earlier.values())


def _in_order(infos: dict[str | None, TaskInfo], drafts: Sequence[TaskInfo]) -> list[TaskInfo]:
    return [infos[draft.idempotency] for draft in drafts]
