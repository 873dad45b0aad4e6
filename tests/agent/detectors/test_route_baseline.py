"""route.errors_rising and route.latency_rising: what has left the usual, and what only looks like it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from agent.testing import at, blind, origin, seeing
from escalation.model import ReasonCode, Severity
from probes.http.facts import Ending, ErrorKind, ExchangeFacts, Route, UnobservedFacts, UnobservedReason
from probes.observation import Unobserved
from tests.agent.detectors.route_traffic import (
    ERRORS,
    FAILED,
    GOOD,
    LATENCY,
    NAME,
    SENSOR,
    SUBJECT,
    Watched,
    always,
    cleared,
    healthy,
    opened,
    route_evidence,
    slow,
    steady,
)


@pytest.fixture
def watched() -> Watched:
    """A host that has seen three hours of healthy traffic on one route."""
    return healthy()


def test_failures_above_the_usual_share_open_a_case(watched: Watched) -> None:
    """A third fails that never failed: after three minutes, with both shares as evidence."""
    (case,) = opened(watched.run(4, steady(failing=0.35, seed=2)))
    assert (case.fault_class, case.subject, case.severity) == (ERRORS, SUBJECT, Severity.MEDIUM)
    assert [reason.code for reason in case.reasons] == [ReasonCode.ERRORS_ABOVE_BASELINE]
    evidence = route_evidence(case)
    assert evidence.measured == pytest.approx(0.35, abs=0.12)
    assert evidence.baseline == pytest.approx(0.0, abs=0.01)
    assert (evidence.exchanges, evidence.affected_streamed) == (60, 0)
    assert evidence.affected == round(evidence.measured * 60) if evidence.measured else False


def test_a_route_that_fails_half_the_time_is_high(watched: Watched) -> None:
    """Severity follows the share."""
    (case,) = opened(watched.run(4, steady(failing=0.8)))
    assert case.severity is Severity.HIGH


@pytest.mark.parametrize(
    "bad",
    [
        replace(GOOD, ending=Ending.CUT),
        replace(GOOD, ending=Ending.UNTERMINATED),
        replace(GOOD, status=0, ending=Ending.CUT, streamed=False, first_token_s=None),
        replace(GOOD, error_in_answer=True, error=ErrorKind.SERVER),
        replace(FAILED, status=502, error=ErrorKind.UPSTREAM),
        replace(FAILED, status=504, error=None),
    ],
)
def test_every_way_to_fail_counts(watched: Watched, bad: ExchangeFacts) -> None:
    """Cut, never ended, no answer at all, an error inside an answer, and every status from 500 on."""
    (case,) = opened(watched.run(4, always(*[GOOD] * 12, *[bad] * 8)))
    assert case.fault_class is ERRORS


@pytest.mark.parametrize(
    "odd",
    [
        replace(FAILED, status=400, error=ErrorKind.BAD_REQUEST),
        replace(FAILED, status=401, error=ErrorKind.UNAUTHORIZED),
        replace(FAILED, status=404, error=ErrorKind.UNKNOWN_MODEL),
        replace(FAILED, status=422, error=None),
        replace(FAILED, status=429, error=ErrorKind.RATE_LIMITED),
        replace(FAILED, status=429, error=None),
        replace(FAILED, status=503, error=ErrorKind.OVERLOADED),
        replace(FAILED, status=503, error=ErrorKind.LOADING),
        replace(FAILED, status=500, error=ErrorKind.NO_DEPLOYMENTS),
        replace(FAILED, status=500, error=ErrorKind.CONTEXT_OVERFLOW),
        replace(GOOD, ending=Ending.CANCELLED),
        replace(GOOD, ending=Ending.IDLE),
        replace(FAILED, name=replace(NAME, route=Route.OTHER)),
    ],
)
def test_what_is_the_clients_or_another_detectors_stays_quiet(watched: Watched, odd: ExchangeFacts) -> None:
    """However many there are of them, they are no failures of the route."""
    assert watched.run(30, always(*[GOOD] * 12, *[odd] * 40)) == []


def test_a_share_that_was_always_so_stays_quiet() -> None:
    """A route that loses one answer in eight has done so since it was known."""
    assert Watched().run(600, steady(failing=0.12, seed=3)) == []


def test_a_burst_of_failures_stays_quiet(watched: Watched) -> None:
    """Two bad minutes are a restart, not a rise."""
    assert watched.run(2, steady(failing=0.9)) == []
    assert watched.run(30, steady()) == []


def test_single_failures_stay_quiet(watched: Watched) -> None:
    """One in twenty each minute is not the practical effect that a case takes."""
    assert watched.run(120, always(FAILED, *[GOOD] * 19)) == []


def test_a_first_token_twice_as_late_opens_a_case(watched: Watched) -> None:
    """Both medians are in the evidence, in seconds."""
    (case,) = opened(watched.run(9, steady(first_token_s=1.6, seed=4)))
    assert (case.fault_class, case.subject, case.severity) == (LATENCY, SUBJECT, Severity.MEDIUM)
    assert [reason.code for reason in case.reasons] == [ReasonCode.FIRST_TOKEN_ABOVE_BASELINE]
    evidence = route_evidence(case)
    assert evidence.measured == pytest.approx(1.6, rel=0.15)
    assert evidence.baseline == pytest.approx(0.4, rel=0.15)
    assert evidence.affected == evidence.affected_streamed > 50


@pytest.mark.parametrize("counted", [True, False])
def test_tokens_that_come_slowly_open_a_case(*, counted: bool) -> None:
    """The pace is judged where the server counts tokens, and by chunks where it does not."""
    host = Watched()
    tokens = 200 if counted else None
    assert host.run(120, always(*[replace(slow(0.4), completion_tokens=tokens)] * 15)) == []
    (case,) = opened(host.run(9, always(*[replace(slow(0.4, pace=15.0), completion_tokens=tokens)] * 15)))
    assert case.fault_class is LATENCY
    assert [reason.code for reason in case.reasons] == [ReasonCode.PACE_BELOW_BASELINE]
    evidence = route_evidence(case)
    assert (evidence.measured, evidence.baseline) == (pytest.approx(15.0), pytest.approx(50.0))


def test_clients_that_stop_asking_for_the_count_are_no_change_of_pace(watched: Watched) -> None:
    """With several tokens in a chunk, chunks come more slowly than tokens: they are not compared."""
    few = replace(slow(0.4), chunks=60, completion_tokens=None)
    assert watched.run(200, always(*[few] * 15)) == []


def test_faster_is_no_fault(watched: Watched) -> None:
    """A smaller model or a better cache is welcome."""
    assert watched.run(60, always(*[slow(0.05, pace=200.0)] * 15)) == []


def test_twice_a_little_is_no_practical_effect() -> None:
    """From 60 to 200 ms is three times as slow, and nobody waits for it."""
    host = Watched()
    assert host.run(180, steady(first_token_s=0.06)) == []
    assert host.run(60, steady(first_token_s=0.2)) == []


def test_larger_prompts_may_take_longer(watched: Watched) -> None:
    """Twenty times the prompt, fifteen times the wait: that is work, not a fault."""
    assert watched.run(60, always(*[slow(6.0, request_bytes=80_000)] * 15)) == []


def test_larger_prompts_do_not_excuse_everything(watched: Watched) -> None:
    """Twice the prompt is not a reason for twenty times the wait."""
    (case,) = opened(watched.run(9, always(*[slow(8.0, request_bytes=8_000)] * 15)))
    assert case.fault_class is LATENCY
    assert route_evidence(case).baseline == pytest.approx(0.4, rel=0.2)
    assert case.reasons[0].threshold == pytest.approx(1.6, rel=0.2)


def test_a_case_of_large_prompts_stays_open_while_they_are_slow(watched: Watched) -> None:
    """What is usual is told for requests of the usual size, so their size excuses nothing twice."""
    assert len(opened(watched.run(9, always(*[slow(8.0, request_bytes=12_000)] * 15)))) == 1
    assert cleared(watched.run(60, always(*[slow(8.0, request_bytes=12_000)] * 15))) == []


def test_a_mixture_of_sizes_that_shifts_stays_quiet() -> None:
    """Small prompts answered at once and large ones after ten seconds, now more of one, now of the other."""
    host = Watched()
    source = random.Random(5)

    def mixed(minute: int) -> list[ExchangeFacts]:
        large = 0.2 if minute // 30 % 2 else 0.8
        return [
            slow(10.0, request_bytes=200_000) if source.random() < large else slow(0.3) for _ in range(15)
        ]

    assert host.run(600, mixed) == []


def test_a_single_huge_prompt_stays_quiet(watched: Watched) -> None:
    """One of a minute's twenty, every minute."""
    assert watched.run(60, always(*[GOOD] * 19, slow(120.0, request_bytes=900_000))) == []


