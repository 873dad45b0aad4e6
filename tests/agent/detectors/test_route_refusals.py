"""F10 and F11: requests that are turned away, and what only looks like it."""

from __future__ import annotations

from typing import Any

import pytest

from agent.detectors.route_refusals import Config, RouteRefusals
from agent.finding import Verdict
from agent.testing import (
    SURROUNDINGS,
    blind,
    exchange,
    in_flight,
    open_case,
    present,
    route_evidence,
    seeing,
    server_metrics,
    tick,
)
from escalation.model import FaultClass, ReasonCode, Severity, Subject, SubjectKind
from probes.http.facts import Ending, ErrorKind, Route
from probes.observation import ServerKind

SENSOR = "http.routes"
COOLDOWN = FaultClass.ROUTE_ROUTER_COOLDOWN
SATURATED = FaultClass.ROUTE_SATURATED
ROUTE = Subject(SubjectKind.ROUTE, "8000/chat_completions qwen3-32b")
COOLING: dict[str, Any] = {"status": 429, "error": ErrorKind.NO_DEPLOYMENTS}
BUSY: dict[str, Any] = {"status": 503, "error": ErrorKind.OVERLOADED}
LIMITED: dict[str, Any] = {"status": 429, "error": ErrorKind.RATE_LIMITED}


@pytest.fixture
def detector() -> RouteRefusals:
    """A detector with its default settings whose sensor sees."""
    made = RouteRefusals.build(Config(), SURROUNDINGS)
    made.observe(seeing(0, SENSOR))
    return made


@pytest.mark.parametrize(
    ("facts", "fault", "code"),
    [
        (COOLING, COOLDOWN, ReasonCode.DEPLOYMENTS_COOLING),
        (BUSY, SATURATED, ReasonCode.REFUSED_AS_BUSY),
        ({**BUSY, "status": 200, "error_in_answer": True}, SATURATED, ReasonCode.REFUSED_AS_BUSY),
    ],
)
def test_fifth_refusal_is_a_case(
    detector: RouteRefusals, facts: dict[str, Any], fault: FaultClass, code: ReasonCode
) -> None:
    """On a route that was served before."""
    assert present(detector, exchange(0), *(exchange(n, **facts) for n in range(1, 5))) == []
    (found,) = present(detector, exchange(5, **facts))
    assert (found.fault_class, found.subject, found.severity) == (fault, ROUTE, Severity.MEDIUM)
    assert (found.reasons[0].code, found.reasons[0].count) == (code, 5)


def test_model_that_was_never_served_is_a_typing_mistake(detector: RouteRefusals) -> None:
    """The router's text is the same; neither many tries nor another model's success change that."""
    for n in range(100):
        assert present(detector, exchange(n), exchange(n, model="qwen3-32", **COOLING)) == []


def test_rate_limit_is_a_note(detector: RouteRefusals) -> None:
    """Somebody set it, and it does its work."""
    (found,) = present(detector, *(exchange(n, **LIMITED) for n in range(5)))
    assert (found.fault_class, found.severity) == (SATURATED, Severity.NOTE)


def test_queue_is_said_beside_the_refusals(detector: RouteRefusals) -> None:
    """How many wait, if that was told just now."""
    detector.observe(in_flight(0, requests=9, waiting=7))
    (found,) = present(detector, *(exchange(n, **BUSY) for n in range(5)))
    assert [(reason.code, reason.count) for reason in found.reasons] == [
        (ReasonCode.REFUSED_AS_BUSY, 5),
        (ReasonCode.REQUESTS_QUEUE, 7),
    ]
    (found,) = present(detector, exchange(60, **BUSY))
    assert ReasonCode.REQUESTS_QUEUE not in [reason.code for reason in found.reasons]


def test_full_server_that_refuses_nothing_stays_quiet(detector: RouteRefusals) -> None:
    """A long queue and slow answers are not this fault."""
    for n in range(100):
        assert present(detector, in_flight(n, requests=200, waiting=190, oldest_s=90)) == []
        assert present(detector, exchange(n, duration_s=120.0, first_byte_s=90.0)) == []


@pytest.mark.parametrize(
    "facts",
    [
        {"status": 503, "error": ErrorKind.LOADING},
        {"status": 500, "error": ErrorKind.SERVER},
        {"status": 404, "error": ErrorKind.UNKNOWN_MODEL},
        {"status": 401, "error": ErrorKind.UNAUTHORIZED},
        {"ending": Ending.CANCELLED},
        {**BUSY, "route": Route.OTHER},
    ],
)
def test_other_failures_stay_quiet(detector: RouteRefusals, facts: dict[str, Any]) -> None:
    """A model that loads, a wrong name, a wrong key, a client that leaves."""
    assert present(detector, exchange(0), *(exchange(n, **facts) for n in range(1, 50))) == []


def test_refusal_now_and_then_stays_quiet(detector: RouteRefusals) -> None:
    """One in thirty."""
    said = (exchange(n, **(BUSY if n % 30 == 0 else {})) for n in range(1, 600))
    assert present(detector, *said) == []


@pytest.mark.parametrize(("fault", "facts"), [(COOLDOWN, COOLING), (SATURATED, BUSY)])
def test_clears_with_good_answers(detector: RouteRefusals, fault: FaultClass, facts: dict[str, Any]) -> None:
    """Ten in a row since the last refusal."""
    case = open_case(fault, ROUTE, evidence=(route_evidence(),))
    for n in range(20):
        detector.observe(exchange(n, **(facts if n == 10 else {})))
    assert detector.tick(tick(30, case)) == []
    detector.observe(exchange(31))
    (over,) = detector.tick(tick(32, case))
    assert (over.verdict, over.reasons[0].code) == (Verdict.ABSENT, ReasonCode.ANSWERS_GOOD_AGAIN)


def test_silence_never_clears(detector: RouteRefusals) -> None:
    """Clients that have gone away are no proof."""
    assert detector.tick(tick(30 * 86400, open_case(SATURATED, ROUTE))) == []


def test_keeps_open_when_source_goes_blind(detector: RouteRefusals) -> None:
    """Blindness is unknown, and parts the row of good answers; what was served is not forgotten."""
    for n in range(9):
        detector.observe(exchange(n))
    unknown = detector.observe(blind(10, SENSOR))
    assert [found.verdict for found in unknown] == [Verdict.UNKNOWN] * 2
    detector.observe(exchange(11))
    case = open_case(SATURATED, ROUTE, evidence=(route_evidence(),))
    assert detector.tick(tick(30, case)) == []
    assert len(present(detector, *(exchange(40 + n, **COOLING) for n in range(5)))) == 1


def test_memory_is_bounded_by_ports(detector: RouteRefusals) -> None:
    """A host that opens many ports costs what a few do."""
    for port in range(1, 500):
        detector.observe(in_flight(1, port=port))
    assert len(detector._waiting) == 64


def test_the_routers_own_state_agrees(detector: RouteRefusals) -> None:
    """A complete outage that LiteLLM counts itself stands among the reasons."""
    detector.observe(server_metrics(1, port=8000, server=ServerKind.LITELLM, deployment_state=2))
    good = [exchange(2 + n) for n in range(3)]
    refused = [exchange(10 + n, **COOLING) for n in range(12)]
    found = present(detector, *good, *refused)
    assert ReasonCode.METRICS_AGREE in {reason.code for reason in found[0].reasons}
