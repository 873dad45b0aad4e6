"""The canonical document: one text for one approval, the same on both sides."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import rfc8785
from hypothesis import given, strategies as st

from escalation.model import AgentId, BootId, Evidence, Report, ThrottleEvidence
from escalation.server.decision.binding import bound_of, digest_of
from escalation.server.incident import incidents
from escalation.server.playbook.registry import advise
from escalation.server.testing import START_NS, case_report
from escalation.signing import approval
from escalation.signing.approval import ApprovalError, Bound, Document

_ANY = st.text(max_size=12)
_NUMBER = st.none() | st.integers(min_value=0, max_value=2**64 - 1)
_BOUNDS = st.builds(
    Bound,
    version=st.just(1),
    incident=_ANY,
    case=_ANY,
    host=st.tuples(_ANY, _ANY),
    fault=st.tuples(_ANY, _NUMBER),
    subject=st.tuples(_ANY, _ANY),
    action=st.tuples(_ANY, _ANY, _ANY, st.lists(st.text("abc é-/=", max_size=9), max_size=4).map(tuple)),
    evidence=st.lists(st.tuples(_ANY, _NUMBER), max_size=3).map(tuple),
    incarnation=st.tuples(_ANY, st.none() | _ANY, _NUMBER, _NUMBER),
)


def _terms(bound: Bound) -> approval.Terms:
    return approval.terms(
        bound,
        entry_id="r-1",
        approve_by="2026-01-01T04:00:00.000Z",
        execute_within_s=3600,
        catalogue="host-nanobot 0.1.0",
        policy="0" * 64,
    )


def _document(bound: Bound, *, reason: str = "it serves nobody") -> str:
    return approval.document(_terms(bound), person="ada", reason=reason, nonce="0f" * 16)


@given(_BOUNDS, _ANY)
def test_is_the_form_that_the_standard_names(bound: Bound, reason: str) -> None:
    """Sorted keys without blanks are RFC 8785 for this shape, as a library of the standard writes it."""
    text = _document(bound, reason=reason)
    assert text.encode() == rfc8785.dumps(json.loads(text))
    assert approval.canonical(approval.parse(text)) == text


def test_what_is_set_aside_is_part_of_it() -> None:
    """The conditions in spite of which somebody approves stand in what they sign, by plain names alone."""
    aside = {"not_busy": "it answers \u202enothing", "b": "c"}
    text = approval.document(_terms(_BOUND), person="ada", reason="why", nonce="0f" * 16, set_aside=aside)
    assert text.encode() == rfc8785.dumps(json.loads(text))
    assert approval.parse(text).set_aside == {"not_busy": "it answers \\u202enothing", "b": "c"}
    for name in ("", "Not_busy", "é", "a\u202e", "not busy"):
        with pytest.raises(ApprovalError):
            approval.document(
                _terms(_BOUND), person="ada", reason="why", nonce="0f" * 16, set_aside={name: "why"}
            )


@given(_BOUNDS)
def test_shows_nothing_that_could_mislead(bound: Bound) -> None:
    """A document can be printed as it is: what came from a host stands in it escaped."""
    text = _document(bound, reason="a\u202eb\x1b[2J\u200b")
    assert text.isprintable()
    assert not {"\u202e", "\x1b", "\u200b"} & set(text)


@given(st.data())
def test_every_field_changes_it(data: st.DataObject) -> None:
    """Whatever is changed, in what the digest covers or beside it, makes another document."""
    one = approval.parse(_document(data.draw(_BOUNDS)))
    name = data.draw(st.sampled_from([each for each in Document.__struct_fields__ if each != "v"]))
    changed = data.draw(_another(getattr(one, name)))
    other = msgspec.structs.replace(one, **{name: changed})
    assert approval.canonical(other) != approval.canonical(one)
    assert approval.differing(one, other) == (name,)


@given(_BOUNDS, st.data())
def test_every_part_of_what_is_bound_changes_the_digest(bound: Bound, data: st.DataObject) -> None:
    """A client that recomputes the digest sees any change of what was digested."""
    name = data.draw(st.sampled_from([each for each in Bound.__struct_fields__ if each != "version"]))
    was = getattr(bound, name)
    other = msgspec.structs.replace(bound, **{name: not was if name == "drill" else _shifted(was)})
    assert _terms(other).digest != _terms(bound).digest


def test_both_sides_make_the_same_from_what_is_sent() -> None:
    """What the digest covers survives the way to the client, numbers with a fraction included."""
    evidence: tuple[Evidence, ...] = (_THROTTLED,)
    body = case_report(evidence=evidence)
    report = Report(
        agent_id=AgentId("spark-1"), boot_id=BootId("b"), sequence=1, created_ns=START_NS, body=body
    )
    folding = incidents.fold(report, body, case=None, incident=None, standing=None, now_ns=START_NS)
    assert folding is not None
    action = advise(folding.incident).action
    sent = msgspec.json.encode(bound_of(action, folding.incident))
    bound = approval.bound_from(json.loads(sent))
    assert _terms(bound).digest == digest_of(action, folding.incident)
    assert _terms(bound).action.argv == action.command
    other = replace(action, command=(*action.command, "--now"))
    assert digest_of(other, folding.incident) != _terms(bound).digest


def test_what_cannot_be_shown_whole_has_no_document() -> None:
    """A command that holds an invisible character is not signed."""
    bound = _BOUND
    with pytest.raises(ApprovalError, match="cannot be shown"):
        _terms(msgspec.structs.replace(bound, action=("inspect", "unit", "a", ("echo", "a\u200b"))))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(",", ", ", 1),
        lambda text: text.replace('{"action"', '{"zzz":1,"action"'),
        lambda text: text.replace('"v":1', '"v":2'),
        lambda text: text.replace('"v":1', '"v":1,"v":1'),
        lambda text: text.replace("3600", "3600.0"),
        lambda text: text.replace("ada", "\\u0061da"),
        lambda text: text[:-1],
        lambda text: text + " ",
        lambda _: "",
        lambda _: "[]",
        lambda _: '{"v":1}',
        lambda _: "\ud800",
        lambda text: text.replace("it serves nobody", "a" * 40_000),
    ],
)
def test_takes_no_other_form(change: Any) -> None:
    """One approval has one text: blanks, escapes, doubled and unknown keys are refused."""
    text = _document(_BOUND)
    with pytest.raises(ApprovalError):
        approval.parse(change(text))


@pytest.mark.parametrize(
    "at", ["9999-12-31T23:59:59.999Z", "0001-01-01T00:00:00.000Z", "2026-02-30T00:00:00.000Z"]
)
def test_a_time_that_cannot_be_reckoned_with_is_none(at: str) -> None:
    """What no calendar has, and what no deadline can be added to, is refused by name."""
    with pytest.raises(ApprovalError, match="is no time"):
        approval.moment_of(at)
    assert approval.moment_of("2026-01-01T04:00:00.000Z").year == 2026


@given(st.text())
def test_no_text_does_more_than_be_refused(text: str) -> None:
    """Whatever arrives as a document is refused by name, and never crashes."""
    with pytest.raises(ApprovalError):
        approval.parse(text)


def _another(value: object) -> st.SearchStrategy[Any]:
    match value:
        case int():
            return st.integers(0, 1000).filter(lambda each: each != value)
        case str() if len(value) in {32, 64} and set(value) <= set("0123456789abcdef"):
            return (
                st.sampled_from("0123456789abcdef").map(lambda each: each * len(value)).filter(value.__ne__)
            )
        case str():
            return st.sampled_from("abc").map(lambda each: value + each)
        case approval.Act():
            return _another(value.argv).map(lambda each: msgspec.structs.replace(value, argv=each))
        case approval.Thing():
            return _another(value.name).map(lambda each: msgspec.structs.replace(value, name=each))
        case approval.Life():
            return _another(value.boot).map(lambda each: msgspec.structs.replace(value, boot=each))
        case tuple():
            return st.sampled_from("abc").map(lambda each: (*value, each))
        case dict():
            return st.sampled_from("abc").map(lambda each: value | {each: "why"})
    raise TypeError(f"no other value for {value!r}")


def _shifted(value: Any) -> Any:
    match value:
        case None:
            return 1
        case str():
            return value + "x"
        case int():
            return value + 1
        case tuple() if not value:
            return ("x",)
        case tuple():
            return (*value[:-1], _shifted(value[-1]))


_THROTTLED = ThrottleEvidence(
    window_s=60.0, periods=600, throttled_periods=500, throttled_s=41.5, quota_cores=2.5
)
_BOUND = Bound(
    version=1,
    incident="i-1",
    case="c-1",
    host=("spark-1", "spark-1"),
    fault=("gpu.access_revoked", None),
    subject=("container", "4f"),
    action=("restart_container", "container", "4f", ("docker", "restart", "4f")),
    evidence=(("device_open", "control", 255, 1),),
    incarnation=("kernel-1", "4f", None, 12),
)
