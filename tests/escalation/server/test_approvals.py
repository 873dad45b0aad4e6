"""The approval machine: what a person may do, and what no clock, repeat or race can bring about."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from escalation.model import (
    ActionKind,
    AgentId,
    BootId,
    CaseId,
    Device,
    DeviceOpenEvidence,
    FaultClass,
    Incarnation,
    Incident,
    Reason,
    ReasonCode,
    Recommendation,
    Report,
    State,
    Subject,
    SubjectKind,
)
from escalation.server.decision import approvals, binding
from escalation.server.decision.approvals import MOVES, Approve, MarkDone, Policy, Reject, TimePassed
from escalation.server.desk import DeskError, Expired, Refused, Superseded
from escalation.server.incident import incidents
from escalation.server.playbook.registry import advise
from escalation.server.testing import START_NS, case_report

_HOUR = 3600 * 10**9
_POLICY = Policy()


def _incident() -> Incident:
    body = case_report()
    report = Report(
        agent_id=AgentId("spark-1"), boot_id=BootId("boot"), sequence=1, created_ns=START_NS, body=body
    )
    folding = incidents.fold(report, body, case=None, incident=None, standing=None, now_ns=START_NS)
    assert folding is not None
    return folding.incident


def _proposed(incident: Incident, policy: Policy = _POLICY) -> Recommendation:
    return approvals.propose(incident, advise(incident), ordinal=1, policy=policy, now_ns=START_NS)


def _approve(
    recommendation: Recommendation,
    incident: Incident,
    *,
    person: str = "ada",
    reason: str = "it serves nobody",
    digest: str | None = None,
    policy: Policy = _POLICY,
    now_ns: int = START_NS + 1,
) -> Recommendation:
    event = Approve(person, reason, digest or recommendation.digest)
    return approvals.step(recommendation, incident, event, policy=policy, now_ns=now_ns)


def test_approves_exactly_what_was_shown() -> None:
    """The named person, the reason and the clock to carry it out are on record."""
    incident = _incident()
    approved = _approve(_proposed(incident), incident)
    assert approved.state is State.APPROVED
    assert (approved.decided_by, approved.decision_reason) == ("ada", "it serves nobody")
    assert approved.execute_by_ns == START_NS + 1 + _HOUR


@pytest.mark.parametrize(
    "changed",
    [
        {"incarnation": Incarnation(kernel_boot_id="kernel-2", container_id="4f" * 32)},
        {"incarnation": Incarnation(kernel_boot_id="kernel-1", container_id="5a" * 32)},
        {"incarnation": Incarnation(kernel_boot_id="kernel-1", container_id="4f" * 32, pid=7, start_ticks=1)},
        {"case_id": CaseId("case-2")},
        {"agent_id": AgentId("spark-2")},
        {"subject": Subject(SubjectKind.CONTAINER, "5a" * 32)},
        {"evidence": (DeviceOpenEvidence(Device.CONTROL, 255, 13, 3, 11, "ollama", 4242),)},
        {"evidence": ()},
        {"open": False},
    ],
    ids="-".join,
)
def test_refuses_when_the_incident_is_not_what_was_shown(changed: dict[str, object]) -> None:
    """Another life of the target, another case, host or kind of evidence: what was shown is void."""
    incident = _incident()
    recommendation = _proposed(incident)
    with pytest.raises(Superseded):
        _approve(recommendation, replace(incident, **changed))  # type: ignore[arg-type]


@pytest.mark.parametrize("command", [("docker", "restart", "x y"), ("docker", "restart", "x", "y")])
def test_the_digest_tells_argument_lists_apart(command: tuple[str, ...]) -> None:
    """An argument with a blank is not two arguments."""
    incident = _incident()
    action = replace(advise(incident).action, command=("docker", "restart", "x", "y", ""))
    assert binding.digest_of(replace(action, command=command), incident) != binding.digest_of(
        action, incident
    )


def test_the_same_fault_seen_more_often_is_the_same_digest() -> None:
    """Counts, times and the process that asked do not void what somebody is reading."""
    incident = _incident()
    again = replace(
        incident,
        count=99,
        last_seen_ns=START_NS + _HOUR,
        evidence=(DeviceOpenEvidence(Device.CONTROL, 255, 1, 99, 11, "python3", 1),),
    )
    action = advise(incident).action
    assert binding.digest_of(action, incident) == binding.digest_of(action, again)


@pytest.mark.parametrize(
    ("person", "reason", "error"),
    [("", "why", Refused), ("  ", "why", Refused), ("ada", "", Refused), ("ada", " \n", Refused),
     ("ada", "x" * 2001, Refused)],
)  # fmt: skip
def test_a_decision_needs_a_name_and_a_reason(person: str, reason: str, error: type[DeskError]) -> None:
    """Neither an approval nor a rejection is anonymous or unexplained."""
    incident = _incident()
    with pytest.raises(error):
        _approve(_proposed(incident), incident, person=person, reason=reason)
    with pytest.raises(error):
        approvals.step(_proposed(incident), incident, Reject(person, reason), policy=_POLICY, now_ns=START_NS)


@pytest.mark.parametrize("late_ns", [4 * _HOUR, 5 * _HOUR, -_HOUR, -(10**15)])
def test_the_time_to_approve_ends_whichever_way_the_clock_is_set(late_ns: int) -> None:
    """At the deadline, after it, and when the clock stands before the proposal: too late."""
    incident = _incident()
    recommendation = _proposed(incident)
    with pytest.raises(Expired):
        _approve(recommendation, incident, now_ns=START_NS + late_ns)
    passed = approvals.step(
        recommendation, incident, TimePassed(START_NS, would_be_seen=True), policy=_POLICY,
        now_ns=START_NS + late_ns,
    )  # fmt: skip
    assert passed.state is State.EXPIRED
    with pytest.raises(Expired):
        _approve(passed, incident)


def test_an_approval_lapses_when_it_is_not_carried_out_in_time() -> None:
    """Execute-by is a clock of its own, started by the approval."""
    incident = _incident()
    approved = _approve(_proposed(incident), incident)
    with pytest.raises(Expired):
        approvals.step(approved, incident, MarkDone("ada"), policy=_POLICY, now_ns=START_NS + 1 + _HOUR)
    passed = TimePassed(START_NS, would_be_seen=True)
    lapsed = approvals.step(approved, incident, passed, policy=_POLICY, now_ns=START_NS + 2 * _HOUR)
    assert lapsed.state is State.LAPSED


def test_an_approval_is_used_once() -> None:
    """The same approval sent twice is refused the second time, by whomever."""
    incident = _incident()
    approved = _approve(_proposed(incident), incident)
    for person in ("ada", "grace"):
        with pytest.raises(Refused):
            _approve(approved, incident, person=person)


def test_what_a_person_must_do_by_judgement_is_never_approved() -> None:
    """HUMAN actions are described; approving one is refused with the reason."""
    incident = _incident()
    human = replace(_proposed(incident))
    action = replace(human.advice.action, kind=ActionKind.HUMAN)
    human = replace(
        human,
        advice=replace(human.advice, action=action),
        digest=binding.digest_of(action, incident),
    )
    with pytest.raises(Refused, match="not approved"):
        _approve(human, incident)


@pytest.mark.parametrize("hidden", ["\u202e", "\u200b", "\x1b[8m", "\0"])
def test_what_cannot_be_shown_whole_is_never_approved(hidden: str) -> None:
    """Whichever door an approval comes through, a command with a hidden character is refused."""
    incident = _incident()
    advice = advise(incident)
    action = replace(advice.action, command=(*advice.action.command, f"a{hidden}b"))
    unreadable = approvals.propose(
        incident, replace(advice, action=action), ordinal=1, policy=_POLICY, now_ns=START_NS
    )
    with pytest.raises(Refused, match="cannot be shown"):
        _approve(unreadable, incident)


def test_two_persons_are_two_different_persons() -> None:
    """The first approval leaves it proposed; the same name does not count twice; the second one approves."""
    policy = Policy(two_person=frozenset({ActionKind.RESTART_CONTAINER}))
    incident = _incident()
    once = _approve(_proposed(incident, policy), incident, policy=policy)
    assert (once.state, once.approvers) == (State.PROPOSED, ("ada",))
    with pytest.raises(Refused, match="second person"):
        _approve(once, incident, policy=policy)
    twice = _approve(once, incident, person="grace", policy=policy)
    assert (twice.state, twice.approvers) == (State.APPROVED, ("ada", "grace"))


def test_a_changed_proposal_forgets_the_first_of_two() -> None:
    """What the first person approved is not what stands there now."""
    policy = Policy(two_person=frozenset({ActionKind.RESTART_CONTAINER}))
    incident = _incident()
    once = _approve(_proposed(incident, policy), incident, policy=policy)
    moved = replace(incident, incarnation=Incarnation(kernel_boot_id="kernel-2"))
    restated = approvals.restate(once, moved, advise(moved))
    assert (restated.approvers, restated.decided_by) == ((), None)


def test_a_first_approval_under_other_rules_counts_no_more() -> None:
    """The second person is the first under stricter rules; that the other's is void stays on record."""
    two = Policy(two_person=frozenset({ActionKind.RESTART_CONTAINER}))
    stricter = replace(two, approvers={ActionKind.RESTART_CONTAINER: frozenset({"grace", "edsger"})})
    incident = _incident()
    once = _approve(_proposed(incident, two), incident, policy=two)
    assert approvals.under(once, policy=two, now_ns=START_NS + 2) is once
    again = _approve(once, incident, person="grace", policy=stricter, now_ns=START_NS + 2)
    assert (again.state, again.approvers) == (State.PROPOSED, ("grace",))
    assert [(each.person, each.void_ns) for each in again.approvals] == [
        ("ada", START_NS + 2),
        ("grace", None),
    ]
    assert _approve(again, incident, person="edsger", policy=stricter).approvers == ("grace", "edsger")
    older = replace(once, approvals=())  # from before it was kept how somebody approved
    assert approvals.under(older, policy=two, now_ns=START_NS + 2).approvers == ()


