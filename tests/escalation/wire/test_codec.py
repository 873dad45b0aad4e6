"""The codec: total when it writes, strict when it reads, and nothing newer is dropped."""

from __future__ import annotations

import dataclasses
import enum
import math
import random
import re
import time
import tracemalloc
import typing
from typing import Any

import pytest
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from hypothesis import HealthCheck, example, given, settings, strategies as st

from escalation import model
from escalation.model import (
    AgentId,
    BootId,
    CaseId,
    CasePhase,
    CaseReport,
    Device,
    DeviceOpenEvidence,
    FaultClass,
    Heartbeat,
    Incarnation,
    Loss,
    LossKind,
    OomEvidence,
    OomScope,
    Reason,
    ReasonCode,
    Report,
    SensorCoverage,
    Severity,
    Subject,
    SubjectKind,
    UnknownBody,
    UnknownEvidence,
)
from escalation.wire import escalation_pb2 as pb
from escalation.wire.codec import (
    Committed,
    Identity,
    WireError,
    decode,
    decode_ack,
    encode,
    encode_ack,
    join,
    peek,
    split,
)
from escalation.wire.fields import Names, fit, fit_digits, fit_word
from escalation.wire.limits import BATCH_BYTES, BATCH_REPORTS, LIST_ENTRIES, REPORT_BYTES, TEXT_BYTES
from escalation.wire.strategies import outsized_reports, reports

BOOT = BootId("0b5e9c1e-8f43-5a53-9d2e-6f0a86f0e4a1")
ONE = Report(
    agent_id=AgentId("spark-a"),
    boot_id=BOOT,
    sequence=7,
    created_ns=1_700_000_000_000_000_000,
    body=CaseReport(
        phase=CasePhase.OPENED,
        case_id=CaseId("gpu.access_revoked:vllm.service:1"),
        fault_class=FaultClass.GPU_ACCESS_REVOKED,
        severity=Severity.HIGH,
        subject=Subject(SubjectKind.CONTAINER, "vllm"),
        incarnation=Incarnation("9f3c", "c" * 64, 1234, 5678),
        first_seen_ns=1,
        last_seen_ns=2,
        count=3,
        reasons=(Reason(ReasonCode.OPEN_REFUSED_AFTER_SUCCESS, 5, 3.0, 60.0),),
        evidence=(DeviceOpenEvidence(Device.GPU, 0, 1, 5, 17, "vllm", 1234),),
    ),
)


def _message(**fields: Any) -> pb.Report:
    message = pb.Report.FromString(encode(ONE))
    for name, value in fields.items():
        setattr(message, name, value)
    return message


@given(reports())
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_every_report_comes_back_equal(report: Report) -> None:
    """What is written is read as the same value, and its identity can be read without its body."""
    payload = encode(report)
    assert decode(payload) == report
    assert peek(payload) == Identity(report.agent_id, report.boot_id, report.sequence)


@given(outsized_reports())
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_what_fits_no_field_is_fitted_and_readable(report: Report) -> None:
    """A value outside every limit is still written, within the size of a report, and can be read."""
    payload = encode(report)
    assert len(payload) <= REPORT_BYTES
    fixed = pb.Report.FromString(payload)
    fixed.sequence = fixed.sequence or 1
    once = decode(fixed.SerializeToString())
    assert decode(encode(once)) == once


def test_two_long_names_stay_two_names() -> None:
    """Text that is too long is cut at a character and marked with its hash; what fits is not touched."""
    first, second = (fit("Subject.name", "ü" * 600 + end) for end in "ab")
    assert first != second
    assert first.startswith("ü" * 400)
    assert max(len(first.encode()), len(second.encode())) <= TEXT_BYTES["Subject.name"]
    assert fit("Subject.name", "ü" * 512) == "ü" * 512


