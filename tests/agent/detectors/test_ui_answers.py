"""F49: pages that show nothing of answers that are there; and blank pages whose fault lies behind them."""

from __future__ import annotations

from typing import Any

import pytest

from agent.detectors.route_answers import Config as AnswersConfig, RouteAnswers
from agent.detectors.ui_answers import Config, UiAnswers
from agent.finding import Finding, Verdict
from agent.testing import SURROUNDINGS, exchange, open_case, origin, present, seeing, tick
from escalation.model import FaultClass, ReasonCode, Severity, Subject, SubjectKind
from probes.http.facts import FinishReason
from probes.observation import Exchange, ServerKind

FAULT = FaultClass.UI_BLANK_ANSWERS
PAGE = Subject(SubjectKind.ROUTE, "8080/chat_completions qwen3-32b")
BLANK: dict[str, Any] = {"content_characters": 0, "completion_tokens": 90}
REASONED: dict[str, Any] = BLANK | {"reasoning_characters": 300}


@pytest.fixture
def detector() -> UiAnswers:
    """One whose sensor sees."""
    made = UiAnswers.build(Config(), SURROUNDINGS)
    made.observe(seeing(0, "http.routes"))
    return made


def page(seconds: float, **facts: Any) -> Exchange:
    """Return an answer that Open WebUI gave."""
    where = origin(server=ServerKind.OPEN_WEBUI, container=None, unit="open-webui.service")
    return exchange(seconds, port=8080, where=where, **facts)


def direct(count: int, **facts: Any) -> list[Exchange]:
    """Return answers of the model server behind it."""
    return [exchange(10 + n, **facts) for n in range(count)]


@pytest.mark.parametrize("shown", [BLANK, REASONED], ids=["empty", "in a field that it does not read"])
def test_blank_pages_beside_good_answers_are_a_note(detector: UiAnswers, shown: dict[str, Any]) -> None:
    """Two witnesses: what the page's own route gave, and what the servers behind it gave meanwhile."""
    found = present(detector, *direct(6), *(page(30 + n, **shown) for n in range(6)))
    assert {(each.fault_class, each.subject, each.severity) for each in found} == {
        (FAULT, PAGE, Severity.NOTE)
    }
    assert [reason.code for reason in found[0].reasons] == [
        ReasonCode.UI_ANSWERS_BLANK,
        ReasonCode.BACKEND_ANSWERS_GOOD,
    ]
    assert found[0].reasons[1].count == 6


@pytest.mark.parametrize(
    "behind",
    [
        direct(0),
        direct(4),
        direct(10, **BLANK),
        direct(6) + direct(4, **BLANK),
    ],
    ids=["nobody asked them", "too few", "they are blank too", "they fail as well"],
)
def test_stays_quiet_where_the_servers_behind_are_not_shown_to_be_well(
    detector: UiAnswers, behind: list[Exchange]
) -> None:
    """Then it is theirs, or unknown; the page's route is judged like any other by another detector."""
    assert present(detector, *behind, *(page(30 + n, **BLANK) for n in range(10))) == []


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {
            "content_characters": 0,
            "tool_calls": 1,
            "tool_calls_valid": True,
            "finish": FinishReason.TOOL_CALLS,
        },
        {"status": 500},
    ],
    ids=["good", "a tool call", "an error, which is another fault"],
)
def test_stays_quiet_for_pages_that_are_not_blank(detector: UiAnswers, facts: dict[str, Any]) -> None:
    """Only a whole answer with nothing to read is blank."""
    assert present(detector, *direct(10), *(page(30 + n, **facts) for n in range(10))) == []


def test_a_few_blank_pages_among_many_are_no_case(detector: UiAnswers) -> None:
    """A share that chance explains opens nothing."""
    shown = [page(30 + n, **(BLANK if n % 25 == 0 else {})) for n in range(100)]
    assert present(detector, *direct(10), *shown) == []


def test_clears_when_pages_show_answers_again(detector: UiAnswers) -> None:
    """Good pages in a row end it; time alone does not."""
    (*_, last) = present(detector, *direct(6), *(page(30 + n, **BLANK) for n in range(6)))
    case = open_case(FAULT, PAGE, evidence=last.evidence)
    assert detector.tick(tick(100, case)) == []
    for n in range(200):
        detector.observe(page(101 + n))
    (over,) = detector.tick(tick(400, case))
    assert over.verdict is Verdict.ABSENT


def findings_of_answers(observations: list[Exchange]) -> list[Finding]:
    """Return what the detector of empty answers finds in the same traffic."""
    other = RouteAnswers.build(AnswersConfig(), SURROUNDINGS)
    other.observe(seeing(0, "http.routes"))
    return list(present(other, *observations))


def test_one_blank_page_is_one_fault() -> None:
    """While the page's own fault is shown, its route is not called empty as well; else it is."""
    blank = [page(30 + n, **BLANK) for n in range(6)]
    assert findings_of_answers([*direct(6), *blank]) == []
    assert {each.subject for each in findings_of_answers(blank)} == {PAGE}