def test_a_cold_start_after_an_idle_time_stays_quiet(watched: Watched) -> None:
    """Nobody asks for an hour, then everybody waits for the model to be loaded, once."""
    assert watched.run(60, always()) == []
    assert watched.run(1, always(*[slow(45.0)] * 30)) == []
    assert watched.run(30, steady()) == []


def test_too_little_traffic_stays_quiet(watched: Watched) -> None:
    """Nine exchanges in a quarter of an hour say nothing, whatever they are."""
    bad = always(FAILED)
    assert watched.run(600, lambda minute: bad(minute) if minute % 2 == 0 else ()) == []


def test_a_minute_grows_until_it_holds_enough(watched: Watched) -> None:
    """Two exchanges a minute make a bucket of five minutes, and three of those a case."""
    (case,) = opened(watched.run(20, always(FAILED, FAILED)))
    assert case.fault_class is ERRORS
    assert route_evidence(case).exchanges == 30


def test_clears_when_it_is_back_and_not_before(watched: Watched) -> None:
    """Five good minutes and the hold; the reason says against what."""
    watched.run(10, steady(failing=0.5))
    assert watched.run(9, steady()) == []
    (case,) = cleared(watched.run(3, steady()))
    assert case.fault_class is ERRORS
    assert [reason.code for reason in case.reasons] == [ReasonCode.BACK_AT_BASELINE]


