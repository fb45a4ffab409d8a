"""The account of a storm: what went wrong, and the figures."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx

from tests.faults import rows
from tests.faults.executions import Takeover, check_run, takeovers, zombies
from tests.faults.pages import check_page, was_refused
from tests.faults.promises import FINAL, check, check_visit
from tests.faults.reader import Reader
from tests.faults.stack import TAKEN_UP

if TYPE_CHECKING:
    from tests.faults.storm import Storm

WORDS = 1000  # characters that one failure may have in the account
AFTERWARDS = 2.0  # seconds after an outage of the database in which a server may still answer an error


class Account:
    """Looks at everything that a storm has started, and counts it."""

    def __init__(self, storm: Storm) -> None:
        self.storm = storm
        self.stack = storm.stack
        self.lost: list[str] = []
        self.stuck: list[str] = []
        self.broken: list[str] = []
        self.statuses: Counter[str] = Counter()

    async def check(self) -> list[str]:
        """Everything that is wrong, one sentence each."""
        storm = self.storm
        self.broken = list(storm.broken)
        async with httpx.AsyncClient() as browser:  # of a user who may see every run
            headers = await storm.site.enter(browser, "/enter-as-staff/auditor/")
        statuses = rows.statuses(self.stack)
        self.statuses = Counter(statuses.values())
        self.lost = [uuid for uuid in storm.runs if uuid not in statuses]
        self.stuck = [uuid for uuid, status in statuses.items() if status not in FINAL]
        runs = {
            uuid: (await storm.site.ask("GET", f"/tasks/{uuid}/", headers=headers)).json()
            for uuid in storm.runs
            if uuid in statuses
        }
        self._check_clients(runs)
        for uuid, run in runs.items():
            self._note(f"run {uuid}", check_run, run, storm.runs[uuid], self.stack.lines(uuid), storm.faults.strikes)
        return [*self._wrong_runs(statuses), *self._wrong_answers(), *self._late_takeovers(), *self.broken]

    def _check_clients(self, runs: dict[str, dict[str, Any]]) -> None:
        storm = self.storm
        for task in storm.following:
            self._note("a client", task.result)
        for follower in storm.followers:
            self._note(f"a follower of {follower.uuid}", check, follower, runs.get(follower.uuid or ""))
        for poller in storm.pollers:
            self._note(f"a poller of {poller.uuid}", poller.check, runs.get(poller.uuid))
        for waiter in storm.waiters:
            self._note(f"one who waits for {waiter.uuid}", waiter.check, runs.get(waiter.uuid))
        for visitor in storm.visitors:
            self._note(f"a visitor of {visitor.uuid}", check_visit, visitor, runs.get(visitor.uuid or ""))
        for record in self._records():
            if not was_refused(record):
                self._note(f"a page of {record['uuid']}", check_page, record, runs.get(record["uuid"]))

    def _wrong_runs(self, statuses: dict[str, str]) -> list[str]:
        storm = self.storm
        known = storm.runs.keys() | storm.fleeting
        unknown = [uuid for uuid in statuses if uuid not in known]
        refused = sum(was_refused(record) for record in self._records())  # each may have started a run all the same
        wrong = [f"run {uuid} was not started by the storm" for uuid in unknown[refused:]]
        wrong += [f"run {uuid} was not deleted in its time" for uuid in storm.fleeting if uuid in statuses]
        lines = [(uuid, line) for uuid in storm.isolated for line in self.stack.executions(uuid)]
        return wrong + [
            f"run {uuid} was not executed in its own process" for uuid, line in lines if not line["isolated"]
        ]

    def _wrong_answers(self) -> list[str]:
        storm = self.storm
        wrong = [f"a page raised {error}" for error in (storm.tabs.errors if storm.tabs is not None else [])]
        wrong += [f"a follower was refused: {refusal}" for refusal in self._refusals() if refusal != "unavailable"]
        errors = ((at, answer) for at, answer in self._errors() if not self._database_was_away(at))
        return wrong + [f"{answer}: {answer.text}" for _, answer in errors]

    def _late_takeovers(self) -> list[str]:
        late = [taken for taken in self._takeovers() if taken.clean and taken.seconds > TAKEN_UP]
        return [f"a run was taken up {taken.seconds:.1f} s after its worker was killed" for taken in late]

    def _note(self, whose: str, look: Callable[..., object], *seen: Any) -> None:
        try:
            look(*seen)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - each failure goes into the account
            self.broken.append(f"{whose}: {error!r}"[:WORDS])

    def _records(self) -> list[dict[str, Any]]:
        return self.storm.tabs.records if self.storm.tabs is not None else []

    def _refusals(self) -> list[str]:
        return [refusal["code"] for follower in self.storm.followers for refusal in follower.refusals]

    def _errors(self) -> list[tuple[float, httpx.Response]]:
        waiters = self.storm.waiters
        return [*self.storm.site.errors, *(error for waiter in waiters for error in waiter.errors)]

    def _database_was_away(self, at: float) -> bool:
        outages = (strike for strike in self.storm.faults.strikes if strike.fault == "restart_postgres")
        return any(strike.since - AFTERWARDS <= at <= strike.until + AFTERWARDS for strike in outages)

    def _takeovers(self) -> list[Takeover]:
        strikes = self.storm.faults.strikes
        return [
            taken
            for uuid in self.storm.runs
            for taken in takeovers(self.stack.lines(uuid), [strike for strike in strikes if strike.run in (None, uuid)])
        ]

    def figures(self) -> dict[str, Any]:
        """What the storm went through."""
        storm = self.storm
        executions = [line for uuid in storm.runs for line in self.stack.executions(uuid)]
        taken_up = self._takeovers()
        names = {f"ws://127.0.0.1:{port}/tasks/ws/": name for name, port in self.stack.ports.items()}
        return {
            "seconds": round(storm.ended - storm.began, 1),
            "servers": len(self.stack.processes),
            "faults": Counter(strike.fault for strike in storm.faults.strikes),
            "runs": len(storm.runs),
            "runs of kinds": storm.of_kind,
            "runs deleted in their time": len(storm.fleeting - rows.statuses(self.stack).keys()),
            "statuses": self.statuses,
            "executions": len(executions),
            "executions of isolated tasks": sum(len(self.stack.executions(uuid)) for uuid in storm.isolated),
            "executions in processes of their own": sum(line["isolated"] for line in executions),  # lost runs, too
            "executions by worker": Counter(self.stack.names[line["worker"]] for line in executions),
            "taken up": len(taken_up),
            "runs of zombies": sum(zombies(self.stack.lines(uuid), storm.faults.strikes) for uuid in storm.runs),
            "longest takeover": round(max((taken.seconds for taken in taken_up if taken.clean), default=0), 1),
            "longest takeover amid other faults": round(max((taken.seconds for taken in taken_up), default=0), 1),
            "followers": len(storm.followers),
            "readers of streams": sum(isinstance(follower, Reader) for follower in storm.followers),
            "most followers at once": storm.most_followers,
            "connections": sum(follower.connections for follower in storm.followers),
            "subscriptions by server": Counter(names[url] for follower in storm.followers for url in follower.servers),
            "events": sum(len(frames) for follower in storm.followers for frames in follower.subscriptions),
            "events dropped": self.stack.drops(),
            "refusals": Counter(self._refusals()),
            "parts fetched by REST": sum(follower.fetched for follower in storm.followers),
            "logouts": Counter(visitor.ended[0] for visitor in storm.visitors if visitor.ended is not None),
            "promises of pages": len(self._records()),
            "promises of pages settled": sum(len(record["outcomes"]) == 1 for record in self._records()),
            "starts of pages refused": sum(was_refused(record) for record in self._records()),
            "answers of strangers": storm.road.answers if storm.road is not None else 0,
            "pollers": len(storm.pollers),
            "polls": sum(len(poller.answers) for poller in storm.pollers),
            "waiters": len(storm.waiters),
            "waits": sum(len(waiter.states) for waiter in storm.waiters),
            "server errors": len(self._errors()),
            "lost": len(self.lost),
            "stuck": len(self.stuck),
            "broken": len(self.broken),
        }
