"""Checks of the lines that the executions of a run left: how often it was executed, and the reason for each time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.faults.promises import FINAL

MAX_ATTEMPTS = 4  # of the storm's tasks
MESSAGE_EVERY = 3  # steps: those with a message
# A worker may be frozen after it took a run up and before it executes it: it does so when it wakes up.
SLACK = 1.0  # seconds that it then takes
STARTING = 10.0  # seconds that it then takes if it has to start a process for the run


@dataclass
class Strike:
    """A fault: which process it struck, if any, and when."""

    fault: str
    pid: int | None
    since: float
    until: float = float("inf")
    run: str | None = None  # the only run that it strikes


class Takeover(NamedTuple):
    """An attempt that began because the worker of the attempt before was killed."""

    seconds: float  # since the kill
    clean: bool  # no other fault could have delayed it


def check_run(run: dict[str, Any], inputs: dict[str, Any], lines: list[dict[str, Any]], strikes: list[Strike]) -> None:
    """Check that the run ended, that its row is right, and that no execution was one too many."""
    steps = inputs["steps"]
    assert run["status"] in FINAL, f"stuck as {run['status']}"
    check_attempts(run, lines, strikes)
    check_said(run, inputs, {line["attempt"] for line in lines if line["what"] == "began"})
    if run["status"] == "failed":
        assert run["attempt"] >= MAX_ATTEMPTS
        assert run["error"]["code"] in ("worker_lost", "exception")
    elif run["status"] == "cancelled":
        assert run["cancel_requested"]
    else:
        outputs = dict(run["outputs"])
        whole = outputs.pop("blob", "") == "x" * inputs.get("blob", 0)
        assert whole, "not all of the large output"  # a comparison in the assert would print millions of letters
        assert outputs == {"attempt": run["attempt"], "steps": steps}
        assert [line["attempt"] for line in lines if line["what"] == "ended"].count(run["attempt"]) == 1


def check_attempts(run: dict[str, Any], lines: list[dict[str, Any]], strikes: list[Strike]) -> None:
    """Each attempt was executed once at most, and each but the first has a reason."""
    executions = [line for line in lines if line["what"] == "began"]
    began = {line["attempt"]: line for line in executions}
    assert len(began) == len(executions), f"an attempt was executed twice: {executions}"
    assert all(1 <= attempt <= run["attempt"] for attempt in began), f"{run['attempt']}: {executions}"
    handed_back = sum(_handed_back(began.get(attempt), strikes) for attempt in range(1, run["attempt"] + 1))
    assert run["attempt"] <= MAX_ATTEMPTS + handed_back, f"{run['attempt']}: {executions}"
    raised = {line["attempt"] for line in lines if line["what"] == "raised"}
    for attempt in range(2, run["attempt"] + 1):
        until = began[attempt]["at"] if attempt in began else float("inf")
        if attempt - 1 not in raised:
            assert _struck(began.get(attempt - 1), until, strikes), f"attempt {attempt} has no reason: {lines}"


def _handed_back(execution: dict[str, Any] | None, strikes: list[Strike]) -> bool:
    """Whether its worker may have handed it back: such an attempt does not count."""
    stopped = [strike.pid for strike in strikes if strike.fault == "stop_worker"]
    return bool(stopped) if execution is None else execution["worker"] in stopped


def _struck(execution: dict[str, Any] | None, until: float, strikes: list[Strike]) -> bool:
    """Whether its worker was struck meanwhile; any worker, if the attempt never reached its task."""
    if execution is None:
        return any(strike.fault.endswith("_worker") and strike.since <= until for strike in strikes)
    slack = STARTING if execution["isolated"] else SLACK
    return any(
        strike.pid == execution["worker"] and strike.since <= until and strike.until + slack >= execution["at"]
        for strike in strikes
    )


def check_said(run: dict[str, Any], inputs: dict[str, Any], executed: set[int]) -> None:
    """The row has everything that a finished attempt said, and the beginning of what a lost one said."""
    steps, filler = inputs["steps"], ["x" * inputs["filler"]] if "filler" in inputs else []
    said: dict[int, list[int]] = {}
    for attempt, step, *more in run["messages"]:
        said.setdefault(attempt, []).append(step)
        whole = more == filler
        assert whole, "not all of a large message"
    assert run["messages"] == sorted(run["messages"])
    assert set(said) <= executed
    everything = list(range(0, steps, MESSAGE_EVERY))
    for told in said.values():
        assert told == everything[: len(told)]
    if run["status"] == "succeeded":
        assert said[run["attempt"]] == everything
        assert (run["progress"], run["target"]) == (steps, steps)


def takeovers(lines: list[dict[str, Any]], strikes: list[Strike]) -> Iterator[Takeover]:
    """The attempts that began because a worker was killed, with the time since then."""
    raised = {line["attempt"] for line in lines if line["what"] == "raised"}
    for lost, next_one in _successions(lines):
        for kill in strikes:
            if (kill.fault, kill.pid) != ("kill_worker", lost["worker"]) or lost["attempt"] in raised:
                continue
            if kill.since <= next_one["at"]:  # later, the run had been taken up already
                delays = (strike for strike in strikes if strike is not kill and _delays(strike, kill, next_one["at"]))
                yield Takeover(next_one["taken"] - kill.since, not any(delays))


def zombies(lines: list[dict[str, Any]], strikes: list[Strike]) -> int:
    """How many attempts were frozen, and woke up after the run had been taken up elsewhere."""
    return sum(
        lost["worker"] == strike.pid and lost["at"] <= strike.since <= next_one["at"] <= strike.until
        for lost, next_one in _successions(lines)
        for strike in strikes
        if strike.fault == "freeze_worker"
    )


def _successions(lines: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The first line of each attempt, with that of the next attempt."""
    began = {line["attempt"]: line for line in lines if line["what"] == "began"}
    for attempt, line in began.items():
        if attempt + 1 in began:
            yield line, began[attempt + 1]


def _delays(strike: Strike, kill: Strike, taken_up: float) -> bool:
    """Whether it may delay the takeover of a killed worker's runs: an outage, or another loss after the kill."""
    if strike.fault in ("restart_postgres", "restart_valkey", "hold_row"):
        return strike.since <= taken_up and strike.until >= kill.since
    return strike.fault not in ("cut_sockets", "kill_web", "stranger") and kill.since <= strike.since <= taken_up
