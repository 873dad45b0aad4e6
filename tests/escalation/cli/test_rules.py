"""nanobotctl rules, verdict, policy test and approve --set-aside, against a real server."""

from __future__ import annotations

from typing import Any

import pytest

from escalation.cli.rules import KINDS
from escalation.model import (
    ActionKind,
    CasePhase,
    FaultClass,
    FlightEvidence,
    Reason,
    ReasonCode,
    RouteId,
    RouteKind,
    ServerKind,
    Subject,
    SubjectKind,
)
from escalation.server.testing import CONTAINER, case_report
from tests.escalation.cli.conftest import Ctl

_RULE = "gpu.access_revoked:open_refused_after_success"


def test_kinds_are_those_of_the_model() -> None:
    """The list that completion shows is the model's."""
    assert tuple(each.value for each in ActionKind) == KINDS


def test_a_verdict_counts_for_the_rule(ctl: Ctl, served: Any) -> None:
    """Said by an incident's id, a recommendation's, or its first characters; and shown with the rule."""
    entry = served.call(served.desk.opened())
    assert ctl("rules").out.splitlines()[1].startswith(f"{_RULE}  1       0          not judged in 30 days")
    assert ctl("verdict", entry.incident.id, "fault").code == 0
    shown = ctl("verdict", entry.recommendation.id[:8], "not-a-fault", "--reason", "planned", "--json")
    assert shown.json["rule"] == _RULE
    (rule,) = ctl("rules", "--json").json
    assert (rule["faults"], rule["not_faults"], rule["precision"]) == (
        0,
        1,
        "0 of 1 judged were faults in 30 days",
    )
    assert rule["verdicts"][0]["verdict"]["reason"] == "planned"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("verdict", "nobody", "fault"), 3),
        (("verdict", "nobody", "not-a-fault"), 2),
        (("verdict", "nobody", "maybe"), 2),
        (("rules", "shadow", "no.rule:at_all", "--reason", "x"), 3),
        (("rules", "shadow", "../queue", "--reason", "x"), 3),
        (("rules", "shadow", _RULE), 2),
        (("rules", "shadow", _RULE, "--reason", "x", "--days", "60"), 5),
        (("rules", "shadow", "monitor.blind:host_silent", "--reason", "x"), 5),
        (("rules", "unshadow", _RULE, "--reason", "x"), 3),
        (("policy", "test", "--kind", "dance"), 2),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else str(each),
)
def test_what_cannot_be_has_its_exit_code(ctl: Ctl, arguments: tuple[str, ...], code: int) -> None:
    """Not found, usage and refused by policy are told apart."""
    assert ctl(*arguments).code == code


def test_a_viewer_reads_rules_and_changes_none(ctl: Ctl, served: Any) -> None:
    """Reading is for everybody, saying for operators."""
    entry = served.call(served.desk.opened())
    assert ctl("rules", as_="viewer").code == 0
    assert ctl("policy", "test", as_="viewer").code == 0
    assert ctl("verdict", entry.incident.id, "fault", as_="viewer").code == 5
    assert ctl("rules", "shadow", _RULE, "--reason", "x", as_="viewer").code == 5


def test_a_rule_is_put_in_shadow_and_taken_out(ctl: Ctl, served: Any) -> None:
    """What it has open leaves the queue, is shown under its own state, and comes back."""
    served.call(served.desk.opened())
    assert ctl("rules", "shadow", _RULE, "--reason", "noisy", "--days", "2").out == (
        f"{_RULE} is in shadow until 2026-01-03T00:00:00.000Z\n"
    )
    assert ctl("queue").out == "Nothing waits for a decision.\n"
    assert [each["state"] for each in ctl("queue", "--state", "shadow", "--json").json] == ["shadow"]
    assert "in shadow until" in ctl("rules").out
    assert ctl("rules", "unshadow", _RULE, "--reason", "mended").code == 0
    assert [each["state"] for each in ctl("queue", "--json").json] == ["proposed"]
    guarded = "monitor.blind:host_silent"
    assert ctl("rules", "shadow", guarded, "--reason", "x", "--again", guarded).code == 0


def test_policy_test_says_who_may_and_why_not(ctl: Ctl) -> None:
    """By the tables that fit: who may approve, what else it takes, who may not and why."""
    there = ("policy", "test", "--kind", "restart_unit", "--host", "spark-1", "--json")
    (row,) = ctl(*there).json
    assert (row["may"], row["policies"]) == (["admin"], ["sparks"])
    assert "two different persons" in row["needs"]
    why = {each["person"]: each["why"] for each in row["may_not"]}
    assert why["operator"] == "policy names others"
    assert why["viewer"] == "the role viewer may not decide"
    assert ctl(*there, "--person", "ada").code == 5
    elsewhere = ctl(
        "policy", "test", "--kind", "restart_unit", "--host", "laptop", "--person", "ada", "--json"
    )
    assert (elsewhere.code, elsewhere.json[0]["may"]) == (0, ["ada"])
    human = ctl("policy", "test", "--kind", "human", "--json").json[0]
    assert human["may"] == []
    assert ctl("policy", "test").out.count("\n") == 1 + len(KINDS)


def test_a_condition_in_the_way_is_set_aside_by_name(ctl: Ctl, served: Any) -> None:
    """Busy is not dead: refused with exit code 5, until it is named with a reason; `show` tells both."""
    flight = FlightEvidence(
        id=RouteId(port=8000, route=RouteKind.CHAT_COMPLETIONS, model="qwen3", server=ServerKind.VLLM),
        requests=3,
        waiting=1,
        oldest_s=400.0,
        silent_s=1.0,
        patience_s=180.0,
        largest_request_bytes=9,
    )
    stalled = {
        "fault_class": FaultClass.ROUTE_ENGINE_STALLED,
        "subject": Subject(SubjectKind.ROUTE, "8000/chat_completions qwen3"),
        "target": Subject(SubjectKind.CONTAINER, CONTAINER),
        "reasons": (Reason(ReasonCode.NO_BYTES_WHILE_IN_FLIGHT, count=3),),
    }
    dead = FlightEvidence(**{each: getattr(flight, each) for each in flight.__slots__} | {"silent_s": 300.0})
    entry = served.call(served.desk.opened(**stalled, evidence=(dead,)))
    busy = stalled | {"fault_class": FaultClass.ROUTE_SATURATED, "evidence": (flight,), "case_id": "case-2"}
    served.call(served.desk.report(case_report(CasePhase.OPENED, **busy)))
    approve = ("approve", entry.recommendation.id, "--reason", "now")
    refused = ctl(*approve)
    assert refused.code == 5
    assert "not_busy fails: busy is not dead" in refused.err
    assert ctl(*approve, "--set-aside", "not_busy").code == 2
    assert ctl(*approve, "--set-aside", "not_busy=only health checks").code == 0
    text = ctl("show", entry.recommendation.id).out
    assert "Set aside   it is dead, and not only busy, by operator: only health checks\n" in text
    assert "✗ it is dead, and not only busy: busy is not dead" in text
