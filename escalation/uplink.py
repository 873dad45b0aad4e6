"""What drains the outbox to the orchestrator: one stream of batches, and acknowledgements back.

A batch is what waits, up to a limit, and it leaves at once: a lone grave report does not wait for company.
When the other side is slower, the window of unacknowledged batches fills, reports gather in the outbox, and
the next batch is a full one. So memory is bounded by the window, and there is no timer to tune (rejected:
a linger before each batch, which delays exactly the reports that matter).

Connecting is gRPC's: it backs off by itself, with jitter. After a stream that was refused or broke, the next
one waits for a pause that doubles up to a limit, with jitter, until something is acknowledged again.

A batch refused as invalid is sent again in halves, one at a time, until a single report is found that is
refused alone. That one is set aside in the outbox, which counts it as lost; the others flow. Each report set
aside without anything acknowledged in between lengthens the pause, so that an orchestrator which refuses
everything costs a report a minute and not the spool.
"""

from __future__ import annotations

import asyncio
import enum
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, cast

import grpc
import grpc.aio
import structlog

from escalation.model import BootId
from escalation.outbox import OutboxError, Stored
from escalation.wire import credentials
from escalation.wire.channel import CALL, CLIENT_OPTIONS
from escalation.wire.codec import Committed, WireError, decode_ack, join

_log = structlog.get_logger("nanobot.uplink")

_DETAIL_CHARACTERS: Final = 300
_IDENTITY: Final = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)


class OutboxCalls(Protocol):
    """What the uplink asks of an outbox, which lives in another thread."""

    async def pending(self, *, after_row: int, limit: int, max_bytes: int) -> tuple[Stored, ...]:
        """Return waiting reports of one boot id, in order."""

    async def acknowledge(self, boot_id: BootId, sequence: int) -> int:
        """Forget reports up to `sequence`."""

    async def set_aside(self, row: int, *, now_ns: int) -> None:
        """Take a refused report out of the queue, counted as lost."""


class UplinkState(enum.StrEnum):
    """How it stands between this host and its orchestrator."""

    STARTING = "starting"
    CONNECTING = "connecting"
    UNREACHABLE = "unreachable"
    DELIVERING = "delivering"
    NOT_ACCEPTED = "not_accepted"
    PAUSED = "paused"
    NO_CREDENTIALS = "no_credentials"
    NO_OUTBOX = "no_outbox"


@dataclass(frozen=True, slots=True, kw_only=True)
class UplinkStatus:
    """How the uplink is, for metrics and the doctor. `detail` may hold text from the other side."""

    state: UplinkState = UplinkState.STARTING
    detail: str = ""
    sent_reports: int = 0
    acked_reports: int = 0
    set_aside_reports: int = 0
    unacked_batches: int = 0
    streams: int = 0
    last_ack_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UplinkLimits:
    """How much at once, and how long to wait."""

    batch_reports: int = 500
    batch_bytes: int = 256 * 1024
    window_batches: int = 4
    ack_within_s: float = 60.0
    first_pause_s: float = 0.5
    longest_pause_s: float = 60.0
    look_every_s: float = 30.0


@dataclass(frozen=True, slots=True)
class _Sent:
    boot_id: BootId
    last_sequence: int
    last_row: int
    reports: int