def test_only_those_whom_the_policy_names_may_approve() -> None:
    """A name that is not on the list for this kind of action is refused."""
    policy = Policy(approvers={ActionKind.RESTART_CONTAINER: frozenset({"grace"})})
    incident = _incident()
    with pytest.raises(Refused, match="policy"):
        _approve(_proposed(incident, policy), incident, policy=policy)
    assert _approve(_proposed(incident, policy), incident, person="grace", policy=policy).state is (
        State.APPROVED
    )


def test_is_verified_only_after_quiet_time_on_a_host_that_is_heard() -> None:
    """A jump of the wall clock proves nothing, and neither does silence."""
    incident = _incident()
    approved = _approve(_proposed(incident), incident)
    done = approvals.step(approved, incident, MarkDone("ada"), policy=_POLICY, now_ns=START_NS + 2)
    closed = replace(incident, open=False, cleared_ns=START_NS + 10)
    quiet_ns = START_NS + 10 + int(done.advice.verification.quiet_s * 1e9)

    def after(trusted_ns: int, *, heard: bool) -> State:
        event = TimePassed(trusted_ns, would_be_seen=heard)
        return approvals.step(done, closed, event, policy=_POLICY, now_ns=quiet_ns + _HOUR).state

    assert after(quiet_ns - 1, heard=True) is State.DONE
    assert after(quiet_ns, heard=False) is State.DONE
    assert after(quiet_ns, heard=True) is State.VERIFIED


