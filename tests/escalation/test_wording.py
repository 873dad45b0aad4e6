"""Codes become sentences that a person can act on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given, strategies as st

from escalation import model
from escalation.inert import harmless
from escalation.model import (
    ActionKind,
    BlindReason,
    FaultClass,
    Loss,
    LossKind,
    Reason,
    ReasonCode,
    SensorCoverage,
    State,
)
from escalation.wording.codes import (
    action_headline,
    blindness,
    coverage_words,
    headline,
    loss_words,
    severity_symbol,
    state_sentence,
    why_not_approvable,
)
from escalation.wording.evidence import fact, route_name
from escalation.wording.quantities import duration, signal_name, size
from escalation.wording.reason import sentence
from escalation.wording.service import server_name

EVIDENCE = st.one_of(*(st.from_type(kind) for kind in get_args(model.Evidence)))


@pytest.mark.parametrize(
    ("word", "choices"),
    [
        (headline, FaultClass),
        (severity_symbol, model.Severity),
        (state_sentence, State),
        (action_headline, ActionKind),
        (blindness, BlindReason),
        (lambda code: sentence(Reason(code)), ReasonCode),
        (lambda kind: loss_words(Loss(kind, "", 2, exact=True)), LossKind),
    ],
)
def test_every_choice_has_its_own_words(word: Callable[[object], str], choices: Iterable[object]) -> None:
    """No two choices read the same, and none is empty."""
    words = [word(choice) for choice in choices]
    assert all(words)
    assert len(set(words)) == len(words)


@given(EVIDENCE)
def test_facts_are_inert_whatever_the_host_sent(evidence: model.Evidence) -> None:
    """A hostile name in evidence cannot act in the sentence that is made of it."""
    assert harmless(fact(evidence))


def test_numbers_stand_in_the_sentence() -> None:
    """Counts, windows and thresholds are told with the reason."""
    reason = Reason(ReasonCode.OPEN_REFUSED_AFTER_SUCCESS, count=7, threshold=1, window_s=90)
    assert sentence(reason) == (
        "Opening the GPU was refused (EPERM) where it had worked before "
        "(7 times, within 1 min 30 s, threshold 1)."
    )


def test_numbers_that_are_no_times_say_what_they_are() -> None:
    """Tokens are tokens, and a silence stands beside the silence that was allowed."""
    assert sentence(Reason(ReasonCode.USAGE_AGREES, count=40)) == (
        "The server's own token count agrees (40 tokens)."
    )
    assert sentence(Reason(ReasonCode.NO_BYTES_WHILE_IN_FLIGHT, 2, 180.0, 305.0)).endswith(
        "(2 requests, 5 min 5 s of silence where 3 min are allowed)."
    )


def test_says_which_newer_fault_class_it_does_not_know() -> None:
    """An unknown class is named by its number, so that it can be looked up."""
    assert "number 4242" in headline(FaultClass.UNKNOWN, 4242)


def test_only_human_work_cannot_be_approved() -> None:
    """Exactly the kind that is a person's work says why it is never approved."""
    assert [kind for kind in ActionKind if why_not_approvable(kind)] == [ActionKind.HUMAN]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.2, "200 ms"),
        (1, "1 s"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (90_061, "1 d 1 h"),
        (float("nan"), "an unknown time"),
        (1e300, "an unknown time"),
    ],
)
def test_durations_keep_their_two_largest_units(seconds: float, expected: str) -> None:
    """A duration reads as its two largest units."""
    assert duration(seconds) == expected


def test_sizes_signals_and_errors_read_as_names() -> None:
    """Numbers of the kernel come out as the names people know."""
    assert size(8 * 1024**3) == "8.0 GiB"
    assert size(1023) == "1023 bytes"
    assert size(1600) == "1.5 KiB"
    assert signal_name(7) == "SIGBUS (bus error)"
    assert signal_name(64) == "signal 64"
    blind = SensorCoverage("kernel.oom_kill", BlindReason.ATTACH_FAILED, 1)
    assert coverage_words(blind) == "the kernel refused the program (EPERM)"


def _evidence_of(route: model.RouteId, **fields: object) -> model.RouteEvidence:
    evidence = model.RouteEvidence(
        id=route, window_s=600.0, exchanges=1, affected=1, affected_streamed=0, unobserved=0
    )
    return replace(evidence, **fields)  # type: ignore[arg-type]


def test_a_route_reads_as_people_call_it() -> None:
    """Endpoint, model, port and software, as far as each is known; one is not said in the plural."""
    route = model.RouteId(11434, model.RouteKind.OLLAMA_CHAT, "gemma3:12b", model.ServerKind.OLLAMA)
    assert fact(_evidence_of(route, unobserved=1)) == (
        "Ollama's chat for gemma3:12b on port 11434 (Ollama): 1 of 1 exchange affected within 10 min, "
        "1 exchange could not be judged"
    )
    bare = model.RouteId(8080, model.RouteKind.OTHER, "", model.ServerKind.OTHER)
    assert fact(_evidence_of(bare)).startswith("another path on port 8080: 1 of 1 exchange affected")


def test_what_was_measured_stands_beside_what_is_usual() -> None:
    """Tokens with what was allowed, a measure with its baseline; what is not known is not mentioned."""
    route = model.RouteId(8000, model.RouteKind.COMPLETIONS, "m", model.ServerKind.VLLM)
    assert fact(_evidence_of(route, completion_tokens=9, max_tokens=9)).endswith(
        "9 tokens generated of 9 allowed"
    )
    assert fact(_evidence_of(route, max_tokens=9)).endswith("9 tokens allowed")
    assert fact(_evidence_of(route, measured=6.42, baseline=0.8)).endswith("now 6.42 where 0.8 is usual")
    assert fact(_evidence_of(route, baseline=0.8)).endswith("within 10 min")
    assert fact(_evidence_of(route, measured=0.8)).endswith("within 10 min")


@pytest.mark.parametrize("kind", [model.RouteKind, model.ServerKind])
def test_every_route_and_server_has_a_name_of_its_own(kind: type[model.RouteKind | model.ServerKind]) -> None:
    """No two read the same; a server that is not known is not named at all."""
    words = [route_name(each) if isinstance(each, model.RouteKind) else server_name(each) for each in kind]
    assert len(set(words) - {""}) == len([each for each in words if each])


def test_a_hostile_model_name_is_inert_in_its_fact() -> None:
    """It is shown, escaped, because a person may have to find it."""
    route = model.RouteId(8000, model.RouteKind.COMPLETIONS, "\x1b[31mx\u202e", model.ServerKind.VLLM)
    assert "for \\x1b[31mx\\u202e on port 8000" in fact(_evidence_of(route))
