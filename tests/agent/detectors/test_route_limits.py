"""F08: prompts that are refused as too long or cut without a word, and counts that only look like it."""

from __future__ import annotations

from typing import Any

import pytest

from agent.detectors.route_limits import Config, RouteLimits
from agent.finding import Finding, Verdict
from agent.testing import (
    SURROUNDINGS,
    blind,
    exchange,
    open_case,
    origin,
    present,
    route_evidence,
    seeing,
    tick,
)
from escalation.model import FaultClass, ReasonCode, RouteEvidence, Severity, Subject, SubjectKind
from probes.http.facts import ErrorKind, Route
from probes.observation import Exchange, ServerKind

SENSOR = "http.routes"
FAULT = FaultClass.ROUTE_CONTEXT_OVERFLOW
ROUTE = Subject(SubjectKind.ROUTE, "8000/chat_completions qwen3-32b")
TOO_LONG: dict[str, Any] = {"status": 400, "error": ErrorKind.CONTEXT_OVERFLOW}
OLLAMA = origin(server=ServerKind.OLLAMA, name="ollama")


@pytest.fixture
def detector() -> RouteLimits:
    """A detector with its default settings whose sensor sees."""
    made = RouteLimits.build(Config(), SURROUNDINGS)
    made.observe(seeing(0, SENSOR))
    return made


def asked(seconds: float, request_bytes: int, prompt_tokens: int | None, **facts: Any) -> Exchange:
    """Return an answer of Ollama to a prompt."""
    return exchange(
        seconds,
        port=11434,
        route=facts.pop("route", Route.OLLAMA_CHAT),
        model="gemma3",
        where=facts.pop("where", OLLAMA),
        request_bytes=request_bytes,
        prompt_tokens=prompt_tokens,
        **facts,
    )


def plateau(detector: RouteLimits, tokens: int = 4096, times: int = 5) -> list[Finding]:
    """Let different long prompts all count `tokens`."""
    return present(detector, *(asked(n, 50_000 + 5_000 * n, tokens) for n in range(times)))


@pytest.mark.parametrize("facts", [TOO_LONG, {**TOO_LONG, "status": 200, "error_in_answer": True}])
def test_fifth_refused_prompt_is_a_case(detector: RouteLimits, facts: dict[str, Any]) -> None:
    """With status 400, and inside a stream with status 200."""
    assert present(detector, *(exchange(n, **facts) for n in range(4))) == []
    (found,) = present(detector, exchange(5, **facts))
    assert (found.fault_class, found.subject, found.severity) == (FAULT, ROUTE, Severity.MEDIUM)
    assert found.reasons[0].code is ReasonCode.PROMPTS_TOO_LONG


def test_embeddings_overflow_too(detector: RouteLimits) -> None:
    """Every model has a context."""
    found = present(detector, *(exchange(n, route=Route.EMBEDDINGS, **TOO_LONG) for n in range(5)))
    assert [each.count for each in found] == [5]


def test_one_client_that_sends_too_much_stays_quiet(detector: RouteLimits) -> None:
    """Ten refusals among two hundred prompts that fit."""
    bad = (exchange(n, **(TOO_LONG if n % 20 == 0 else {})) for n in range(1, 201))
    assert present(detector, *bad) == []


def test_other_bad_requests_stay_quiet(detector: RouteLimits) -> None:
    """A status of 400 alone says nothing of lengths."""
    bad = (exchange(n, status=400, error=ErrorKind.BAD_REQUEST) for n in range(50))
    assert present(detector, *bad) == []


def test_fifth_prompt_on_the_plateau_is_a_case(detector: RouteLimits) -> None:
    """Different sizes, one count, a round number, and no prompt that counts more."""
    assert plateau(detector, times=4) == []
    (found,) = present(detector, asked(5, 90_000, 4096))
    assert (found.fault_class, found.count) == (FAULT, 5)
    assert found.subject.name == "11434/ollama_chat gemma3" if found.subject else False
    assert [reason.code for reason in found.reasons] == [ReasonCode.PROMPTS_CUT_SILENTLY]
    (said,) = found.evidence
    assert isinstance(said, RouteEvidence)
    assert (said.affected, said.exchanges) == (5, 5)