def test_bytes_that_are_no_text_are_written_as_escapes() -> None:
    """A name that is not UTF-8, or holds a NUL, arrives readable instead of breaking the message."""
    assert fit("Subject.name", "a\udcffb") == "a\\udcffb"
    assert fit("Subject.name", "a\0b") == "a\\x00b"


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda m: setattr(m, "agent_id", "Über.host"), "Report.agent_id: is not a lower-case host name"),
        (lambda m: setattr(m, "agent_id", "a" * 64), "Report.agent_id: is not a lower-case host name"),
        (lambda m: setattr(m, "agent_id", ""), "Report.agent_id: "),
        (lambda m: setattr(m, "boot_id", "x"), "Report.boot_id: is not a lower-case UUID"),
        (lambda m: setattr(m, "sequence", 0), "Report.sequence: is 0, must be 1 or more"),
        (lambda m: setattr(m, "sequence", 2**63), "Report.sequence: is 9223372036854775808, must be 0 to"),
        (lambda m: setattr(m, "created_ns", -1), "Report.created_ns: is -1, must be 0 to"),
        (lambda m: setattr(m.case_report, "count", 2**64 - 1), "CaseReport.count: is 18446744073709551615"),
        (lambda m: setattr(m.case_report, "first_seen_ns", -5), "CaseReport.first_seen_ns: is -5"),
        (lambda m: setattr(m.case_report, "last_seen_ns", -5), "CaseReport.last_seen_ns: is -5"),
        (
            lambda m: setattr(m.case_report.subject, "name", "n" * 1025),
            "Subject.name: 1025 bytes, at most 1024",
        ),
        (
            lambda m: setattr(m.case_report.subject, "name", "ü" * 513),
            "Subject.name: 1026 bytes, at most 1024",
        ),
        (lambda m: setattr(m.case_report.subject, "name", "a\0b"), "Subject.name: holds a NUL character"),
        (
            lambda m: setattr(m.case_report.incarnation, "pid", -4),
            "Incarnation.pid: is -4, must be 0 to",
        ),
        (
            lambda m: setattr(m.case_report.reasons[0], "window_s", float("nan")),
            "Reason.window_s: is nan, must be a finite number",
        ),
        (
            lambda m: m.case_report.reasons.extend([pb.Reason()] * 32),
            "CaseReport.reasons: 33 entries, at most 32",
        ),
        (
            lambda m: m.case_report.evidence.extend([pb.Evidence()] * 32),
            "CaseReport.evidence: 33 entries, at most 32",
        ),
        (
            lambda m: m.case_report.evidence.add(listener=pb.ListenerEvidence(port=65536)),
            "ListenerEvidence.port: is 65536, must be 0 to 65535",
        ),
        (
            lambda m: m.heartbeat.coverage.extend([pb.SensorCoverage()] * 257),
            "Heartbeat.coverage: 257 entries, at most 256",
        ),
        (lambda m: setattr(m.loss, "count", 2**63), "Loss.count: is"),
        (
            lambda m: m.case_report.evidence.add(log=pb.LogEvidence(pattern="The user asked: why")),
            "LogEvidence.pattern: is no word of a-z, 0-9, dot, underscore and hyphen",
        ),
        (
            lambda m: m.case_report.evidence.add(log=pb.LogEvidence(captures=[pb.Capture(name="a b")])),
            "Capture.name: is no word",
        ),
        (
            lambda m: m.case_report.evidence.add(log=pb.LogEvidence(captures=[pb.Capture(word="Sk-1")])),
            "Capture.word: is no word",
        ),
        (
            lambda m: m.case_report.evidence.add(log=pb.LogEvidence(captures=[pb.Capture()] * 7)),
            "LogEvidence.captures: 7 entries, at most 6",
        ),
        (
            lambda m: m.case_report.evidence.add(drift=pb.DriftEvidence(print_now="--api-key x")),
            "DriftEvidence.print_now: is no lower-case hexadecimal digits",
        ),
        (
            lambda m: m.case_report.evidence.add(peer=pb.PeerEvidence(port=65536)),
            "PeerEvidence.port: is 65536, must be 0 to 65535",
        ),
        (
            lambda m: m.case_report.evidence.add(pressure=pb.PressureEvidence(some_percent=math.inf)),
            "PressureEvidence.some_percent: is inf, must be a finite number",
        ),
    ],
)
def test_names_the_field_and_its_limit(spoil: Any, complaint: str) -> None:
    """A field outside its limit is refused by name."""
    message = _message()
    spoil(message)
    with pytest.raises(WireError) as caught:
        decode(message.SerializeToString())
    assert str(caught.value).startswith(complaint)


@pytest.mark.parametrize("text", ["The user asked: why", "Sk-1", "a\nb", ".hidden", "x" * 65, "\udc80", "ü"])
def test_what_is_no_word_is_sent_as_its_hash(text: str) -> None:
    """Where ids and closed lists are sent no text fits, and two texts stay two."""
    sent, other = fit_word("LogEvidence.pattern", text), fit_word("LogEvidence.pattern", text + " ")
    assert re.fullmatch("x-[0-9a-f]{16}", sent)
    assert sent != other
    assert re.fullmatch("[0-9a-f]{16}", fit_digits("DriftEvidence.print_now", text))


def test_a_word_is_sent_as_it_is() -> None:
    """Ids of patterns, enumerated words and prints pass unchanged; nothing at all does too."""
    for each in ("", "vllm.shm-broadcast_60s", "x" * 64):
        assert fit_word("LogEvidence.pattern", each) == each
    assert fit_digits("DriftEvidence.print_now", "00ff") == "00ff"


