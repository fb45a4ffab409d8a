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
from taskapi.conf import settings
from taskapi.consumers.backlog import transport_of, wait_for_reader
from taskapi.consumers.callers import Caller
from taskapi.consumers.handshake import origin_allowed
from taskapi.consumers.rounds import get_round
from taskapi.events.subscriptions import SHOWN, Subscription, get_hub, read_messages
from taskapi.exceptions import AlreadyFinished, ProtocolError
from taskapi.models import TaskInfo
from taskapi.protocol import Cancel, Frame, Message, Ping, Run, Subscribe, Unsubscribe
from taskapi.runs.refusals import REFUSALS, Unavailable, as_protocol_error
from taskapi.store.database import in_database
from taskapi.store.ledger import get_ledger

logger = logging.getLogger(__name__)

MOST_STARTING = 100  # `run` frames of a socket that are served at once
SMALL = protocol.LEAST_FRAME // 4  # characters of a frame that is not too large, whatever the limit
CLOSE_LOGGED_OUT = 4401  # the caller is not who it was at the handshake: come back as who you are now
CLOSE_SUBPROTOCOL = 4406  # the client names subprotocols, and none of ours


class TaskConsumer(AsyncConsumer):
    """One socket, which carries any number of runs.

    It has no channel in the channel layer: the process has one (taskapi.events.subscriptions.Hub), and the events
    of a run are passed on from there, as the text that their publisher encoded.
    """

    def __init__(self) -> None:
        self._subscriptions: dict[UUID, Subscription] = {}
        self._starting: list[asyncio.Task[None]] = []
        self._latest: asyncio.Task[None] | None = None  # of those that were started
        self._open = False
        self._logged_out = False  # the socket is being closed: nothing is served and nothing sent any more

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        # Not Channels' own: with one thing to listen to, it need not make a task of each message. Nor need it hop to
        # a thread before each, to close connections; ours look after themselves.
        self.scope, self.base_send = scope, send
        self._transport = transport_of(send)
        try:
            while (message := await receive())["type"] != "websocket.disconnect":
                await self.dispatch(message)
            if self._starting:  # what was asked for is started, though nobody waits for the answer
                await asyncio.wait(self._starting)
        finally:  # however it ended: a server may also cancel it
            for starting in self._starting:
                starting.cancel()
            for uuid in list(self._subscriptions):
                self._drop(uuid)
            if self._open:
                self._open = False
                get_round().remove(self)
                await get_hub().close()

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
            self.caller = await in_database(Caller, scope)
        except REFUSALS as error:
            logger.warning("Refused a WebSocket, whose credentials are wrong: %s", error)
            await self.send({"type": "websocket.close"})
            return
        offered = self.scope.get("subprotocols") or []
        chosen = protocol.SUBPROTOCOL if protocol.SUBPROTOCOL in offered else None
        self._open = True
        get_hub().open()
        if self.caller.may_change:
            get_round().add(self)
        await self.send({"type": "websocket.accept", "subprotocol": chosen})
        if offered and chosen is None:
            await self.send({"type": "websocket.close", "code": CLOSE_SUBPROTOCOL})

    async def _receive(self, text: str | None) -> None:
        """Serve a frame, and then the next; `run` frames side by side, though they are answered in their order."""
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
        """Judge the caller again. One who is somebody else by now is served no more: its socket is closed."""
        try:
            is_same = await in_database(self.caller.revalidate)
        except Exception:
            await _ended(self._latest)
            logger.exception("A frame was refused, because it could not be found out who its caller is now.")
            await self._refuse(ProtocolError("unavailable", Unavailable.default_detail, ref))
            self.caller.is_doubtful = True
            return False
        if not is_same:
            await self.log_out()
        return is_same

    async def log_out(self) -> None:
        """Close the socket of a caller who is not who it was any more. What was started goes on."""
        if self._logged_out or not self._open:
            return
        self._logged_out = True
        for uuid in list(self._subscriptions):
            self._drop(uuid)
        await self.send({"type": "websocket.close", "code": CLOSE_LOGGED_OUT})

    async def _serve(self, frame: Frame, before: asyncio.Task[None] | None = None) -> None:
        """Serve the frame; nothing is answered before the frame before it."""
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
        except Exception:
            await _ended(before)
            logger.exception("A frame could not be served.")
            await self._refuse(ProtocolError("unavailable", Unavailable.default_detail, ref))

    # Frames

    async def _run(self, frame: Run, before: asyncio.Task[None] | None) -> None:
        # The group is joined before the run exists, so that there is no event to miss.
        subscription = await self._follow(uuid4())
        try:
            draft = partial(self._draft, frame, subscription.uuid)
            info, created = await get_ledger().write(runs.save, prepare=draft)
            await _ended(before)
            if created:
                first = protocol.first_frame(
                    protocol.reply("accepted", frame.ref), info, 0, [], settings.sent_frame_bytes
                )
                await subscription.start(info, first)
        except IntegrityError:
            self._drop(subscription.uuid)
            await in_database(self.caller.refuse_if_deleted)
            raise
        except BaseException:
            self._drop(subscription.uuid)
            raise
        if not created:
            self._drop(subscription.uuid)
            await self._show("accepted", frame.ref, info.uuid, frame.after)

    async def _subscribe(self, frame: Subscribe) -> None:
        await self._show("snapshot", frame.ref, frame.uuid, frame.after)

    async def _unsubscribe(self, frame: Unsubscribe) -> None:
        await in_database(lambda: self.caller.view("GET", uuid=frame.uuid))
        self._drop(frame.uuid)
        await self._answer("unsubscribed", frame.ref, uuid=str(frame.uuid))

    async def _cancel(self, frame: Cancel) -> None:
        # By the ledger: whoever has locked the run would hold up the thread of all sockets.
        info, cancelled = await get_ledger().write(
            lambda info: (info, runs.cancel(info)),
            prepare=lambda: self.caller.view("POST", uuid=frame.uuid).find_run_to_cancel(frame.uuid),
        )
        if not cancelled:
            raise AlreadyFinished(info)
        await self._answer("cancelling", frame.ref, uuid=str(frame.uuid))

    def _draft(self, frame: Run, uuid: UUID) -> TaskInfo:
        view = self.caller.view("POST", {"task": frame.task, "inputs": frame.inputs})
        return view.draft_run(frame.task, frame.inputs, idempotency_key=frame.idempotency_key, uuid=uuid)

    # Subscriptions

    async def _show(self, kind: str, ref: str | None, uuid: UUID, after: int) -> None:
        """Answer with the run as it is, and go on with what happens to it from there."""
        self._drop(uuid)  # a second subscription takes the place of the first
        subscription = await self._follow(uuid)
        try:
            info, messages = await in_database(self._find, uuid, after)
            first = protocol.first_frame(protocol.reply(kind, ref), info, after, messages, settings.sent_frame_bytes)
            await subscription.start(info, first)
        except BaseException:
            self._drop(uuid)
            raise
        if subscription.ended:
            self._drop(uuid)

    def _find(self, uuid: UUID, after: int) -> tuple[TaskInfo, list[Message]]:
        """The run, and the messages that the first frame is likely to have room for."""
        info = self.caller.view("GET", uuid=uuid).find_run(uuid)
        return info, read_messages(info, after, SHOWN)

    async def _follow(self, uuid: UUID) -> Subscription:
        """Hear of the run; nothing is sent before the subscription is started."""
        subscription = self._subscriptions[uuid] = Subscription(uuid, self._send_text, self._forget)
        await get_hub().add(subscription)
        return subscription

    def _drop(self, uuid: UUID) -> None:
        subscription = self._subscriptions.pop(uuid, None)
        if subscription is not None:
            get_hub().remove(subscription)

    def _forget(self, subscription: Subscription) -> None:
        """Drop a subscription that has ended, unless another of its run has taken its place."""
        if self._subscriptions.get(subscription.uuid) is subscription:
            self._drop(subscription.uuid)

    # Sending

    async def _answer(self, kind: str, ref: str | None, **fields: Any) -> None:
        await self._send_text(protocol.encode(protocol.reply(kind, ref, **fields)))

    async def _refuse(self, why: ProtocolError) -> None:
        also = {"status": why.status, "reason": why.reason}
        said = {name: value for name, value in also.items() if value is not None}
        await self._answer("error", why.ref, code=why.code, **said, detail=why.detail)

    async def _send_text(self, text: str) -> None:
        """Send a frame: whatever it is, never a larger one than the server can send."""
        if self._open and not self._logged_out:
            if len(text) > SMALL:
                text = protocol.within(text, settings.sent_frame_bytes)
            if self._transport is not None:
                await wait_for_reader(self._transport)
            await self.send({"type": "websocket.send", "text": text})


async def _ended(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        await asyncio.wait({task})
