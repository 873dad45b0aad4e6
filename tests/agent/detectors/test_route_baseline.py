"""route.errors_rising and route.latency_rising: what has left the usual, and what only looks like it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from agent.cases import CaseBook
from agent.detector import World
from agent.detectors.route_baseline import ROUTES, Config, RouteBaseline
from agent.judge import Judge, hysteresis_of
from agent.testing import HOST, KERNEL_BOOT, SURROUNDINGS, at, blind, origin, seeing
from escalation.model import (
    CasePhase,
    CaseReport,
    FaultClass,
    ReasonCode,
    RouteEvidence,
    Severity,
    Subject,
    SubjectKind,
)
from probes.http.facts import (
    Ending,
    ErrorKind,
    ExchangeFacts,
    Route,
    RouteName,
    UnobservedFacts,
    UnobservedReason,
)
from probes.observation import Exchange, SensorName, Unobserved

ERRORS = FaultClass.ROUTE_ERRORS_RISING
LATENCY = FaultClass.ROUTE_LATENCY_RISING
NAME = RouteName(8000, Route.CHAT_COMPLETIONS, "qwen3-32b")
SUBJECT = Subject(SubjectKind.ROUTE, "8000/chat_completions qwen3-32b")
SENSOR = SensorName("http.routes")
DAY = 1440

GOOD = ExchangeFacts(
    name=NAME,
    at_ns=0,
    cgroup_id=2305,
    status=200,
    ending=Ending.COMPLETE,
    streamed=True,
    request_bytes=4000,
    duration_s=4.4,
    first_token_s=0.4,
    chunks=200,
    completion_tokens=200,
)
FAILED = replace(GOOD, status=500, streamed=False, first_token_s=None, error=ErrorKind.SERVER)

Minute = Callable[[int], Iterable[ExchangeFacts]]


def slow(first_token_s: float, *, pace: float = 50.0, request_bytes: int = 4000) -> ExchangeFacts:
    """Return a good answer of 200 tokens with that time to the first and that many a second."""
    return replace(
        GOOD,
        first_token_s=first_token_s,
        duration_s=first_token_s + 200.0 / pace,
        request_bytes=request_bytes,
    )


class Watched:
    """A host whose routes are judged: traffic by the minute goes in, reports come out."""

    def __init__(self, **settings: float) -> None:
        self.detector = RouteBaseline.build(Config(**settings), SURROUNDINGS)  # type: ignore[arg-type]
        self.book = self._book()
        self.judge = Judge(detectors=(self.detector,), book=self.book, failed=self._failed)
        self.minute = 0

    def _book(self) -> CaseBook:
        return CaseBook(agent_id=HOST, kernel_boot_id=KERNEL_BOOT, hysteresis=hysteresis_of((self.detector,)))

    def _failed(self, name: str, error: Exception) -> None:
        raise AssertionError(name) from error

    def restart(self, *, remember: bool) -> None:
        """Begin with a new detector, whose cases are known and whose baselines are or are not."""
        memory, notes = self.detector.memory(), self.book.notes()
        self.detector = RouteBaseline.build(Config(), SURROUNDINGS)
        if remember:
            assert self.detector.recall(memory) == 0
        self.book = self._book()
        self.book.restore(notes, at(self.minute * 60))
        self.judge = Judge(detectors=(self.detector,), book=self.book, failed=self._failed)

    def see(self, *observations: object) -> None:
        """Give `observations` as they are."""
        self.judge.observe(observations, at(self.minute * 60))  # type: ignore[arg-type]

    def run(self, minutes: int, traffic: Minute) -> list[CaseReport]:
        """Let `minutes` pass with that traffic; return the reports of it."""
        reports: list[CaseReport] = []
        for _ in range(minutes):
            facts = list(traffic(self.minute))
            start = self.minute * 60.0
            for place, one in enumerate(facts):
                moment = at(start + 55.0 * place / max(1, len(facts)))
                exchange = Exchange(SENSOR, moment, origin(), replace(one, at_ns=moment.boot_ns))
                reports += self.judge.observe((exchange,), moment).bodies
            self.minute += 1
            reports += self.judge.tick(at(self.minute * 60.0 + 0.01), World()).bodies
        return reports


def steady(*, count: int = 20, first_token_s: float = 0.4, failing: float = 0.0, seed: int = 1) -> Minute:
    """Return traffic of `count` exchanges a minute that vary as real ones do."""
    source = random.Random(seed)

    def minute(_: int) -> list[ExchangeFacts]:
        return [
            FAILED
            if source.random() < failing
            else slow(first_token_s * source.lognormvariate(0.0, 0.3), pace=50.0 * source.uniform(0.8, 1.2))
            for _ in range(count)
        ]

    return minute


def always(*facts: ExchangeFacts) -> Minute:
    """Return the same traffic every minute."""
    return lambda _: facts


@pytest.fixture
def watched() -> Watched:
    """A host that has seen three hours of healthy traffic on one route."""
    host = Watched()
    assert host.run(180, steady()) == []
    return host


def opened(reports: Iterable[CaseReport]) -> list[CaseReport]:
    """Return the cases that were opened."""
    return [report for report in reports if report.phase is CasePhase.OPENED]


def cleared(reports: Iterable[CaseReport]) -> list[CaseReport]:
    """Return the cases that were cleared."""
    return [report for report in reports if report.phase is CasePhase.CLEARED]


def route_evidence(report: CaseReport) -> RouteEvidence:
    """Return the newest evidence of a report."""
    evidence = report.evidence[0]
    assert isinstance(evidence, RouteEvidence)
    return evidence


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


def test_nothing_is_judged_before_enough_was_learnt() -> None:
    """A route that is new cannot be worse than usual."""
    host = Watched()
    assert host.run(25, steady()) == []
    assert host.run(30, steady(failing=0.9)) == []


def daily(minute: int) -> list[ExchangeFacts]:
    """Return the traffic of a route that is four times as slow from eight to six."""
    busy = 8 <= minute // 60 % 24 < 18
    source = random.Random(minute)
    return [slow((1.6 if busy else 0.4) * source.lognormvariate(0.0, 0.2)) for _ in range(12)]


def test_a_daily_season_stays_quiet_once_it_is_known() -> None:
    """The same slow hours every day are news at most in the first days."""
    host = Watched()
    assert len(opened(host.run(4 * DAY, daily))) <= 3
    assert opened(host.run(4 * DAY, daily)) == []


def uneven(seed: int, *, per_minute: float = 12.0) -> Minute:
    """Return traffic with a season, a load that wanders, waits that scatter, and a fifth of large prompts."""
    source = random.Random(seed)
    load = 0.0

    def minute(number: int) -> list[ExchangeFacts]:
        nonlocal load
        load = 0.985 * load + source.gauss(0.0, 0.06)
        busy = load + 0.5 * math.sin((number / 60 % 24 - 8) / 24 * 2 * math.pi)
        exchanges = []
        for _ in range(max(0, round(source.gauss(per_minute * math.exp(busy), 3)))):
            large = source.random() < 0.2
            size = int(source.lognormvariate(11.5, 0.7) if large else source.lognormvariate(8.5, 1.0))
            cached = source.random() < 0.4
            wait_s = 0.6 * math.exp(busy) * source.lognormvariate(0.0, 0.7) + (0 if cached else size / 40000)
            pace = 50.0 * math.exp(-0.4 * busy) * source.lognormvariate(0.0, 0.2)
            failed = source.random() < 0.04
            exchanges.append(FAILED if failed else slow(wait_s, pace=pace, request_bytes=size))
        return exchanges

    return minute


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_uneven_traffic_stays_quiet(seed: int) -> None:
    """Ten days of a busy route that fails 4 % of the time and is twice as slow at noon open no case."""
    assert opened(Watched().run(10 * DAY, uneven(seed))) == []


@pytest.mark.slow
def test_what_happens_on_uneven_traffic_is_found_within_minutes() -> None:
    """After almost three days of it, one failure in three, then waits four times as long."""
    host = Watched()
    traffic = uneven(3)
    host.run(2 * DAY + 17 * 60, traffic)
    failing = host.run(12, lambda n: [FAILED if m % 3 == 0 else one for m, one in enumerate(traffic(n))])
    assert [case.fault_class for case in opened(failing)] == [ERRORS]
    host.run(60, traffic)
    late = host.run(
        30,
        lambda n: [
            replace(one, first_token_s=4 * one.first_token_s) if one.first_token_s else one
            for one in traffic(n)
        ],
    )
    assert [case.fault_class for case in opened(late)] == [LATENCY]


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


def test_a_fault_is_not_learnt_while_it_lasts(watched: Watched) -> None:
    """After a night of errors and slowness both cases are still open, against the baseline of before."""
    watched.run(600, lambda minute: [*[FAILED] * 10, *[slow(4.0)] * 15])
    cases = {case.fault_class: case for case in watched.book.open_cases((ERRORS, LATENCY))}
    assert set(cases) == {ERRORS, LATENCY}
    for case, usual in ((cases[ERRORS], 0.0), (cases[LATENCY], 0.4)):
        evidence = case.evidence[0]
        assert isinstance(evidence, RouteEvidence)
        assert evidence.baseline == pytest.approx(usual, abs=0.05)


def test_a_new_level_that_stays_for_days_becomes_the_usual_one() -> None:
    """A deploy that is three times as slow is a case, which clears after two to five days at that level."""
    host = Watched()
    host.run(2 * DAY, always(*[slow(0.4)] * 12))
    (case,) = opened(host.run(DAY, always(*[slow(1.2)] * 12)))
    assert case.fault_class is LATENCY
    assert host.book.open_cases((LATENCY,))
    host.run(9 * DAY, always(*[slow(1.2)] * 12))
    assert host.book.open_cases((LATENCY,)) == ()


@pytest.mark.parametrize("remember", [True, False])
def test_a_restart_neither_clears_nor_forgets(watched: Watched, *, remember: bool) -> None:
    """With or without its baselines, the agent follows the case by what it said was usual."""
    watched.run(10, steady(failing=0.5))
    watched.restart(remember=remember)
    assert cleared(watched.run(120, steady(failing=0.5))) == []
    assert len(cleared(watched.run(15, steady()))) == 1


def test_remembers_what_is_usual_across_a_restart(watched: Watched) -> None:
    """No second warm-up where the baselines were kept."""
    watched.restart(remember=True)
    assert len(opened(watched.run(5, steady(failing=0.5)))) == 1


def test_hostile_memory_is_refused_and_counted(watched: Watched) -> None:
    """What cannot be read is counted, and the route begins anew."""
    whole = watched.detector.memory()
    assert len(whole) == 3
    bad = {key: raw[:-1] for key, raw in whole.items()} | {
        key: next(iter(whole.values()))
        for key in ("", "failures", "failures/x/chat_completions/m", "failures/1/nowhere", "dreams/1/other/m")
    }
    host = RouteBaseline.build(Config(), SURROUNDINGS)
    assert host.recall(bad) == len(bad)
    assert host.memory() == {}


@pytest.mark.parametrize("model", [None, "", "a/b c", "\udce4\x00"])
def test_routes_are_kept_under_their_names(model: str | None) -> None:
    """Whatever a model is called, what was learnt of it is found again under a key that can be kept."""
    host = Watched()
    host.run(20, always(*[replace(GOOD, name=replace(NAME, model=model))] * 15))
    memory = host.detector.memory()
    assert all(key.encode() for key in memory)
    other = RouteBaseline.build(Config(), SURROUNDINGS)
    assert other.recall(memory) == 0
    assert other.memory() == memory


def test_unobserved_traffic_is_in_the_evidence(watched: Watched) -> None:
    """How much of the port could not be judged is said beside what was."""
    facts = UnobservedFacts(port=8000, reason=UnobservedReason.LOST, count=7, at_ns=0)
    watched.see(Unobserved(SENSOR, at(watched.minute * 60), origin(), facts))
    (case,) = opened(watched.run(4, steady(failing=0.5)))
    assert route_evidence(case).unobserved == 7


def test_routes_are_bounded() -> None:
    """A client that makes up models' names does not decide how much is remembered."""
    host = Watched()
    host.run(
        40, lambda minute: [replace(GOOD, name=replace(NAME, model=f"m{minute}-{n}")) for n in range(50)]
    )
    assert len(host.detector.memory()) <= 4 * (ROUTES + 1)


def test_models_are_judged_apart(watched: Watched) -> None:
    """Another model on the same port, bad from its first hour, says nothing about this one."""
    other = replace(FAILED, name=replace(NAME, model="other"))
    assert watched.run(60, always(*[GOOD] * 15, *[other] * 15)) == []
