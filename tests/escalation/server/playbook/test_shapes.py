"""From the traffic of a route to what an operator reads: every fault ends in an advice within its ceiling."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from agent.cases import CaseBook
from agent.detector import World
from agent.detectors.registry import DETECTORS
from agent.judge import Judge, hysteresis_of
from agent.testing import HOST, KERNEL_BOOT, SURROUNDINGS, seeing
from dev.route_shapes import BAD, Shape
from escalation.inert import harmless
from escalation.model import (
    ActionKind,
    BootId,
    CasePhase,
    CaseReport,
    FaultClass,
    Incident,
    ReasonCode,
    Report,
    UnknownEvidence,
)
from escalation.server.incident import incidents
from escalation.server.playbook.registry import advise
from escalation.server.testing import START_NS
from escalation.wire.codec import decode, encode
from escalation.wording.evidence import fact
from escalation.wording.reason import sentence

_LOOK = frozenset({ActionKind.INSPECT})
_CEILINGS: Mapping[FaultClass, frozenset[ActionKind]] = {
    FaultClass.ROUTE_EMPTY_COMPLETION: _LOOK | {ActionKind.REMOVE_ROUTE},
    FaultClass.ROUTE_DEGENERATE_OUTPUT: _LOOK | {ActionKind.REMOVE_ROUTE},
    FaultClass.ROUTE_REASONING_BUDGET_EXHAUSTED: _LOOK | {ActionKind.CHANGE_SETTING},
    FaultClass.ROUTE_ANSWER_MISROUTED: _LOOK | {ActionKind.CHANGE_SETTING},
    FaultClass.ROUTE_CONTEXT_OVERFLOW: _LOOK | {ActionKind.CHANGE_SETTING},
    FaultClass.ROUTE_FAILS_REAL_TRAFFIC: _LOOK | {ActionKind.CHANGE_SETTING},
    FaultClass.ROUTE_ENGINE_STALLED: _LOOK | {ActionKind.RESTART_CONTAINER, ActionKind.RESTART_UNIT},
    FaultClass.ROUTE_BROKEN_STREAM: _LOOK,
    FaultClass.ROUTE_ROUTER_COOLDOWN: _LOOK,
    FaultClass.ROUTE_SATURATED: _LOOK,
    FaultClass.ROUTE_ERRORS_RISING: _LOOK,
    FaultClass.ROUTE_LATENCY_RISING: _LOOK,
}


def _incidents_of(shape: Shape) -> list[Incident]:
    """Return what the orchestrator makes of what an agent with all its detectors says about `shape`."""
    detectors = [kind.build(kind.SETTINGS(), SURROUNDINGS) for kind in DETECTORS]
    book = CaseBook(agent_id=HOST, kernel_boot_id=KERNEL_BOOT, hysteresis=hysteresis_of(detectors))
    judge = Judge(detectors=detectors, book=book, failed=_fail)
    newest: dict[str, CaseReport] = {}
    for observation in (seeing(0, "http.routes"), *shape.says()):
        told = [*judge.tick(observation.at, World()).bodies]
        told += judge.observe([observation], observation.at).bodies
        newest |= {body.case_id: body for body in told if body.phase is not CasePhase.CLEARED}
    return [_incident(number, body) for number, body in enumerate(newest.values(), start=1)]


def _incident(number: int, body: CaseReport) -> Incident:
    boot = BootId("0b5e9c1e-8f43-5a53-9d2e-6f0a86f0e4a1")
    report = decode(
        encode(Report(agent_id=HOST, boot_id=boot, sequence=number, created_ns=START_NS, body=body))
    )
    assert report.body == body
    folding = incidents.fold(report, body, case=None, incident=None, standing=None, now_ns=START_NS)
    assert folding is not None
    return folding.incident


def _fail(_detector: str, error: Exception) -> None:
    raise error


@pytest.mark.parametrize("shape", BAD, ids=lambda shape: shape.name)
def test_every_fault_of_a_route_ends_in_an_advice_within_its_ceiling(shape: Shape) -> None:
    """Over the wire and back, in words, and never with more than the catalogue allows for its certainty."""
    found = _incidents_of(shape)
    assert {each.fault_class for each in found} >= shape.opens
    for incident in found:
        action = advise(incident).action
        assert action.kind in _CEILINGS[incident.fault_class]
        if any(reason.code is ReasonCode.SECOND_LAYER_UNKNOWN for reason in incident.reasons):
            assert action.kind is ActionKind.INSPECT
        assert incident.evidence
        assert not any(isinstance(piece, UnknownEvidence) for piece in incident.evidence)
        words = [*map(fact, incident.evidence), *map(sentence, incident.reasons)]
        assert all(map(harmless, words))
        assert not any("does not know" in text for text in words)


def test_every_fault_of_a_route_has_a_ceiling() -> None:
    """A class that is new has to be thought about here."""
    assert {fault for fault in FaultClass if fault.value.startswith("route.")} == set(_CEILINGS)
