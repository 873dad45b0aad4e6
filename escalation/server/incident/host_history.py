"""What was changed on each host lately that is no fault: what a person asks about first at 3 a.m.

Starts, ends, reloads, sleeps and drivers are told by agents as they happen; that a host booted or that its
agent is another one follows from heartbeats, that a server came back otherwise from the case of it. Kept for
a week, the newest 300 of a host. Times are the host's own, held to the orchestrator's where they lie ahead.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from escalation.model import (
    AgentId,
    DriftEvidence,
    FaultClass,
    Heartbeat,
    HostChange,
    HostChangeKind,
    Incident,
    Subject,
    SubjectKind,
)
from escalation.server.desk import HostState
from escalation.server.incident.incidents import COUNT_MAX
from escalation.server.playbook.names import acted_on
from escalation.server.storage.records import Kind
from escalation.server.storage.store import Ledger
from escalation.wording.service import change_words

KEPT: Final = 300
KEPT_S: Final = 7 * 86_400.0

NEAR_S: Final = 1800.0
"""How long before or after the first sight of a fault a change is near it."""

SHOWN: Final = 20

IN_ONE_DELIVERY: Final = 64
"""How many changes of one delivery are noted: more than an agent tells in an hour."""


class ChangeKind(enum.StrEnum):
    """What was changed. OTHER is what a newer agent, or a newer version of this program, calls by name."""

    OTHER = "other"
    MANAGER_RELOADED = "manager_reloaded"
    SUSPENDED = "suspended"
    STARTED = "started"
    ENDED = "ended"
    DRIVER_CHANGED = "driver_changed"
    CONFIG_CHANGED = "config_changed"
    BOOTED = "booted"
    AGENT_STARTED = "agent_started"
    AGENT_UPGRADED = "agent_upgraded"

    @classmethod
    def _missing_(cls, value: object) -> ChangeKind | None:
        return cls.OTHER if isinstance(value, str) else None


_OF_AGENTS: Final = {
    HostChangeKind.MANAGER_RELOADED: ChangeKind.MANAGER_RELOADED,
    HostChangeKind.SUSPENDED: ChangeKind.SUSPENDED,
    HostChangeKind.STARTED: ChangeKind.STARTED,
    HostChangeKind.ENDED: ChangeKind.ENDED,
    HostChangeKind.DRIVER_CHANGED: ChangeKind.DRIVER_CHANGED,
    HostChangeKind.UNKNOWN: ChangeKind.OTHER,
}


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a host: when it happened (the last of `count` times), what, to what, and in short how."""

    at_ns: int
    kind: ChangeKind
    subject: Subject
    count: int = 1
    detail: str = ""


CHANGE: Final = Kind("change", Change)
"""The records of changes: owned by their host, keyed by their time."""


@dataclass(frozen=True, slots=True)
class Near:
    """A change on a host, and how long after the first sight of an incident it was (before it: below 0)."""

    host: AgentId
    change: Change
    after_s: float


def told(change: HostChange) -> Change:
    """Return what an agent told."""
    return Change(change.at_ns, _OF_AGENTS[change.kind], change.subject, max(1, change.count))


def of_heartbeat(before: HostState, heartbeat: Heartbeat, *, now_ns: int) -> Iterator[Change]:
    """Yield what a heartbeat shows to be another than before: the boot, the agent's version, its life."""
    whole = Subject(SubjectKind.HOST, before.agent_id)
    at_ns = heartbeat.started_ns or now_ns
    if before.kernel_boot_id and before.kernel_boot_id != heartbeat.kernel_boot_id:
        yield Change(at_ns, ChangeKind.BOOTED, whole)
    elif before.started_ns and before.started_ns != heartbeat.started_ns:
        yield Change(at_ns, ChangeKind.AGENT_STARTED, whole)
    if before.agent_version and before.agent_version != heartbeat.agent_version:
        detail = f"{before.agent_version} to {heartbeat.agent_version}"
        yield Change(at_ns, ChangeKind.AGENT_UPGRADED, whole, detail=detail)


def of_incident(incident: Incident) -> Iterator[Change]:
    """Yield the change that an incident is about, where it is about one."""
    if incident.drill:
        return
    if incident.fault_class is FaultClass.SERVICE_CONFIG_DRIFT:
        drifts = (each for each in incident.evidence if isinstance(each, DriftEvidence))
        changed = dict.fromkeys(change_words(change) for each in drifts for change in each.changes)
        detail = ", ".join(changed)
        yield Change(incident.first_seen_ns, ChangeKind.CONFIG_CHANGED, acted_on(incident), detail=detail)
    if incident.fault_class is FaultClass.GPU_DRIVER_MISMATCH:
        yield Change(incident.first_seen_ns, ChangeKind.DRIVER_CHANGED, incident.subject)


def note(ledger: Ledger, agent_id: AgentId, changes: Iterable[Change], *, now_ns: int) -> None:
    """Keep changes of a host, and forget what is too old or too much."""
    fresh = {_key(each): each for each in (_held(each, now_ns) for each in changes)}
    if not fresh:
        return
    for key, change in fresh.items():
        ledger.records.put(CHANGE, key, change, owner=agent_id)
    kept = ledger.records.of(CHANGE, owner=agent_id)
    oldest_ns = now_ns - int(KEPT_S * 1e9)
    for number, (key, change) in enumerate(reversed(list(kept.items()))):
        if number >= KEPT or change.at_ns < oldest_ns:
            ledger.records.remove(CHANGE, key, owner=agent_id)


def near(ledger: Ledger, hosts: Iterable[AgentId], *, seen_ns: int) -> tuple[Near, ...]:
    """Return what was changed on `hosts` around `seen_ns`, nearest first, at most `SHOWN`."""
    found = [
        Near(host, change, (change.at_ns - seen_ns) / 1e9)
        for host in dict.fromkeys(hosts)
        for change in ledger.records.of(CHANGE, owner=host).values()
    ]
    close = [each for each in found if abs(each.after_s) <= NEAR_S]
    return tuple(sorted(close, key=lambda each: (abs(each.after_s), each.host, _key(each.change)))[:SHOWN])


def _held(change: Change, now_ns: int) -> Change:
    """Return a change that did not happen before the epoch or after now."""
    at_ns, count = max(0, min(change.at_ns, now_ns)), min(COUNT_MAX, change.count)
    if (at_ns, count) == (change.at_ns, change.count):
        return change
    return Change(at_ns, change.kind, change.subject, count, change.detail)


def _key(change: Change) -> str:
    """Return a key that sorts by time, and is the same whenever the same is told."""
    name = f"{change.subject.kind} {change.subject.name} {change.detail}"
    digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()
    return f"{change.at_ns:020d} {change.kind} {digest[:16]}"