def test_is_not_cured_when_the_case_stays_open_too_long() -> None:
    """Done is a claim; the detector decides."""
    incident = _incident()
    done = approvals.step(
        _approve(_proposed(incident), incident),
        incident,
        MarkDone("ada"),
        policy=_POLICY,
        now_ns=START_NS + 2,
    )
    within_ns = START_NS + 2 + int(done.advice.verification.within_s * 1e9)
    for trusted_ns, state in ((within_ns - 1, State.DONE), (within_ns, State.NOT_CURED)):
        event = TimePassed(trusted_ns, would_be_seen=True)
        assert approvals.step(done, incident, event, policy=_POLICY, now_ns=within_ns).state is state


@pytest.mark.parametrize(
    ("fault", "over", "marked", "unmarked"),
    [
        (FaultClass.UNIT_RESTART_LOOP, ReasonCode.CGROUP_GONE, State.NOT_CURED, State.LAPSED),
        (FaultClass.UNIT_RESTART_LOOP, ReasonCode.UNIT_STAYS_UP, State.VERIFIED, State.DONE),
        (FaultClass.NETWORK_RETRANSMISSION, ReasonCode.NOT_SEEN_SINCE, State.NOT_CURED, State.LAPSED),
        (FaultClass.STORAGE_FULL, ReasonCode.NOT_WATCHED, State.NOT_CURED, State.LAPSED),
        (FaultClass.STORAGE_FULL, ReasonCode.SPACE_FREE_AGAIN, State.VERIFIED, State.DONE),
    ],
)
def test_what_was_stopped_or_is_not_there_to_be_seen_is_not_cured(
    fault: FaultClass, over: ReasonCode, marked: State, unmarked: State
) -> None:
    """That a stopped unit restarts no more, and that nobody saw the fault again, is nobody's success."""
    incident = replace(_incident(), fault_class=fault)
    approved = _approve(_proposed(incident), incident)
    closed = replace(incident, open=False, cleared_ns=START_NS + 10, reasons=(Reason(over, count=1),))
    cleared = approvals.CaseCleared()
    left = approvals.step(approved, closed, cleared, policy=_POLICY, now_ns=START_NS + 10)
    assert left.state is unmarked

    done = approvals.step(approved, incident, MarkDone("ada"), policy=_POLICY, now_ns=START_NS + 2)
    done = approvals.step(done, closed, cleared, policy=_POLICY, now_ns=START_NS + 10)
    quiet = TimePassed(START_NS + 24 * _HOUR, would_be_seen=True)
    judged = approvals.step(done, closed, quiet, policy=_POLICY, now_ns=START_NS + 24 * _HOUR)
    assert judged.state is marked


