"""Reports from hosts: decode, authorise, hand to the service, acknowledge what is committed.

One task reads a stream's batches and submits them, one sends acknowledgements when the commits are done, so
that a stream keeps the disk busy while it is read. What is in flight is bounded: at most `_WINDOW` batches of
a stream, and over all streams the bytes that the store lets in. An acknowledgement speaks for everything
before it, so commits that are done together are acknowledged together.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

import grpc
import grpc.aio
import structlog

from escalation import failpoints
from escalation.model import AgentId, BootId
from escalation.server.certificates import Certificates
from escalation.server.identity import Context, Handler, Identities
from escalation.server.metrics import ReportResult, ServerMetrics
from escalation.server.storage.store import Delivery, StoreError, StoreUnavailable
from escalation.server.triage import Kept
from escalation.wire import codec
from escalation.wire.delivery import Batch, ForeignReport, read_batch
from escalation.wire.fields import WireError

SERVICE: Final = "nanobot.v1.EscalationService"

_WINDOW: Final = 64
"""How many batches of one stream may wait for their commit."""

_REFUSAL_PAUSE_S: Final = 60.0
"""How often at most the refusals of one peer are written to the audit log; the others are counted."""

_log = structlog.get_logger("nanobot.orchestrator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one agent may ask for at most."""

    streams_per_agent: int = 4
    reports_per_s: float = 100_000.0


class Receiver(Protocol):
    """What the ingest asks of the service."""

    async def accept(self, delivery: Delivery, *, cost_bytes: int = 0) -> asyncio.Future[Kept]:
        """Take a delivery; the future tells when it is committed."""

    async def note_refusal(self, *, actor: str, verb: str, object_id: str, detail: str) -> None:
        """Write to the audit log that a peer was refused."""

    def steady_s(self) -> float:
        """Return the monotonic clock."""


