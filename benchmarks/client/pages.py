"""How a page of each stack runs a task and follows a run, in the way of the stack's documentation."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.client.http import Http
from benchmarks.client.websocket import WebSocket

Sink = Callable[[bytes], None]


class Failed(Exception):
    """A run did not succeed."""


class Event(NamedTuple):
    """The meaning of one text from the server, the same for all stacks."""

    kind: str  # "progress", "message", "end", or "other"
    value: Any = None


class Page:
    """One open page."""

    patience = 3.0  # seconds for one run; after them another page takes its place

    def __init__(self, port: int) -> None:
        self.port = port

    async def open(self) -> None:
        """Open the connections that the page has while nothing runs."""

    async def run(self, task: str, **inputs: Any) -> Any:
        """Run the task and return its result, once the page knows it."""
        raise NotImplementedError

    async def start(self, task: str, **inputs: Any) -> str:
        """Start the task, and return the name of the run as soon as the page knows it."""
        raise NotImplementedError

    async def follow(self, name: str, sink: Sink) -> None:
        """Follow a run of another page; `sink` gets the texts, for `read`."""
        raise NotImplementedError

    @staticmethod
    def read(text: bytes) -> Event:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


def _settle(future: asyncio.Future[Any], result: Callable[[], Any]) -> None:
    """Set the future to what `result` returns, or to the error that it raises."""
    try:
        future.set_result(result())
    except Failed as error:
        future.set_exception(error)


class SocketPage(Page):
    """A page with one WebSocket for everything; any number of runs at once."""

    path: str

    async def open(self) -> None:
        self.socket = await WebSocket.connect(self.port, self.path, self._take)
        self.refs = map(str, itertools.count())
        self.accepted: dict[str, asyncio.Future[str]] = {}  # by ref
        self.ended: dict[str, asyncio.Future[Any]] = {}  # by the run's name

    async def run(self, task: str, **inputs: Any) -> Any:
        name = await self.start(task, **inputs)
        try:
            return await self.ended[name]
        finally:
            del self.ended[name]

    async def start(self, task: str, **inputs: Any) -> str:
        ref = next(self.refs)
        answer = self.accepted[ref] = asyncio.get_running_loop().create_future()
        self.socket.send(json.dumps({"type": "run", "ref": ref, "task": task, "inputs": inputs}))
        return await answer

    async def follow(self, name: str, sink: Sink) -> None:
        self.socket.on_text = sink
        self.socket.send(self.subscription(name))

    def close(self) -> None:
        self.socket.close()

    def _take(self, text: bytes) -> None:
        frame = json.loads(text)
        if frame["type"] == "accepted":
            name = self.name(frame)
            self.ended[name] = asyncio.get_running_loop().create_future()
            self.accepted.pop(frame["ref"]).set_result(name)
        elif frame["type"] == "finished" and (ended := self.ended.get(self.name(frame))) and not ended.done():
            _settle(ended, lambda: self.result(frame))
        elif frame["type"] == "error":
            self.accepted.pop(frame["ref"]).set_exception(ConnectionError(f"The run was refused: {frame}"))

    # What differs between stacks

    @staticmethod
    def subscription(name: str) -> str:
        raise NotImplementedError

    @staticmethod
    def name(frame: dict[str, Any]) -> str:
        raise NotImplementedError

    @staticmethod
    def result(frame: dict[str, Any]) -> Any:
        raise NotImplementedError


class TaskApi(SocketPage):
    path = "/tasks/ws/"
    patience = 30.0  # of ours nothing may be lost: a late result is only slow, and that is a figure

    @staticmethod
    def subscription(name: str) -> str:
        return json.dumps({"type": "subscribe", "uuid": name})

    @staticmethod
    def name(frame: dict[str, Any]) -> str:
        return frame["task"]["uuid"] if frame["type"] == "accepted" else frame["uuid"]

    @staticmethod
    def result(frame: dict[str, Any]) -> Any:
        if frame["status"] != "succeeded":
            raise Failed(f"A run failed: {frame}")
        outputs = frame["task"]["outputs"]
        return next(iter(outputs.values()), None)  # tasks here have at most one output

    @staticmethod
    def read(text: bytes) -> Event:
        frame = json.loads(text)
        match frame["type"]:
            case "finished":
                return Event("end", TaskApi.result(frame))
            case "progress" | "message" as kind:
                return Event(kind, frame[kind])
            case _:
                return Event("other")

    @staticmethod
    def messages(text: bytes) -> list[Any]:
        """The messages in the text: that of an event, or those of a first frame."""
        frame = json.loads(text)
        match frame["type"]:
            case "message":
                return [frame["message"]]
            case "snapshot":
                return list(frame["task"]["messages"])
            case _:
                return []

    async def answer(self) -> None:
        """Send a frame that asks for nothing, and wait for its answer."""
        answered = asyncio.get_running_loop().create_future()
        self.socket.on_text = answered.set_result
        self.socket.send('{"type": "ping"}')
        await answered


class Afternoon(SocketPage):
    path = "/ws/"

    @staticmethod
    def subscription(name: str) -> str:
        return json.dumps({"type": "follow", "job": name})

    @staticmethod
    def name(frame: dict[str, Any]) -> str:
        return frame["job"]

    @staticmethod
    def result(frame: dict[str, Any]) -> Any:
        return frame["result"]

    @staticmethod
    def read(text: bytes) -> Event:
        frame = json.loads(text)
        match frame["type"]:
            case "finished":
                return Event("end", frame["result"])
            case "progress":
                return Event("progress", frame["progress"])
            case _:
                return Event("other")


class CeleryProgress(Page):
    """Starts a task by a view, then opens a WebSocket that belongs to it, as celery-progress's script does."""

    async def open(self) -> None:
        self.http = Http(self.port)
        self.sockets: list[WebSocket] = []

    async def run(self, task: str, **inputs: Any) -> Any:
        name = await self.start(task, **inputs)
        ended = asyncio.get_running_loop().create_future()

        def take(text: bytes) -> None:
            if b'"complete": true' in text and not ended.done():
                _settle(ended, lambda: self.read(text).value)

        await self.follow(name, take)
        result = await ended
        self.sockets.pop().close()
        return result

    async def start(self, task: str, **inputs: Any) -> str:
        return (await self.http.ask("POST", f"/start/{task}/", inputs))["task_id"]

    async def follow(self, name: str, sink: Sink) -> None:
        socket = await WebSocket.connect(self.port, f"/ws/progress/{name}/", sink)
        self.sockets.append(socket)
        socket.send('{"type": "check_task_completion"}')

    @staticmethod
    def read(text: bytes) -> Event:
        frame = json.loads(text)
        if frame["complete"]:
            if not frame["success"]:
                raise Failed(f"A task failed: {frame}")
            return Event("end", frame["result"])
        return Event("progress", frame["progress"]["current"]) if frame["state"] == "PROGRESS" else Event("other")

    def close(self) -> None:
        self.http.close()
        for socket in self.sockets:
            socket.close()