def test_refuses_an_oversized_report_before_reading_it() -> None:
    """Size is checked first, so what follows is bounded."""
    with pytest.raises(WireError, match=f"Report: {REPORT_BYTES + 1} bytes, at most {REPORT_BYTES}"):
        decode(bytes(REPORT_BYTES + 1))


def test_the_largest_report_that_can_be_written_fits() -> None:
    """Every list full and every text at its limit still is within the size of a report."""
    name = "n" * 5000
    case = ONE.body
    assert isinstance(case, CaseReport)
    oom = OomEvidence(OomScope.HOST, name, 2**63, 2**63, 2**63, 2**63)
    full = dataclasses.replace(
        case,
        case_id=CaseId(name),
        subject=Subject(SubjectKind.UNIT, name),
        target=Subject(SubjectKind.UNIT, name),
        reasons=tuple(Reason(ReasonCode.HOST_SILENT, 2**63, n + 0.1, 0.1) for n in range(1000)),
        evidence=(oom,) * 1000,
    )
    beat = Heartbeat(
        kernel_boot_id=name,
        agent_version=name,
        started_ns=2**63,
        coverage=(SensorCoverage(name, model.BlindReason.HOST_SILENT, 2**32),) * 1000,
        open_cases=2**32,
        spool_reports=2**63,
        spool_bytes=2**63,
        interval_s=0.1,
    )
    for body in (full, beat):
        payload = encode(dataclasses.replace(ONE, body=body))
        assert REPORT_BYTES // 8 < len(payload) <= REPORT_BYTES
        assert decode(payload).sequence == ONE.sequence


def _largest(kind: Any) -> Any:
    """Return a value of `kind` with every text, list and number at its limit."""
    fields = {}
    for name, hint in typing.get_type_hints(kind).items():
        where = f"{kind.__name__}.{name}"
        options = typing.get_args(hint) or (hint,)
        match options[0]:
            case inner if where in LIST_ENTRIES:
                fields[name] = (
                    tuple(inner)[:300] if issubclass(inner, enum.Enum) else (_largest(inner),) * 300
                )
            case inner if where in TEXT_BYTES:
                fields[name] = "a" * TEXT_BYTES[where]
            case inner if dataclasses.is_dataclass(inner):
                fields[name] = _largest(inner)
            case inner if issubclass(inner, enum.Enum):
                fields[name] = list(inner)[-1]
            case inner:
                fields[name] = inner(0.1) if inner is float else inner(2**63 - 1)
    return kind(**fields)


@pytest.mark.parametrize("kind", model.EVIDENCE_KINDS.values(), ids=list(model.EVIDENCE_KINDS))
def test_the_largest_evidence_of_each_kind_fits_a_report(kind: Any) -> None:
    """A case full of it, its names at their limits, is within the size of a report."""
    case = ONE.body
    assert isinstance(case, CaseReport)
    full = dataclasses.replace(
        case,
        subject=Subject(SubjectKind.UNIT, "n" * 5000),
        target=Subject(SubjectKind.UNIT, "n" * 5000),
        reasons=tuple(Reason(ReasonCode.NO_VIOLATION_SINCE, 2**63, n + 0.1, 0.1) for n in range(1000)),
        evidence=(_largest(kind),) * 1000,
    )
    assert len(encode(dataclasses.replace(ONE, body=full))) <= REPORT_BYTES


def test_a_number_of_a_newer_enum_is_unknown_and_kept() -> None:
    """An unknown fault class keeps its number there and back; other unknown members become UNKNOWN."""
    message = _message()
    message.case_report.fault_class = 4711
    message.case_report.severity = 99
    message.case_report.reasons[0].code = 4242
    case = decode(message.SerializeToString()).body
    assert isinstance(case, CaseReport)
    assert (case.fault_class, case.fault_number) == (FaultClass.UNKNOWN, 4711)
    assert case.severity is Severity.UNKNOWN
    assert case.reasons[0].code is ReasonCode.UNKNOWN
    assert decode(encode(dataclasses.replace(ONE, body=case))).body == case


def test_a_newer_kind_of_evidence_or_body_is_kept_as_unknown_with_its_size() -> None:
    """A oneof member that we do not know is a value of its own, never dropped."""
    newer = b"\x9a\x06\x05hello"  # field 99, five bytes
    message = _message()
    message.case_report.evidence.append(pb.Evidence.FromString(newer))
    case = decode(message.SerializeToString()).body
    assert isinstance(case, CaseReport)
    assert case.evidence[1] == UnknownEvidence(len(newer))

    message.ClearField("case_report")
    report = decode(message.SerializeToString() + newer)
    assert report == dataclasses.replace(ONE, body=UnknownBody(len(newer)))
    assert decode(encode(report)).body == UnknownBody(0)
    again = dataclasses.replace(ONE, body=dataclasses.replace(case, evidence=(UnknownEvidence(5),)))
    assert decode(encode(again)).body == dataclasses.replace(case, evidence=(UnknownEvidence(0),))


