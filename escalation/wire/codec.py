"""protobuf <-> model, and batches of reports as bytes. Wire types do not leave this package.

Writing is total: every value of the model can be sent. What does not fit its field is fitted: text that is
too long keeps its beginning and ends in ``~`` and eight digits of its hash (so that two long names stay two
names), bytes that are not text are written as ``\\xNN``, a list keeps its first entries, numbers are held
within their field's range, and one that is not finite becomes 0. An UnknownEvidence or UnknownBody is sent
empty.

Reading is strict: a message becomes a value or raises WireError naming the field and its limit. What a
newer sender knows and we do not is kept as UNKNOWN, UnknownEvidence or UnknownBody.

A batch is joined and split without decoding its reports, so the spool sends and the store keeps the very
bytes that the agent committed, fields of a newer version included.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from google.protobuf.message import DecodeError

from escalation.model import (
    AGENT_ID,
    AgentId,
    Body,
    BootId,
    CaseReport,
    Heartbeat,
    HostChange,
    Loss,
    Report,
    UnknownBody,
)
from escalation.wire import bodies, escalation_pb2 as pb
from escalation.wire.fields import WireError, boot_id, bounded, fit, fit_u64, unknown_bytes
from escalation.wire.limits import BATCH_BYTES, BATCH_REPORTS, REPORT_BYTES

__all__ = [
    "Committed",
    "Identity",
    "WireError",
    "decode",
    "decode_ack",
    "encode",
    "encode_ack",
    "join",
    "peek",
    "split",
]


@dataclass(frozen=True, slots=True)
class Identity:
    """Which report it is, without its body."""

    agent_id: AgentId
    boot_id: BootId
    sequence: int


@dataclass(frozen=True, slots=True)
class Committed:
    """What an acknowledgement says: everything of `boot_id` up to `sequence` is on the other side's disk."""

    boot_id: BootId
    sequence: int


def encode(report: Report) -> bytes:
    """Return `report` as a serialized Report message."""
    message = pb.Report(
        agent_id=fit("Report.agent_id", report.agent_id),
        boot_id=fit("Report.boot_id", report.boot_id),
        sequence=fit_u64(report.sequence),
        created_ns=fit_u64(report.created_ns),
    )
    match report.body:
        case CaseReport():
            message.case_report.CopyFrom(bodies.case_message(report.body))
        case Heartbeat():
            message.heartbeat.CopyFrom(bodies.heartbeat_message(report.body))
        case Loss():
            message.loss.CopyFrom(bodies.loss_message(report.body))
        case HostChange():
            message.host_change.CopyFrom(bodies.host_change_message(report.body))
        case UnknownBody():
            pass
        case _:
            assert_never(report.body)
    return message.SerializeToString()


def decode(payload: bytes) -> Report:
    """Return the report that `payload` is; raise WireError naming the field and its limit."""
    message = _parse(payload)
    identity = _identity(message)
    body: Body | UnknownBody
    match message.WhichOneof("body"):
        case "case_report":
            body = bodies.case(message.case_report)
        case "heartbeat":
            body = bodies.heartbeat(message.heartbeat)
        case "loss":
            body = bodies.loss(message.loss)
        case "host_change":
            body = bodies.host_change(message.host_change)
        case _:
            body = UnknownBody(unknown_bytes(message))
    return Report(
        agent_id=identity.agent_id,
        boot_id=identity.boot_id,
        sequence=identity.sequence,
        created_ns=bounded("Report.created_ns", message.created_ns),
        body=body,
    )


def peek(payload: bytes) -> Identity:
    """Return which report `payload` is without reading its body; raise WireError when that is unsound."""
    return _identity(_parse(payload))


def join(payloads: Iterable[bytes]) -> bytes:
    """Return a serialized ReportBatch of serialized reports, in their order and byte for byte."""
    return pb.OpaqueBatch(reports=payloads).SerializeToString()


def split(batch: bytes) -> tuple[bytes, ...]:
    """Return the serialized reports of a serialized ReportBatch, byte for byte; raise WireError."""
    if len(batch) > BATCH_BYTES:
        raise WireError(f"ReportBatch: {len(batch)} bytes, at most {BATCH_BYTES}")
    try:
        reports = pb.OpaqueBatch.FromString(batch).reports
    except DecodeError as error:
        raise WireError("ReportBatch: is not a protobuf message") from error
    if len(reports) > BATCH_REPORTS:
        raise WireError(f"ReportBatch.reports: {len(reports)} entries, at most {BATCH_REPORTS}")
    return tuple(reports)


def encode_ack(committed: Committed) -> bytes:
    """Return `committed` as a serialized Ack message."""
    return pb.Ack(
        boot_id=fit("Ack.boot_id", committed.boot_id), sequence=fit_u64(committed.sequence)
    ).SerializeToString()


def decode_ack(data: bytes) -> Committed:
    """Return what a serialized Ack says; raise WireError."""
    try:
        ack = pb.Ack.FromString(data)
    except DecodeError as error:
        raise WireError("Ack: is not a protobuf message") from error
    return Committed(boot_id("Ack.boot_id", ack.boot_id), bounded("Ack.sequence", ack.sequence))


def _parse(payload: bytes) -> pb.Report:
    if len(payload) > REPORT_BYTES:
        raise WireError(f"Report: {len(payload)} bytes, at most {REPORT_BYTES}")
    try:
        return pb.Report.FromString(payload)
    except DecodeError as error:
        raise WireError("Report: is not a protobuf message") from error


def _identity(message: pb.Report) -> Identity:
    agent_id = message.agent_id
    if AGENT_ID.fullmatch(agent_id) is None:
        raise WireError("Report.agent_id: is not a lower-case host name of at most 63 characters")
    sequence = bounded("Report.sequence", message.sequence)
    if sequence == 0:
        raise WireError("Report.sequence: is 0, must be 1 or more")
    return Identity(AgentId(agent_id), boot_id("Report.boot_id", message.boot_id), sequence)