class IdleCeleryProgress(CeleryProgress):
    """A page that shows a task in which nothing happens."""

    async def open(self) -> None:
        await super().open()
        await self.follow(f"idle-{id(self)}", lambda text: None)


class TaskApi1(Page):
    """Starts a run by REST and polls it as 1.x's script does: at once, and then every 50 ms."""

    INTERVAL = 0.05  # seconds; the script's own default is 1
    SLOW = 5.0  # seconds, after a run took too long: polls of runs that never end must not slow the others down
    patience = 1.0

    async def open(self) -> None:
        self.http = Http(self.port)

    async def run(self, task: str, **inputs: Any) -> Any:
        name = await self.start(task, **inputs)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while True:
            run = await self.ask_for(name)
            if run["status"] in ("succeeded", "failed"):
                return self.result(run)
            await asyncio.sleep(self.INTERVAL if loop.time() - begun < self.patience else self.SLOW)

    async def start(self, task: str, **inputs: Any) -> str:
        return (await self.http.ask("POST", "/tasks/", {"task": task, "inputs": inputs}))["uuid"]

    async def ask_for(self, name: str, known: str | None = None) -> Any:
        """The run; None if it is as in the answer that had the entity tag `known`."""
        return await self.http.ask("GET", f"/tasks/{name}/", **({} if known is None else {"if_none_match": known}))

    @staticmethod
    def result(run: dict[str, Any]) -> Any:
        if run["status"] != "succeeded":
            raise Failed(f"A run failed: {run}")
        return next(iter(run["outputs"].values()), None)

    def close(self) -> None:
        self.http.close()


class Echo(Page):
    """A WebSocket that echoes everything."""

    async def open(self) -> None:
        self.socket = await WebSocket.connect(self.port, "/ws/", self._take)

    async def run(self, task: str, **inputs: Any) -> Any:
        """Runs no task: the result of `sum` is sent and echoed."""
        self.answered = asyncio.get_running_loop().create_future()
        self.socket.send(json.dumps({"result": sum(inputs["numbers"])}))
        return (await self.answered)["result"]

    def _take(self, text: bytes) -> None:
        self.answered.set_result(json.loads(text))

    async def answer(self) -> None:
        await self.run("sum", numbers=[])

    def close(self) -> None:
        self.socket.close()
