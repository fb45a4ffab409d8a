"""What the lines that a run's executions left must say: how often it was executed, and that each time had a reason."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.faults.promises import FINAL

MAX_ATTEMPTS = 4  # of what the storm runs
MESSAGE_EVERY = 3  # steps
SLACK = 1.0  # seconds: who was stopped between taking a run up and executing it does so when it goes on
STARTING = 10.0  # seconds: the same, of one whose process is still to be started then


@dataclass
class Strike:
    """A fault: at which process, where it was one, and how long it went on."""

    fault: str
    pid: int | None
    since: float
    until: float = float("inf")
    run: str | None = None  # the only one that it strikes


class Takeover(NamedTuple):
    """An attempt that began because the worker of the one before it was killed."""

    seconds: float  # since the kill
    clean: bool  # nothing else was struck meanwhile that has to do with it


def check_run(run: dict[str, Any], inputs: dict[str, Any], lines: list[dict[str, Any]], strikes: list[Strike]) -> None:
    """Check that it has ended as it had to, and was executed as often as it may be: once where nothing struck."""
    steps = inputs["steps"]
    assert run["status"] in FINAL, "stuck"
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
        assert whole, "not all of the large output"  # not compared by assert, which would explain millions of letters
        assert outputs == {"attempt": run["attempt"], "steps": steps}
        assert [line["attempt"] for line in lines if line["what"] == "ended"].count(run["attempt"]) == 1


def check_attempts(run: dict[str, Any], lines: list[dict[str, Any]], strikes: list[Strike]) -> None:
    """Each attempt was executed once at most, and each but the first has what it was for."""
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
    """Whether it may have ended because its worker was told to: such an attempt does not count."""
    stopped = [strike.pid for strike in strikes if strike.fault == "stop_worker"]
    return bool(stopped) if execution is None else execution["worker"] in stopped


def _struck(execution: dict[str, Any] | None, until: float, strikes: list[Strike]) -> bool:
    """Whether its process was struck meanwhile; any worker's, of an attempt that did not come as far as its task."""
    if execution is None:
        return any(strike.fault.endswith("_worker") and strike.since <= until for strike in strikes)
    slack = STARTING if execution["isolated"] else SLACK
    return any(
        strike.pid == execution["worker"] and strike.since <= until and strike.until + slack >= execution["at"]
        for strike in strikes
    )


def check_said(run: dict[str, Any], inputs: dict[str, Any], executed: set[int]) -> None:
    """The row has what the task said: all of it where that came to its end, and the beginning of it elsewhere."""
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
    """The attempts that began because a worker was killed, and how long after it."""
    raised = {line["attempt"] for line in lines if line["what"] == "raised"}
    for lost, next_one in _successions(lines):
        for kill in strikes:
            if (kill.fault, kill.pid) != ("kill_worker", lost["worker"]) or lost["attempt"] in raised:
                continue
            if kill.since <= next_one["at"]:  # and not later, when the run had been taken up already
                delays = (strike for strike in strikes if strike is not kill and _delays(strike, kill, next_one["at"]))
                yield Takeover(next_one["taken"] - kill.since, not any(delays))


def zombies(lines: list[dict[str, Any]], strikes: list[Strike]) -> int:
    """How many attempts were frozen, and woke up when the run had been taken up elsewhere."""
    return sum(
        lost["worker"] == strike.pid and lost["at"] <= strike.since <= next_one["at"] <= strike.until
        for lost, next_one in _successions(lines)
        for strike in strikes
        if strike.fault == "freeze_worker"
    )


def _successions(lines: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The beginning of each attempt, and that of the next."""
    began = {line["attempt"]: line for line in lines if line["what"] == "began"}
    for attempt, line in began.items():
        if attempt + 1 in began:
            yield line, began[attempt + 1]


def _delays(strike: Strike, kill: Strike, taken_up: float) -> bool:
    """Whether it may keep the runs of a killed worker from being taken up: an outage, or what is lost after it."""
    if strike.fault in ("restart_postgres", "restart_valkey", "hold_row"):
        return strike.since <= taken_up and strike.until >= kill.since
    return strike.fault not in ("cut_sockets", "kill_web", "stranger") and kill.since <= strike.since <= taken_up