def test_openai_route_of_ollama_is_judged_too(detector: RouteLimits) -> None:
    """The server cuts there as well; on other servers the same counts are no sign."""
    found: list[Finding] = []
    for where in (OLLAMA, origin()):
        for n in range(6):
            found += present(
                detector, asked(n, 90_000 + 9_000 * n, 8192, route=Route.CHAT_COMPLETIONS, where=where)
            )
    assert [each.target is not None for each in found] == [True, True]


@pytest.mark.parametrize(
    ("sizes", "tokens"),
    [
        ([90_000] * 30, [4096] * 30),
        ([50_000 + 3_000 * n for n in range(30)], [700 + 31 * (n % 9) for n in range(30)]),
        ([50_000 + 3_000 * n for n in range(30)], [4000] * 30),
        ([50_000 + 3_000 * n for n in range(30)], [576] * 30),
        ([20_000 + 300 * n for n in range(30)], [4096] * 30),
        ([50_000 + 3_000 * n for n in range(30)], [4096 if n % 4 else 5000 for n in range(30)]),
        ([50_000 + 3_000 * n for n in range(30)], [None] * 30),
    ],
    ids=["same again", "cached", "no round number", "picture", "as many as sent", "exceeded", "not told"],
)
def test_counts_that_only_look_cut_stay_quiet(
    detector: RouteLimits, sizes: list[int], tokens: list[int | None]
) -> None:
    """Each lacks one of the signs."""
    pairs = zip(sizes, tokens, strict=True)
    assert present(detector, *(asked(n, size, count) for n, (size, count) in enumerate(pairs))) == []


def test_prompts_cut_clear_when_more_is_counted(detector: RouteLimits) -> None:
    """Short prompts always fitted; long ones that count in full do prove it."""
    *_, found = plateau(detector, times=10)
    assert found.subject is not None
    case = open_case(FAULT, found.subject, evidence=found.evidence)
    for n in range(100):
        detector.observe(asked(100 + n, 2_000, 450))
        detector.observe(asked(100 + n, 9_000, 2_000))
    assert detector.tick(tick(300, case)) == []
    for n in range(10):
        detector.observe(asked(300 + n, 60_000 + n, 15_000 + n))
    (over,) = detector.tick(tick(400, case))
    assert (over.verdict, over.reasons[0].code) == (Verdict.ABSENT, ReasonCode.ANSWERS_GOOD_AGAIN)


def test_new_detector_takes_no_short_prompt_for_proof() -> None:
    """After a restart the limit is not known, so only prompts as long as a context count."""
    detector = RouteLimits.build(Config(), SURROUNDINGS)
    case = open_case(FAULT, Subject(SubjectKind.ROUTE, "11434/ollama_chat gemma3"))
    for n in range(100):
        detector.observe(asked(n, 2_000, 450))
    assert detector.tick(tick(200, case)) == []


def test_refusals_clear_when_prompts_fit(detector: RouteLimits) -> None:
    """Ten in a row after an outage in full."""
    for n in range(5):
        detector.observe(exchange(n, **TOO_LONG))
    case = open_case(FAULT, ROUTE, evidence=(route_evidence(),))
    for n in range(9):
        detector.observe(exchange(10 + n))
    assert detector.tick(tick(30, case)) == []
    detector.observe(exchange(20))
    assert [over.verdict for over in detector.tick(tick(30, case))] == [Verdict.ABSENT]


def test_keeps_open_when_source_goes_blind(detector: RouteLimits) -> None:
    """Blindness is unknown, and parts the row of good answers."""
    for n in range(9):
        detector.observe(exchange(n))
    (unknown,) = detector.observe(blind(10, SENSOR))
    assert (unknown.verdict, unknown.subject) == (Verdict.UNKNOWN, None)
    detector.observe(exchange(11))
    assert detector.tick(tick(30, open_case(FAULT, ROUTE, evidence=(route_evidence(),)))) == []


def test_silence_never_clears(detector: RouteLimits) -> None:
    """A month without a prompt is no prompt that fits."""
    assert detector.tick(tick(30 * 86400, open_case(FAULT, ROUTE))) == []