def test_fields_of_a_newer_version_are_ignored_and_survive_in_the_batch() -> None:
    """A known report with a field more is read as it is, and passed on byte for byte."""
    payload = encode(ONE) + b"\x9a\x06\x05hello"
    assert decode(payload) == ONE
    assert split(join([payload, payload])) == (payload, payload)


ENUMS = {
    name: wire
    for name, wire in vars(pb).items()
    if isinstance(wire, EnumTypeWrapper) and isinstance(getattr(model, name, None), enum.EnumMeta)
}


def test_every_enum_of_the_wire_has_one_in_the_model() -> None:
    """No wire enum is without its counterpart."""
    assert set(ENUMS) == set(pb.DESCRIPTOR.enum_types_by_name)


@pytest.mark.parametrize("name", sorted(pb.DESCRIPTOR.enum_types_by_name))
def test_both_sides_of_an_enum_have_the_same_members(name: str) -> None:
    """A member that only one side has fails here."""
    kind, wire = getattr(model, name), ENUMS[name]
    names = Names(kind, wire)
    assert sorted(names.number(member) for member in kind) == sorted(wire.values())
    assert all(names.member(names.number(member)) is member for member in kind)
    assert names.member(2**31 - 1) is kind.UNKNOWN


def test_an_enum_without_its_counterpart_is_an_error_when_loaded() -> None:
    """A model member that the wire lacks stops the table from being built."""
    odd = enum.StrEnum("Severity", {"UNKNOWN": "unknown", "DIRE": "dire"})
    with pytest.raises(ValueError, match="SEVERITY_DIRE"):
        Names(odd, pb.Severity)


@given(st.binary(max_size=400))
@example(b"")
@example(b"\x0a\xff\xff\xff\xff\x0f")
@settings(max_examples=500)
def test_random_bytes_are_refused_or_read(data: bytes) -> None:
    """Nothing but WireError comes out of any bytes."""
    for read in (decode, peek, split, decode_ack):
        try:
            read(data)
        except WireError:
            continue


@given(reports(), st.randoms(use_true_random=False))
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_mutated_reports_are_refused_or_read(report: Report, dice: random.Random) -> None:
    """A flipped bit, a cut or a repeated piece gives a value that can be written again, or WireError."""
    payload = bytearray(encode(report))
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(payload))
        match dice.randrange(3):
            case 0:
                payload[at] ^= 1 << dice.randrange(8)
            case 1:
                del payload[at : at + dice.randint(1, 8)]
            case _:
                payload[at:at] = payload[at : at + dice.randint(1, 64)]
        if not payload:
            return
    try:
        value = decode(bytes(payload))
    except WireError:
        return
    assert isinstance(encode(value), bytes)


def test_hostile_batches_take_bounded_time_and_memory() -> None:
    """Too many bytes or reports are refused, cheaply; the fullest legal batch is read."""
    with pytest.raises(WireError, match=f"ReportBatch: {BATCH_BYTES + 2} bytes, at most {BATCH_BYTES}"):
        split(b"\x0a\x00" * (BATCH_BYTES // 2 + 1))
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(WireError, match=f"entries, at most {BATCH_REPORTS}"):
        split(b"\x0a\x00" * (BATCH_BYTES // 2))
    assert time.perf_counter() - started < 1.0
    assert tracemalloc.get_traced_memory()[1] < 2 * BATCH_BYTES
    tracemalloc.stop()
    assert len(split(join([encode(ONE)] * BATCH_REPORTS))) == BATCH_REPORTS
    assert LIST_ENTRIES["OpaqueBatch.reports"] == LIST_ENTRIES["ReportBatch.reports"]


def test_a_deeply_nested_message_is_refused() -> None:
    """Groups within groups end at the parser's depth, not at the stack's."""
    with pytest.raises(WireError, match="is not a protobuf message"):
        decode(b"\x9b\x06" * 10_000)


def test_an_acknowledgement_comes_back_equal() -> None:
    """An Ack is a boot id and a number, checked like any other."""
    assert decode_ack(encode_ack(Committed(BOOT, 9))) == Committed(BOOT, 9)
    with pytest.raises(WireError, match=r"Ack\.boot_id: is not a lower-case UUID"):
        decode_ack(b"")


def test_a_lost_count_is_carried() -> None:
    """A loss account says what, how many and whether that is exact."""
    body = Loss(LossKind.RING_FULL, "kernel.device_open", 17, exact=True)
    assert decode(encode(dataclasses.replace(ONE, body=body))).body == body
