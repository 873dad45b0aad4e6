"""One received batch: every report as the bytes it came in, and as values only those that change something.

A busy host sends many updates of one case in a batch, and each says all that the one before it said. Of the
updates of a case with no opening or clearing between them, and of heartbeats, only the last of the batch is
decoded in full; the others are kept as bytes and not looked into. Decoding all of them would halve what one
core can take in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from escalation.model import AgentId, BootId, Report
from escalation.wire import codec, escalation_pb2 as pb
from escalation.wire.fields import WireError, boot_id as checked_boot_id, bounded
from escalation.wire.limits import REPORT_BYTES

_UPDATED: Final = pb.CASE_PHASE_UPDATED


class ForeignReport(WireError):
    """A report that names another host than the one that sends it; the message names what was claimed."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Reports of one boot in ascending order: `rows` are (sequence, created_ns, payload) of each."""

    boot_id: BootId
    rows: tuple[tuple[int, int, bytes], ...]
    notable: tuple[Report, ...]


def read_batch(data: bytes, *, sender: AgentId) -> Batch:
    """Return the batch that `sender` sent as `data`; raise WireError naming what is wrong with it.

    An empty batch, numbers that do not ascend, two boots in one batch and a report of another host
    (ForeignReport) are refused whole.
    """
    payloads = codec.split(data)
    if not payloads:
        raise WireError("ReportBatch.reports: is empty")
    rows: list[tuple[int, int, bytes]] = []
    messages: list[pb.Report] = []
    boot = ""
    before = 0
    for payload in payloads:
        if len(payload) > REPORT_BYTES:
            raise WireError(f"Report: {len(payload)} bytes, at most {REPORT_BYTES}")
        try:
            message = pb.Report.FromString(payload)
        except DecodeError as error:
            raise WireError("Report: is not a protobuf message") from error
        if message.agent_id != sender:
            raise ForeignReport(f"Report.agent_id: is {message.agent_id[:63]!r}, and {sender} sent it")
        if message.boot_id != boot:
            if boot:
                raise WireError("Report.boot_id: two numberings in one batch")
            boot = checked_boot_id("Report.boot_id", message.boot_id)
        sequence = bounded("Report.sequence", message.sequence)
        if sequence <= before:
            raise WireError(f"Report.sequence: {sequence} after {before}, must ascend from 1")
        before = sequence
        rows.append((sequence, bounded("Report.created_ns", message.created_ns), payload))
        messages.append(message)
    notable = tuple([codec.decode(rows[index][2]) for index in _notable(messages)])
    return Batch(boot_id=BootId(boot), rows=tuple(rows), notable=notable)


def _notable(messages: list[pb.Report]) -> list[int]:
    """Return the positions of the reports that no later one of the batch supersedes, in order."""
    found: list[int] = []
    updated_later: set[str] = set()
    beats_later = False
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        kind = message.WhichOneof("body")
        if kind == "case_report":
            case = message.case_report
            case_id = case.case_id
            if case.phase == _UPDATED:
                if case_id in updated_later:
                    continue
                updated_later.add(case_id)
            else:
                # Cases may share an incident: nothing is superseded across an opening or a clearing.
                updated_later.clear()
        elif kind == "heartbeat":
            if beats_later:
                continue
            beats_later = True
        elif kind is None:
            continue
        found.append(index)
    found.reverse()
    return found