def test_latency_clears_when_the_first_token_is_back(watched: Watched) -> None:
    """And a relapse within the hold keeps the case open."""
    watched.run(10, steady(first_token_s=3.0))
    watched.run(6, steady())
    assert cleared(watched.run(3, steady(first_token_s=3.0))) == []
    (case,) = cleared(watched.run(14, steady()))
    assert case.fault_class is LATENCY


def test_silence_does_not_clear(watched: Watched) -> None:
    """A route that nobody uses any more may still be broken."""
    watched.run(10, steady(failing=0.5))
    assert watched.run(600, always()) == []
    assert len(watched.book.open_cases((ERRORS,))) == 1


def test_keeps_open_when_source_goes_blind(watched: Watched) -> None:
    """Good minutes before and after the blindness are not in a row, and a clearing is taken back."""
    watched.run(10, steady(failing=0.5))
    watched.run(7, steady())
    watched.see(blind(watched.minute * 60, SENSOR))
    assert watched.run(30, always()) == []
    watched.see(seeing(watched.minute * 60, SENSOR))
    assert watched.run(8, steady()) == []
    assert len(cleared(watched.run(4, steady()))) == 1


def test_unobserved_traffic_is_in_the_evidence(watched: Watched) -> None:
    """How much of the port could not be judged is said beside what was."""
    facts = UnobservedFacts(port=8000, reason=UnobservedReason.LOST, count=7, at_ns=0)
    watched.see(Unobserved(SENSOR, at(watched.minute * 60), origin(), facts))
    (case,) = opened(watched.run(4, steady(failing=0.5)))
    assert route_evidence(case).unobserved == 7
