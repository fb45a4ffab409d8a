"""The consumer of ``tasks/ws/``: frames in, answers and events out. docs/protocol.md is its specification."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from channels.consumer import AsyncConsumer
from django.db import IntegrityError

from taskapi import protocol, runs
from taskapi.callers.backlog import is_behind, transport_of, wait_for_reader
from taskapi.callers.caller import Caller
from taskapi.callers.rounds import get_round
from taskapi.conf import settings
from taskapi.consumers.handshake import origin_allowed
from taskapi.events.following import Following
from taskapi.exceptions import AlreadyFinished, ProtocolError
from taskapi.models import TaskInfo
from taskapi.protocol import Cancel, Frame, Ping, Run, Subscribe, Unsubscribe
from taskapi.runs.refusals import REFUSALS, as_protocol_error, sentence_of_fault
from taskapi.store.database import in_database
from taskapi.store.ledger import get_ledger

logger = logging.getLogger(__name__)

MOST_STARTING = 100  # `run` frames of a socket that are served at once
SMALL = protocol.LEAST_FRAME // 4  # characters of a frame that fits, whatever the limit is
CLOSE_LOGGED_OUT = 4401  # the caller is not the one of the handshake any more: it may connect again
CLOSE_SUBPROTOCOL = 4406  # the client names subprotocols, and none of ours


class TaskConsumer(AsyncConsumer):
    """One socket, which carries any number of runs.

    It has no channel in the channel layer. The event loop has one hub (taskapi.events.hub.Hub), which passes on the
    events of a run, as the text that their publisher encoded.
    """

    def __init__(self) -> None:
        self._following = Following(self._send_text)
        self._starting: list[asyncio.Task[None]] = []  # `run` frames that are being served
        self._latest: asyncio.Task[None] | None = None  # the last of them
        self._open = False
        self._logged_out = False  # the socket is being closed: it serves nothing and sends nothing any more

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        # This replaces the method of Channels, which makes a task of each message: here is one thing to listen to. And
        # which hops to a thread to close connections first: taskapi.store.database looks after ours.
        self.scope, self.base_send = scope, send
        self._transport = transport_of(send)
        try:
            while (message := await receive())["type"] != "websocket.disconnect":
                await self.dispatch(message)
            if self._starting:  # the runs are started, although the client is gone
                await asyncio.wait(self._starting)
        finally:  # a server may also cancel this
            for starting in self._starting:
                starting.cancel()
            if self._open:
                self._open = False
                get_round().remove(self)
            await self._following.close()

    async def dispatch(self, message: dict[str, Any]) -> None:
        if message["type"] == "websocket.connect":
            await self._connect()
        elif not self._logged_out:
            await self._receive(message.get("text"))

    # The socket

    async def _connect(self) -> None:
        scope: Any = self.scope
        if not origin_allowed(scope):
            origin = dict(scope["headers"]).get(b"origin", b"").decode("latin1")
            logger.warning("Refused a WebSocket from the origin %r: its host is not in ALLOWED_HOSTS.", origin)
            await self.send({"type": "websocket.close"})
            return
        try:
            self.caller = await in_database(Caller.of_socket, scope)
        except REFUSALS as error:
            logger.warning("Refused a WebSocket because its credentials are wrong: %s", error)
            await self.send({"type": "websocket.close"})
            return
        offered = self.scope.get("subprotocols") or []
        chosen = protocol.SUBPROTOCOL if protocol.SUBPROTOCOL in offered else None
        self._open = True
        self._following.open()
        if self.caller.may_change:
            get_round().add(self)
        await self.send({"type": "websocket.accept", "subprotocol": chosen})
        if offered and chosen is None:
            await self.send({"type": "websocket.close", "code": CLOSE_SUBPROTOCOL})

    async def _receive(self, text: str | None) -> None:
        """Serve a frame. `run` frames are served side by side; all replies keep the order of the frames."""
        try:
            frame = protocol.parse(text)
        except ProtocolError as refusal:
            await _ended(self._latest)
            await self._refuse(refusal)
            return
        if self.caller.is_due and not isinstance(frame, Ping) and not await self._is_who_it_was(frame.ref):
            return
        if not isinstance(frame, Run):
            await _ended(self._latest)
            await self._serve(frame)
            return
        if len(self._starting) >= MOST_STARTING:
            await asyncio.wait(self._starting, return_when=asyncio.FIRST_COMPLETED)
        starting = asyncio.get_running_loop().create_task(self._serve(frame, self._latest))
        self._latest = starting
        self._starting.append(starting)
        starting.add_done_callback(self._starting.remove)

    async def _is_who_it_was(self, ref: str | None) -> bool:
        """Judge the caller again. If it is somebody else by now, its socket is closed."""
        try:
            is_same = await in_database(self.caller.revalidate)
        except Exception as error:
            await _ended(self._latest)
            logger.exception("A frame was refused, because it could not be found out who its caller is now.")
            await self._refuse(ProtocolError("unavailable", sentence_of_fault(error), ref))
            self.caller.is_doubtful = True
            return False
        if not is_same:
            await self.log_out()
        return is_same

    async def log_out(self) -> None:
        """Close the socket of a caller that is somebody else by now. Runs that were started go on."""
        if self._logged_out or not self._open:
            return
        self._logged_out = True
        self._following.drop_all()
        await self.send({"type": "websocket.close", "code": CLOSE_LOGGED_OUT})

    async def _serve(self, frame: Frame, before: asyncio.Task[None] | None = None) -> None:
        """Serve the frame, and reply when `before` has ended: replies keep the order of the frames."""
        ref = frame.ref
        try:
            match frame:
                case Run():
                    await self._run(frame, before)
                case Subscribe():
                    await self._subscribe(frame)
                case Unsubscribe():
                    await self._unsubscribe(frame)
                case Cancel():
                    await self._cancel(frame)
                case Ping():
                    await self._answer("pong", frame.ref)
        except REFUSALS as error:
            await _ended(before)
            refusal = as_protocol_error(error, ref)
            await self._refuse(refusal)
        except Exception as error:
            await _ended(before)
            logger.exception("A frame could not be served; the client is told to try again.")
            await self._refuse(ProtocolError("unavailable", sentence_of_fault(error), ref))

    # Frames

    async def _run(self, frame: Run, before: asyncio.Task[None] | None) -> None:
        # Followed before the run exists, so that no event is missed.
        subscription = await self._following.expect(uuid4())
        try:
            draft = partial(self._draft, frame, subscription.uuid)
            info, created = await get_ledger().write(runs.save, prepare=draft)
            await _ended(before)
            if created:
                await self._following.start(subscription, protocol.reply("accepted", frame.ref), info)
        except IntegrityError:
            self._following.drop(subscription.uuid)
            await in_database(self.caller.refuse_if_deleted)
            raise
        except BaseException:
            self._following.drop(subscription.uuid)
            raise
        if not created:
            self._following.drop(subscription.uuid)
            await self._following.follow(info.uuid, protocol.reply("accepted", frame.ref), self._find, frame.after)

    async def _subscribe(self, frame: Subscribe) -> None:
        await self._following.follow(frame.uuid, protocol.reply("snapshot", frame.ref), self._find, frame.after)

    async def _unsubscribe(self, frame: Unsubscribe) -> None:
        await in_database(lambda: self.caller.view("GET", uuid=frame.uuid))
        self._following.drop(frame.uuid)
        await self._answer("unsubscribed", frame.ref, uuid=str(frame.uuid))

    async def _cancel(self, frame: Cancel) -> None:
        # By the ledger: if the run is locked elsewhere, waiting for it must not hold up the thread of all sockets.
        info, cancelled = await get_ledger().write(
            lambda info: (info, runs.cancel(info)),
            prepare=lambda: self.caller.view("POST", uuid=frame.uuid).find_run(frame.uuid),
        )
        if not cancelled:
            raise AlreadyFinished(info)
        await self._answer("cancelling", frame.ref, uuid=str(frame.uuid))

    def _draft(self, frame: Run, uuid: UUID) -> TaskInfo:
        view = self.caller.view("POST", {"task": frame.task, "inputs": frame.inputs})
        return view.draft_run(frame.task, frame.inputs, idempotency_key=frame.idempotency_key, uuid=uuid)

    def _find(self, uuid: UUID) -> TaskInfo:
        return self.caller.view("GET", uuid=uuid).find_run(uuid)

    # Sending

    async def _answer(self, kind: str, ref: str | None, **fields: Any) -> None:
        await self._send_text(protocol.encode(protocol.reply(kind, ref, **fields)))

    async def _refuse(self, why: ProtocolError) -> None:
        await self._send_text(protocol.encode(protocol.refusal(why)))

    async def _send_text(self, text: str) -> None:
        """Send a frame, or what is left of it if it is larger than the server can send."""
        if self._open and not self._logged_out:
            if len(text) > SMALL:
                text = protocol.within(text, settings.sent_frame_bytes)
            if self._transport is not None and is_behind(self._transport):
                await wait_for_reader(self._transport)
            await self.send({"type": "websocket.send", "text": text})


async def _ended(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        await asyncio.wait({task})