@dataclass(frozen=True, slots=True)
class _Suspicion:
    """A report up to `until_row` was refused: send at most `limit` at a time, and one batch at a time."""

    until_row: int
    limit: int


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a stream ended."""

    state: UplinkState
    detail: str
    invalid: bool = False
    renewed: bool = False


@dataclass(slots=True)
class _Stream:
    """What is known of the stream that is open."""

    call: Any
    progress_s: float
    unacked: list[_Sent] = field(default_factory=list)
    highest: dict[BootId, int] = field(default_factory=dict)
    committed: dict[BootId, int] = field(default_factory=dict)
    ending: _Ending | None = None

    def end(self, ending: _Ending) -> None:
        """Note why, and make the call end; the first reason counts."""
        self.ending = self.ending or ending
        self.call.cancel()


class Uplink:
    """Sends what waits in the outbox until it is cancelled; `wake` says that something new waits."""

    def __init__(
        self,
        *,
        outbox: OutboxCalls,
        target: str,
        files: credentials.Files,
        now_ns: Callable[[], int],
        dice: random.Random,
        pause: Callable[[float], Awaitable[None]],
        limits: UplinkLimits | None = None,
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        """Send to `target` (host:port) with the certificates in `files`; `options` go to the channel too."""
        self._outbox = outbox
        self._target = target
        self._files = files
        self._now_ns = now_ns
        self._dice = dice
        self._pause = pause
        self._limits = limits or UplinkLimits()
        self._options = (*CLIENT_OPTIONS, *options)
        self._waiting = asyncio.Event()
        self._room = asyncio.Event()
        self._acked = asyncio.Event()
        self._failures = 0
        self._suspicion: _Suspicion | None = None
        self._status = UplinkStatus()

    def __repr__(self) -> str:
        return f"<Uplink {self._target} {self._status}>"

    @property
    def status(self) -> UplinkStatus:
        """How it stands now."""
        return self._status

    def wake(self) -> None:
        """Send what waits, now. To be called on the event loop's thread."""
        self._waiting.set()

    async def run(self) -> None:
        """Deliver until cancelled; nothing that the other side does ends it."""
        while True:
            try:
                credentials.check(self._files)
                pems = credentials.read(self._files)
            except credentials.CredentialsError as error:
                self._enter(UplinkState.NO_CREDENTIALS, str(error))
                await self._rest()
                continue
            channel = grpc.aio.secure_channel(
                self._target, credentials.for_client(pems), options=self._options
            )
            async with channel:
                await self._deliver(channel, pems)

    async def _deliver(self, channel: grpc.aio.Channel, pems: credentials.Pems) -> None:
        """Open stream after stream on `channel` until the certificates change."""
        while True:
            ending = await self._stream(channel, pems)
            if ending.renewed:
                _log.info("uplink_credentials_renewed", target=self._target)
                return
            self._enter(ending.state, ending.detail)
            if not ending.invalid:
                await self._rest()
            if self._renewed(pems):
                return

    async def _stream(self, channel: grpc.aio.Channel, pems: credentials.Pems) -> _Ending:
        call = cast("Any", channel.stream_stream(CALL)(wait_for_ready=True))
        loop = asyncio.get_running_loop()
        stream = _Stream(call=call, progress_s=loop.time())
        self._enter(UplinkState.CONNECTING, "")
        self._status = replace(self._status, streams=self._status.streams + 1, unacked_batches=0)
        try:
            async with asyncio.TaskGroup() as tasks:
                beside = [
                    tasks.create_task(self._send(stream)),
                    tasks.create_task(self._forget(stream)),
                    tasks.create_task(self._watch(stream, channel, pems)),
                    tasks.create_task(self._explain(stream, channel)),
                ]
                await self._receive(stream)
                for task in beside:
                    task.cancel()
        finally:
            call.cancel()
        await self._settle(stream)
        if stream.ending is not None:
            return stream.ending
        code, detail = await call.code(), str(await call.details() or "")
        return await self._judge(stream, code, detail)

    async def _send(self, stream: _Stream) -> None:
        row = 0
        loop = asyncio.get_running_loop()
        while True:
            limits, suspicion = self._limits, self._suspicion
            if suspicion is not None and row >= suspicion.until_row and not stream.unacked:
                suspicion = self._suspicion = None
            if len(stream.unacked) >= (limits.window_batches if suspicion is None else 1):
                self._room.clear()
                await self._room.wait()
                continue
            self._waiting.clear()
            limit = limits.batch_reports if suspicion is None else min(suspicion.limit, limits.batch_reports)
            try:
                stored = await self._outbox.pending(after_row=row, limit=limit, max_bytes=limits.batch_bytes)
            except OutboxError as error:
                stream.end(_Ending(UplinkState.NO_OUTBOX, str(error)))
                return
            if not stored:
                await self._waiting.wait()
                continue
            last = stored[-1]
            row = last.row
            if not stream.unacked:
                stream.progress_s = loop.time()
            stream.unacked.append(_Sent(last.boot_id, last.sequence, last.row, len(stored)))
            stream.highest[last.boot_id] = last.sequence
            self._status = replace(
                self._status,
                sent_reports=self._status.sent_reports + len(stored),
                unacked_batches=len(stream.unacked),
            )
            try:
                await stream.call.write(join(each.payload for each in stored))
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return  # the receiving side learns why
            except asyncio.CancelledError:
                if _cancelled_from_outside():
                    raise
                return

    async def _receive(self, stream: _Stream) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = await stream.call.read()
            except grpc.aio.AioRpcError:
                return
            except asyncio.CancelledError:
                if _cancelled_from_outside():
                    raise
                return  # the call was cancelled by one of ours
            if data is grpc.aio.EOF:
                return
            try:
                committed = decode_ack(data)
            except WireError as error:
                stream.end(_Ending(UplinkState.PAUSED, f"an acknowledgement that is none: {error}"))
                return
            stream.progress_s = loop.time()
            self._note_committed(stream, committed)

    def _note_committed(self, stream: _Stream, committed: Committed) -> None:
        """Free the window, and have the outbox forget; never more than was sent on this very stream."""
        highest = stream.highest.get(committed.boot_id)
        if highest is None:
            return
        sequence = min(committed.sequence, highest)
        stream.committed[committed.boot_id] = max(sequence, stream.committed.get(committed.boot_id, 0))
        done = [
            sent
            for sent in stream.unacked
            if sent.boot_id == committed.boot_id and sent.last_sequence <= sequence
        ]
        if done:
            stream.unacked = [sent for sent in stream.unacked if sent not in done]
            self._failures = 0
            if self._suspicion is not None:
                self._suspicion = replace(self._suspicion, limit=self._suspicion.limit * 2)
        self._status = replace(
            self._status,
            acked_reports=self._status.acked_reports + sum(sent.reports for sent in done),
            unacked_batches=len(stream.unacked),
            last_ack_ns=self._now_ns(),
        )
        self._enter(UplinkState.DELIVERING, "")
        self._room.set()
        self._acked.set()

    async def _forget(self, stream: _Stream) -> None:
        """Have the outbox forget what is committed; acknowledgements that came meanwhile go together."""
        while stream.ending is None:
            await self._acked.wait()
            self._acked.clear()
            await self._settle(stream)

    async def _settle(self, stream: _Stream) -> None:
        committed, stream.committed = stream.committed, {}
        for boot_id, sequence in committed.items():
            try:
                await self._outbox.acknowledge(boot_id, sequence)
            except OutboxError as error:  # they are sent again, and the other side ignores them
                stream.end(_Ending(UplinkState.NO_OUTBOX, str(error)))

    async def _watch(self, stream: _Stream, channel: grpc.aio.Channel, pems: credentials.Pems) -> None:
        """End the stream when the certificates were renewed, or nothing is acknowledged any more."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._limits.look_every_s)
            if self._renewed(pems):
                stream.end(_Ending(UplinkState.CONNECTING, "", renewed=True))
            await self._probe(channel)  # the reason may be another one by now
            silent_s = loop.time() - stream.progress_s
            connected = channel.get_state() is grpc.ChannelConnectivity.READY
            if stream.unacked and connected and silent_s > self._limits.ack_within_s:
                detail = f"nothing was acknowledged for {silent_s:.0f} s"
                stream.end(_Ending(UplinkState.PAUSED, detail))

    async def _explain(self, stream: _Stream, channel: grpc.aio.Channel) -> None:
        """Say at once when there is no connection, and when there is one again."""
        while True:
            state = channel.get_state()
            if state is grpc.ChannelConnectivity.READY:
                stream.progress_s = asyncio.get_running_loop().time()
                if self._status.state is UplinkState.UNREACHABLE:
                    self._enter(UplinkState.CONNECTING, "")
            await self._probe(channel)
            await channel.wait_for_state_change(state)

    async def _probe(self, channel: grpc.aio.Channel) -> None:
        """Find out why there is no connection: a call that does not wait for one is told."""
        if channel.get_state() is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            return
        probe = cast("Any", channel.stream_stream(CALL)(timeout=1.0))
        try:
            await probe.read()
        except grpc.aio.AioRpcError as error:
            if channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                self._enter(UplinkState.UNREACHABLE, error.details() or "")
        finally:
            probe.cancel()

    async def _judge(self, stream: _Stream, code: grpc.StatusCode, detail: str) -> _Ending:
        """Return what the other side's last word means, after doing what a refused report asks for."""
        told = f"{code.name}: {detail}"
        if code in _IDENTITY:
            return _Ending(UplinkState.NOT_ACCEPTED, told)
        if code is not grpc.StatusCode.INVALID_ARGUMENT or not stream.unacked:
            return _Ending(UplinkState.PAUSED, told)
        largest = max(sent.reports for sent in stream.unacked)
        until_row = stream.unacked[-1].last_row
        if self._suspicion is not None:
            until_row = max(until_row, self._suspicion.until_row)
        self._suspicion = _Suspicion(until_row, max(1, largest // 2))
        if len(stream.unacked) > 1 or largest > 1:
            return _Ending(UplinkState.PAUSED, told, invalid=True)
        try:
            await self._outbox.set_aside(stream.unacked[0].last_row, now_ns=self._now_ns())
        except OutboxError as error:
            return _Ending(UplinkState.NO_OUTBOX, str(error))
        self._status = replace(self._status, set_aside_reports=self._status.set_aside_reports + 1)
        _log.warning("uplink_report_set_aside", target=self._target, detail=told[:_DETAIL_CHARACTERS])
        return _Ending(UplinkState.PAUSED, told)

    def _renewed(self, pems: credentials.Pems) -> bool:
        """Return whether there are other certificates now; files that cannot be used do not count."""
        try:
            if credentials.read(self._files) == pems:
                return False
            credentials.check(self._files)
        except credentials.CredentialsError:
            return False
        return True

    async def _rest(self) -> None:
        longest = min(self._limits.longest_pause_s, self._limits.first_pause_s * 2 ** min(self._failures, 16))
        self._failures += 1
        await self._pause(longest * self._dice.uniform(0.5, 1.0))

    def _enter(self, state: UplinkState, detail: str) -> None:
        detail = detail[:_DETAIL_CHARACTERS]
        if (state, detail) == (self._status.state, self._status.detail):
            return
        if state is not self._status.state:
            _log.info("uplink_state", state=state.value, target=self._target, detail=detail)
        self._status = replace(self._status, state=state, detail=detail)


def _cancelled_from_outside() -> bool:
    """Return whether this task was cancelled, and not only the call that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
