"""What an approval is bound to, and for how long: over the real doors, and over restarts."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from escalation.cli.app import run
from escalation.model import (
    Action,
    ActionKind,
    AgentId,
    BlindEvidence,
    BlindReason,
    CaseId,
    CasePhase,
    FaultClass,
    Incident,
    IncidentId,
    Report,
    State,
    Subject,
    SubjectKind,
)
from escalation.server.decision import approvals, binding
from escalation.server.decision.approvals import Approve, Policy
from escalation.server.desk import DeskError, Expired, Superseded
from escalation.server.playbook.registry import advise
from escalation.server.service import Service
from escalation.server.storage.sqlite_store import SqliteStore
from escalation.server.storage.store import Delivery
from escalation.server.testing import ManualClock, case_report, heartbeat
from escalation.testing import A_MOMENT_NS, an_entry
from escalation.view.entry import entry_view
from escalation.wire import codec
from tests.escalation.server.site import wired
from tests.security.house import House, living, token
from tests.security.properties import security_property

_ANOTHER = BlindEvidence("another.sensor", BlindReason.NO_LIBRARY, 1.0)


def _other_kind(subject: Subject) -> Subject:
    """Return the same name as another kind of thing."""
    kind = SubjectKind.UNIT if subject.kind is not SubjectKind.UNIT else SubjectKind.CONTAINER
    return dataclasses.replace(subject, kind=kind)


def _other_lives(incident: Incident) -> Iterator[Incident]:
    """Yield the incident with each thing changed that makes it another one."""
    life = incident.incarnation
    for incarnation in (
        dataclasses.replace(life, kernel_boot_id="another boot"),
        dataclasses.replace(life, container_id="c0" * 32),
        dataclasses.replace(life, pid=999_983),
        dataclasses.replace(life, start_ticks=999_983),
    ):
        yield dataclasses.replace(incident, incarnation=incarnation)
    subject = incident.subject
    yield dataclasses.replace(incident, id=IncidentId("another"))
    yield dataclasses.replace(incident, case_id=CaseId("another"))
    yield dataclasses.replace(incident, agent_id=AgentId("another"))
    yield dataclasses.replace(incident, subject=dataclasses.replace(subject, name=f"{subject.name}x"))
    yield dataclasses.replace(incident, subject=_other_kind(subject))
    yield dataclasses.replace(incident, fault_number=7)
    yield dataclasses.replace(incident, drill=not incident.drill)
    yield dataclasses.replace(incident, evidence=(*incident.evidence, _ANOTHER))
    yield dataclasses.replace(incident, evidence=())
    others = [each for each in FaultClass if each is not incident.fault_class]
    yield dataclasses.replace(incident, fault_class=others[0])


def _other_actions(action: Action) -> Iterator[Action]:
    """Yield the action with each field changed, and with each element of its command changed or gone."""
    kinds = [each for each in ActionKind if each is not action.kind]
    yield dataclasses.replace(action, kind=kinds[0])
    yield dataclasses.replace(action, host=AgentId("another"))
    yield dataclasses.replace(action, target=_other_kind(action.target))
    yield dataclasses.replace(action, target=Subject(action.target.kind, f"{action.target.name}x"))
    yield dataclasses.replace(action, command=(*action.command, ""))
    for at, element in enumerate(action.command):
        before, after = action.command[:at], action.command[at + 1 :]
        yield dataclasses.replace(action, command=(*before, f"{element} ", *after))
        yield dataclasses.replace(action, command=(*before, *after))


@pytest.mark.parametrize("fault_class", FaultClass)
@security_property(
    "B10", "Each part of the action, its target's life, the case and the evidence is in the digest."
)
def test_any_change_of_what_was_approved_voids_the_approval(fault_class: FaultClass) -> None:
    """Of every fault class: one changed field, and both approving and carrying out are refused."""
    incident = an_entry(fault_class).incident
    advice = advise(incident)
    digest = binding.digest_of(advice.action, incident)
    policy = Policy()
    proposed = approvals.propose(incident, advice, ordinal=1, policy=policy, now_ns=A_MOMENT_NS)
    changed = [(incident, action) for action in _other_actions(advice.action)]
    changed += [(other, advice.action) for other in _other_lives(incident)]
    for other, action in changed:
        assert binding.digest_of(action, other) != digest, (other, action)
    for other in _other_lives(incident):
        if other.drill is incident.drill and advice.action.kind is not ActionKind.HUMAN:
            with pytest.raises(Superseded):
                approvals.step(
                    proposed, other, Approve("ada", "why", digest), policy=policy, now_ns=A_MOMENT_NS
                )


@security_property(
    "B11", "An approval is used once; a restart keeps that, and a restored database shows in its head."
)
def test_an_approval_cannot_be_used_again(another: House, tmp_path: Path) -> None:
    """Sent again, after a restart too, it is refused; a restored database lacks the head that was kept."""
    older = tmp_path / "older.db"
    with living(another):
        entry = another.opened(another.host())
        shutil.copy(another.database, older)
        for suffix in ("-wal", "-shm"):
            shutil.copy(f"{another.database}{suffix}", f"{older}{suffix}")
        assert another.decide(entry, "approve").json()["state"] == "approved"
        assert another.decide(entry, "approve").status_code == 409
        assert another.decide(entry, "done").json()["state"] == "done"
        head = another.audit()[-1]["digest"]
    with living(another):
        for verb in ("approve", "done", "reject"):
            refused = another.decide(entry, verb, by="grace")
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "refused"), verb
        assert another.state(entry) == "done"
        assert _verify(another, "--head", head) == 0
    for suffix in ("", "-wal", "-shm"):
        shutil.copy(f"{older}{suffix}", f"{another.database}{suffix}")
    with living(another):
        assert another.state(entry) == "proposed"
        assert _verify(another) == 0, "a chain that was cut is whole by itself"
        assert _verify(another, "--head", head) == 1, "the digest that was kept shows what is missing"


def _verify(house: House, *options: str) -> int:
    file = house.folder / "vera.token"
    file.write_text(f"{token('vera')}\n")
    file.chmod(0o600)
    return run(["--url", house.url, "--token-file", str(file), "audit", "verify", *options])


@pytest.mark.parametrize("seconds", [3600.0, 3601.0, 10 * 86_400.0])
@security_property(
    "B12", "At the deadline, after it, and when the clock is set back, it is too late, and stays so."
)
async def test_what_expired_is_not_revived_by_a_clock(tmp_path: Path, seconds: float) -> None:
    """Neither a jump forward nor one back lets an approval, or what was approved, be used again."""
    clock, store = ManualClock(), SqliteStore(path=tmp_path / "state.db")
    policy = Policy(approve_within_s=3600, execute_within_s=3600)
    service = Service(store=store, clock=clock, policy=policy)
    await service.prepare()
    for host in ("late", "lapsing"):
        await service.receive(_delivery(host))
    entries = {each.incident.agent_id: each.recommendation for each in await service.queue(None)}
    late, lapsing = entries[AgentId("late")], entries[AgentId("lapsing")]
    await service.approve(lapsing.id, person="ada", reason="now", digest=lapsing.digest)
    clock.jump(seconds)
    with pytest.raises(Expired):
        await service.approve(late.id, person="ada", reason="late", digest=late.digest)
    with pytest.raises(Expired):
        await service.done(lapsing.id, person="ada")
    await service.tick()
    clock.jump(-seconds)
    for again in (late, lapsing):
        with pytest.raises(DeskError):
            await service.approve(again.id, person="ada", reason="late", digest=again.digest)
    states = {each.recommendation.id: each.recommendation.state for each in await service.queue(None)}
    assert (states[late.id], states[lapsing.id]) == (State.EXPIRED, State.LAPSED)
    await store.close()


def _delivery(host: str) -> Delivery:
    bodies = (heartbeat(), case_report())
    payloads = [wired(body, number, host=host) for number, body in enumerate(bodies, start=1)]
    reports: list[Report] = [codec.decode(payload) for payload in payloads]
    rows = [(each.sequence, each.created_ns, raw) for each, raw in zip(reports, payloads, strict=True)]
    return Delivery(reports[0].agent_id, reports[0].boot_id, rows, reports)


@security_property("B13", "The host is in the digest: the same fault on another host is another decision.")
def test_an_approval_for_one_host_is_none_for_another(house: House) -> None:
    """Two hosts with the same container id and fault: the digest of one is refused at the other."""
    one, other = house.opened(house.host()), house.opened(house.host())
    assert one["action"]["command"] == other["action"]["command"]
    crossed = house.decide(other, "approve", digest=one["digest"])
    assert (crossed.status_code, crossed.json()["error"]["code"]) == (409, "superseded")
    assert house.decide(one, "approve").status_code == 200
    assert house.state(other) == "proposed"


@security_property("B15", "A rejection, and a fault that went away, win over any later approval.")
def test_what_was_rejected_or_withdrawn_is_not_approved(house: House) -> None:
    """Both are final, for whoever asks and however often; the audit log has no approval of either."""
    host = house.host()
    rejected, withdrawn = house.opened(), house.opened(host)
    assert house.decide(rejected, "reject").json()["state"] == "rejected"
    house.send(host, case_report(CasePhase.CLEARED, count=2))
    for entry, state in ((rejected, "rejected"), (withdrawn, "withdrawn")):
        for person in ("ada", "grace", "root"):
            assert house.decide(entry, "approve", by=person).status_code == 409
        assert house.state(entry) == state
        assert "recommendation.approved" not in {link["verb"] for link in house.audit(entry["id"])}


@pytest.mark.parametrize("fault_class", FaultClass)
@security_property(
    "B16", "From what is shown alone the digest can be made again: nothing shown is a summary."
)
def test_what_is_shown_is_what_is_digested(fault_class: FaultClass) -> None:
    """The view's host, kind, target and arguments, put together again, give the digest that it shows."""
    entry = an_entry(fault_class)
    advice = advise(entry.incident)
    digest = binding.digest_of(advice.action, entry.incident)
    recommendation = dataclasses.replace(entry.recommendation, advice=advice, digest=digest)
    view = entry_view(dataclasses.replace(entry, recommendation=recommendation))
    assert view.action.whole
    again = Action(
        kind=ActionKind(view.action.kind),
        host=AgentId(view.action.host),
        target=Subject(SubjectKind(view.action.target.kind), view.action.target.name),
        command=tuple(view.action.command),
    )
    assert binding.digest_of(again, entry.incident) == view.digest