class _Refused(Exception):
    """This stream ends here, with this status."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class _Peer:
    """What is remembered of one agent while it is connected, and of its refusals a little longer."""

    streams: int = 0
    credit: float = 0.0
    credited_s: float = 0.0
    refusal_noted_s: float | None = None
    refusals_unnoted: int = 0


@dataclass(frozen=True, slots=True)
class _Pending:
    boot_id: BootId
    sequence: int
    reports: int
    arrived_s: float
    committed: asyncio.Future[Kept]

    def goes_with(self, before: _Pending) -> bool:
        """Return whether one acknowledgement can speak for both, now."""
        return self.boot_id == before.boot_id and self.committed.done()


class _Line:
    """What one stream has submitted and not acknowledged yet; None ends it."""

    def __init__(self) -> None:
        self.items: asyncio.Queue[_Pending | None] = asyncio.Queue()  # bounded by `room`
        self.room = asyncio.Semaphore(_WINDOW)


class Ingest:
    """The gRPC service that agents speak to."""

    def __init__(
        self,
        *,
        receiver: Receiver,
        identities: Identities,
        limits: Limits,
        metrics: ServerMetrics,
        certificates: Certificates | None = None,
    ) -> None:
        """Hand what agents send to `receiver`, and what they show to `certificates`."""
        self._certificates = certificates
        self._metrics = metrics
        self._receiver = receiver
        self._identities = identities
        self._limits = limits
        self._peers: dict[AgentId, _Peer] = {}

    def __repr__(self) -> str:
        return (
            f"Ingest(peers={len(self._peers)}, streams={sum(each.streams for each in self._peers.values())})"
        )

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the service for a server; messages pass as bytes, and `codec` alone reads them."""
        escalate: Handler = grpc.stream_stream_rpc_method_handler(cast("Any", self.escalate))
        return grpc.method_handlers_generic_handler(SERVICE, {"Escalate": escalate})

    async def escalate(self, batches: AsyncIterable[bytes], context: Context) -> None:
        """Serve one stream until the agent ends it, or it has to be refused."""
        agent_id = self._identities.of(context.auth_context())
        peer = self._peers.setdefault(
            agent_id, _Peer(credit=self._limits.reports_per_s, credited_s=self._receiver.steady_s())
        )
        if peer.streams >= self._limits.streams_per_agent:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{agent_id} has {peer.streams} streams open already",
            )
        peer.streams += 1
        if self._certificates is not None:
            self._certificates.shown(agent_id, context.auth_context())
        refusal: _Refused | None = None
        try:
            await self._converse(agent_id, peer, batches, context)
        except _Refused as error:
            refusal = error
        except StoreUnavailable as error:
            refusal = _Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "nothing can be kept now")
            _log.warning("stream_refused", agent=agent_id, error=str(error))
        except StoreError as error:
            refusal = _Refused(grpc.StatusCode.INTERNAL, "the batch could not be kept")
            _log.error("stream_refused", agent=agent_id, error=str(error))
        finally:
            peer.streams -= 1
            if not peer.streams and peer.refusal_noted_s is None:
                self._peers.pop(agent_id, None)
        if refusal is not None:
            await context.abort(refusal.code, str(refusal))

    async def _converse(
        self, agent_id: AgentId, peer: _Peer, batches: AsyncIterable[bytes], context: Context
    ) -> None:
        line = _Line()
        reader = asyncio.create_task(self._read(agent_id, peer, batches, line))
        acknowledger = asyncio.create_task(self._acknowledge(line, context))
        try:
            await asyncio.wait({reader, acknowledger}, return_when=asyncio.FIRST_COMPLETED)
            if not acknowledger.done():
                line.items.put_nowait(None)  # what was submitted before the end is still acknowledged
                await asyncio.wait({acknowledger})
        finally:
            reader.cancel()
            acknowledger.cancel()
            await asyncio.gather(reader, acknowledger, return_exceptions=True)
        for task in (acknowledger, reader):
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def _read(self, agent_id: AgentId, peer: _Peer, batches: AsyncIterable[bytes], line: _Line) -> None:
        async for data in batches:
            arrived_s = self._receiver.steady_s()
            await line.room.acquire()
            batch = await self._read_one(agent_id, peer, data)
            pause_s = self._pace(peer, len(batch.rows))
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            delivery = Delivery(agent_id, batch.boot_id, batch.rows, batch.notable)
            size_bytes = len(data)
            del data  # it would be held, beside what was read from it, for as long as the line is long
            committed = await self._receiver.accept(delivery, cost_bytes=size_bytes)
            line.items.put_nowait(
                _Pending(batch.boot_id, batch.rows[-1][0], len(batch.rows), arrived_s, committed)
            )

    async def _read_one(self, agent_id: AgentId, peer: _Peer, data: bytes) -> Batch:
        try:
            return read_batch(data, sender=agent_id)
        except ForeignReport as error:
            self._metrics.reports(ReportResult.REFUSED)
            await self._note_refusal(agent_id, peer, str(error))
            raise _Refused(grpc.StatusCode.PERMISSION_DENIED, str(error)) from error
        except WireError as error:
            self._metrics.reports(ReportResult.REFUSED)
            _log.warning("batch_refused", agent=agent_id, error=str(error))
            raise _Refused(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error

    async def _acknowledge(self, line: _Line, context: Context) -> None:
        carried: list[_Pending | None] = []
        while (item := carried.pop() if carried else await line.items.get()) is not None:
            await self._settle(item, line)
            while not carried and not line.items.empty():
                following = line.items.get_nowait()
                if following is None or not following.goes_with(item):
                    carried.append(following)
                else:
                    await self._settle(following, line)
                    item = following
            await context.write(codec.encode_ack(codec.Committed(item.boot_id, item.sequence)))
            failpoints.reach("server.after_ack")

    async def _settle(self, item: _Pending, line: _Line) -> None:
        kept = await item.committed
        line.room.release()
        self._metrics.reports(ReportResult.INGESTED, kept.fresh)
        if kept.fresh < item.reports:
            self._metrics.reports(ReportResult.DUPLICATE, item.reports - kept.fresh)
        self._metrics.ingested_in(self._receiver.steady_s() - item.arrived_s)

    async def _note_refusal(self, agent_id: AgentId, peer: _Peer, detail: str) -> None:
        now_s = self._receiver.steady_s()
        if peer.refusal_noted_s is not None and now_s - peer.refusal_noted_s < _REFUSAL_PAUSE_S:
            peer.refusals_unnoted += 1
            return
        if peer.refusals_unnoted:
            detail = f"{detail} ({peer.refusals_unnoted} more since the last entry)"
        peer.refusal_noted_s, peer.refusals_unnoted = now_s, 0
        with contextlib.suppress(StoreError):  # it is in the log and in the counts, and will be tried again
            await self._receiver.note_refusal(
                actor=f"agent:{agent_id}", verb="report.refused", object_id=agent_id, detail=detail
            )
        _log.warning("foreign_report_refused", agent=agent_id, error=detail)

    def _pace(self, peer: _Peer, reports: int) -> float:
        """Return how long to wait so that this peer stays at its rate; a second's worth may come at once."""
        rate = self._limits.reports_per_s
        now_s = self._receiver.steady_s()
        peer.credit = min(rate, peer.credit + (now_s - peer.credited_s) * rate) - reports
        peer.credited_s = now_s
        return -peer.credit / rate if peer.credit < 0 else 0.0
