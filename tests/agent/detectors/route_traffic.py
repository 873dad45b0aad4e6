"""A host whose routes are judged minute by minute, and traffic of every kind for it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import replace
from functools import cache

from agent.cases import CaseBook
from agent.detector import World
from agent.detectors.route_baseline import Config, RouteBaseline
from agent.judge import Judge, hysteresis_of
from agent.testing import HOST, KERNEL_BOOT, SURROUNDINGS, at, origin
from escalation.model import CasePhase, CaseReport, FaultClass, RouteEvidence, Subject, SubjectKind
from probes.http.facts import Ending, ErrorKind, ExchangeFacts, Route, RouteName
from probes.observation import Exchange, SensorName

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


@cache
def _after_three_hours() -> Watched:
    host = Watched()
    assert host.run(180, steady()) == []
    return host


def healthy() -> Watched:
    """Return a host that has seen three hours of healthy traffic on one route."""
    return deepcopy(_after_three_hours())


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