_EVENTS = st.sampled_from(
    [
        "approve",
        "approve_stale",
        "approve_nobody",
        "reject",
        "done",
        "clear",
        "explained",
        "returned",
        "reboot",
        "time",
    ]
)
_JUMPS = st.sampled_from([0, 1, 60 * 10**9, _HOUR, 5 * _HOUR, 24 * _HOUR, -_HOUR, -24 * _HOUR])


@given(walk=st.lists(st.tuples(_EVENTS, _JUMPS), max_size=40), two_person=st.booleans())
def test_no_walk_breaks_the_rules(walk: list[tuple[str, int]], *, two_person: bool) -> None:
    """Whatever happens in whatever order, with whatever clock, the invariants hold after each step."""
    policy = Policy(two_person=frozenset({ActionKind.RESTART_CONTAINER}) if two_person else frozenset())
    incident = _incident()
    current = _proposed(incident, policy)
    now_ns, expired = START_NS, False
    for number, (name, jump_ns) in enumerate(walk):
        now_ns += jump_ns
        if name == "clear":
            incident = replace(incident, open=False, cleared_ns=now_ns)
        if name == "reboot":
            incident = replace(incident, incarnation=Incarnation(kernel_boot_id=f"kernel-{number}"))
        bound = binding.digest_of(current.advice.action, incident)
        event: approvals.Event = {
            "approve": Approve(f"person-{number % 3}", "because", current.digest),
            "approve_stale": Approve("ada", "because", "0" * 64),
            "approve_nobody": Approve(" ", "because", current.digest),
            "reject": Reject("ada", "because"),
            "done": MarkDone("ada"),
            "clear": approvals.CaseCleared(),
            "explained": approvals.Explained(),
            "returned": approvals.FaultReturned(),
            "reboot": approvals.Advised(bound),
            "time": TimePassed(now_ns, would_be_seen=number % 2 == 0),
        }[name]
        before = current
        try:
            current = approvals.step(before, incident, event, policy=policy, now_ns=now_ns)
        except DeskError:
            continue
        assert current.state is before.state or current.state in MOVES[before.state]
        due = approvals.due_of(before)
        assert name != "time" or current is before or (due is not None and due.is_over(now_ns))
        if not MOVES[before.state]:
            assert current is before
        if current.state is State.APPROVED and before.state is State.PROPOSED:
            assert isinstance(event, Approve)
            assert event.digest == before.digest == bound
            assert current.decided_by == event.person
            assert len(set(current.approvers)) == (2 if two_person else 1)
            assert before.created_ns <= now_ns + 60 * 10**9
            assert now_ns < before.approve_by_ns
            assert not expired
        if name == "explained" and current is not before:
            assert (before.state, current.state) == (State.PROPOSED, State.WITHDRAWN)
        if current.state is State.DONE and before.state is not State.DONE:
            assert before.state is State.APPROVED
        expired = expired or current.state is State.EXPIRED
