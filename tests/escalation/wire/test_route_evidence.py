"""Evidence about model routes on the wire: its limits, what is not said, and peers that do not know it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from escalation.model import (
    AgentId,
    BootId,
    CaseReport,
    Evidence,
    FaultClass,
    FlightEvidence,
    PromptSizeEvidence,
    Reason,
    ReasonCode,
    Report,
    RouteEvidence,
    RouteId,
    RouteKind,
    ServerKind,
    Subject,
    SubjectKind,
    UnknownEvidence,
)
from escalation.server.testing import case_report
from escalation.wire import escalation_pb2 as pb
from escalation.wire.codec import WireError, decode, encode

_FIRST = Path(__file__).parents[2] / "golden/descriptors/v1-0001.binpb"
_ROUTE = RouteId(8000, RouteKind.CHAT_COMPLETIONS, "qwen3-32b", ServerKind.VLLM)
_EXCHANGES = RouteEvidence(
    id=_ROUTE, window_s=600.0, exchanges=40, affected=12, affected_streamed=9, unobserved=2
)
_FLIGHT = FlightEvidence(
    id=_ROUTE,
    requests=2,
    waiting=1,
    oldest_s=300.0,
    silent_s=200.0,
    patience_s=120.0,
    largest_request_bytes=9000,
)
_SIZES = PromptSizeEvidence(
    id=_ROUTE, window_s=900.0, split_bytes=65_536, small=9, small_failed=0, large=9, large_failed=8
)


def _report(*evidence: Evidence) -> Report:
    body = case_report(
        fault_class=FaultClass.ROUTE_EMPTY_COMPLETION,
        subject=Subject(SubjectKind.ROUTE, "8000/chat_completions qwen3-32b"),
        reasons=(Reason(ReasonCode.ANSWERS_EMPTY, 12, 0.2, 600.0),),
        evidence=evidence,
    )
    return Report(
        agent_id=AgentId("spark-a"),
        boot_id=BootId("0b5e9c1e-8f43-5a53-9d2e-6f0a86f0e4a1"),
        sequence=7,
        created_ns=1,
        body=body,
    )


def _back(*evidence: Evidence) -> tuple[Evidence, ...]:
    body = decode(encode(_report(*evidence))).body
    assert isinstance(body, CaseReport)
    return body.evidence


def _spoilt(field: str, **values: Any) -> bytes:
    message = pb.Report.FromString(encode(_report(_EXCHANGES)))
    route = message.case_report.evidence[0].route
    for name, value in values.items():
        setattr(route.id if field == "id" else route, name, value)
    return message.SerializeToString()


def test_nothing_said_is_not_zero() -> None:
    """What was not measured stays unknown, and a measured zero stays a zero."""
    zero = replace(_EXCHANGES, completion_tokens=0, max_tokens=0, measured=0.0, baseline=0.0)
    assert _back(_EXCHANGES, zero, _FLIGHT, _SIZES) == (_EXCHANGES, zero, _FLIGHT, _SIZES)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_was_not_measured(value: float) -> None:
    """A share or a time that is not finite is left out, not turned into a zero."""
    (back,) = _back(replace(_EXCHANGES, measured=value, baseline=value))
    assert back == _EXCHANGES


def test_a_model_has_room_for_an_identifier_only() -> None:
    """A longer name is cut and marked by its writer, and refused by its reader."""
    long = replace(_ROUTE, model="m" * 500)
    (back,) = _back(replace(_EXCHANGES, id=long))
    assert isinstance(back, RouteEvidence)
    assert len(back.id.model) == 200
    with pytest.raises(WireError, match=r"RouteId\.model: 201 bytes, at most 200"):
        decode(_spoilt("id", model="m" * 201))


@pytest.mark.parametrize(
    ("field", "values", "complaint"),
    [
        ("id", {"port": 65_536}, "RouteId.port: is 65536"),
        ("route", {"affected": 2**63}, "RouteEvidence.affected"),
        ("route", {"window_s": math.nan}, "RouteEvidence.window_s"),
        ("route", {"measured": math.inf}, "RouteEvidence.measured"),
    ],
)
def test_a_field_outside_its_limit_is_refused_by_name(
    field: str, values: dict[str, Any], complaint: str
) -> None:
    """The complaint says which field it was."""
    with pytest.raises(WireError, match=complaint):
        decode(_spoilt(field, **values))


def test_a_server_or_route_of_a_newer_agent_is_unknown() -> None:
    """A number that is not known here costs the word, not the report."""
    body = decode(_spoilt("id", server=99, route=99)).body
    assert isinstance(body, CaseReport)
    (back,) = body.evidence
    assert back == replace(_EXCHANGES, id=replace(_ROUTE, server=ServerKind.UNKNOWN, route=RouteKind.UNKNOWN))


def test_an_older_orchestrator_loses_nothing() -> None:
    """Read and written again by the first recorded version, a report of today is still the same report."""
    (file,) = FileDescriptorSet.FromString(_FIRST.read_bytes()).file
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    old = message_factory.GetMessageClass(pool.FindMessageTypeByName("nanobot.v1.Report"))
    report = _report(_EXCHANGES, _FLIGHT, _SIZES)
    seen = old.FromString(encode(report))
    assert [piece.WhichOneof("kind") for piece in seen.case_report.evidence] == [None, None, None]
    assert seen.case_report.fault_class == pb.FAULT_CLASS_ROUTE_EMPTY_COMPLETION
    assert decode(seen.SerializeToString()) == report


def test_evidence_of_a_newer_agent_is_counted() -> None:
    """A kind of evidence that nobody here knows is counted by its size."""
    message = pb.Report.FromString(encode(_report(_EXCHANGES)))
    newer = bytes([0xFA, 0x01, 3]) + b"abc"  # field 31, three bytes
    message.case_report.evidence[0].ParseFromString(newer)
    body = decode(message.SerializeToString()).body
    assert isinstance(body, CaseReport)
    assert body.evidence == (UnknownEvidence(len(newer)),)
