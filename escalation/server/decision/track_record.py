"""What the ledger remembers of earlier actions: endings, restarts of a target, and how long they took.

Three kinds of records, each written where the recommendation itself changes, in the same transaction. A
target's name is host text of any length, so what is kept by target is found by a digest of it.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Annotated, Any, Final, TypeVar

import msgspec

from escalation.model import (
    Action,
    ActionKind,
    AgentId,
    FaultClass,
    History,
    Incident,
    Measured,
    Past,
    ReasonCode,
    Recommendation,
    State,
    Subject,
    Tally,
)
from escalation.server.playbook.alternatives import RESTARTS
from escalation.server.playbook.names import acted_on
from escalation.server.storage.records import Kind
from escalation.server.storage.store import Ledger

T = TypeVar("T")

_LAST_AT_MOST: Final = 5
"""How many earlier uses of a remedy are shown, and kept per host."""

_MEASURED_AT_MOST: Final = 20
_SPENT_AT_MOST: Final = 100
"""How many measured restarts, and how many approvals, are kept per target: the newest."""

_ASKED_ONE_BY_ONE: Final = 8
"""After how many questions of one kind within a transaction all of its records are read."""

_LONGEST_RELOAD_S: Final = 6 * 3600.0
"""A restart that took longer was no restart: somebody mended something else meanwhile."""


class RestartBudget(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[approvals.restart_budget]` table: how many restarts of one target may be approved in a time."""

    approvals: Annotated[int, msgspec.Meta(ge=1, le=_SPENT_AT_MOST)] = 3
    within_s: Annotated[float, msgspec.Meta(ge=60, le=30 * 86_400)] = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class Endings:
    """How a remedy ended on one host: how often it cured, of how often it was tried, and the last times."""

    cured: int = 0
    tried: int = 0
    last: tuple[Past, ...] = ()


@dataclass(frozen=True, slots=True)
class Spent:
    """One approved restart of a target."""

    recommendation_id: str
    at_ns: int


@dataclass(frozen=True, slots=True)
class Reload:
    """How long a target took to serve again, once."""

    seconds: float


ENDINGS: Final = Kind("endings", Endings)
"""Owned by fault class and kind of action, by host."""

SPENT: Final = Kind("restart", Spent)
"""Owned by the digest of host, kind of action and target, by time."""

RELOADS: Final = Kind("reload", Reload)
"""Owned by the digest of host and target, by time."""


def note_step(
    ledger: Ledger, before: Recommendation | None, after: Recommendation, incident: Incident, *, now_ns: int
) -> None:
    """Remember what a recommendation's change of state teaches."""
    if incident.drill or before is None or before.state is after.state:
        return
    action = after.advice.action
    if after.state is State.APPROVED and action.kind in RESTARTS:
        owner = _of_action(action)
        ledger.records.put(SPENT, _key(now_ns, after.id), Spent(after.id, now_ns), owner=owner)
        _keep_newest(ledger, SPENT, owner, _SPENT_AT_MOST)
    if after.state in {State.VERIFIED, State.NOT_CURED}:
        _note_ending(ledger, after, incident, now_ns)
        if after.state is State.VERIFIED and action.kind in RESTARTS:
            _note_reload_of(ledger, after, incident)


def note_loading(ledger: Ledger, before: Incident, after: Incident) -> None:
    """Remember how long a server loaded, when its case of loading slowly is cleared because it listens."""
    if before.drill or not before.open or after.open or after.cleared_ns is None:
        return
    if not any(reason.code is ReasonCode.SERVER_LISTENS for reason in after.reasons):
        return
    loading = [each for each in before.reasons if each.code is ReasonCode.LOADING_FOR_LONG]
    if loading and loading[0].window_s > 0:
        since_s = max(0.0, (after.cleared_ns - before.last_seen_ns) / 1e9)
        _put_reload(ledger, after.agent_id, acted_on(after), loading[0].window_s + since_s, after.cleared_ns)


class TrackRecord:
    """Reads what is remembered; who asks about many targets gets all of them with one question."""

    def __init__(self, ledger: Ledger) -> None:
        """Read from `ledger`, within one transaction."""
        self._ledger = ledger
        self._asked: Counter[str] = Counter()
        self._all: dict[str, dict[str, list[Any]]] = {}
        self._outcomes: dict[tuple[FaultClass, ActionKind], Tally] = {}

    def __repr__(self) -> str:
        return f"TrackRecord(asked={self._asked.total()})"

    def history_of(self, fault_class: FaultClass, action: Action) -> History:
        """Return how this kind of action ended for this fault class."""
        endings = self._ledger.records.of(ENDINGS, owner=_of_remedy(fault_class, action.kind))
        here = endings.get(action.host, Endings())
        fleet = self._outcomes.get((fault_class, action.kind))
        if fleet is None:
            fleet = Tally(*self._ledger.outcomes(fault_class, action.kind))
            self._outcomes[fault_class, action.kind] = fleet
        last = sorted((past for each in endings.values() for past in each.last), key=lambda past: -past.at_ns)
        return History(Tally(here.cured, here.tried), fleet, tuple(last[:_LAST_AT_MOST]))

    def reload_of(self, host: AgentId, target: Subject) -> Measured | None:
        """Return how long this target took to serve again after earlier restarts; None: not measured."""
        seconds = [each.seconds for each in self._kept(RELOADS, _of_target(host, target))]
        return Measured(median(seconds), max(seconds), len(seconds)) if seconds else None

    def spent(self, action: Action, budget: RestartBudget, *, now_ns: int) -> int:
        """Return how many restarts of this target were approved within the budget's time.

        What lies in the future counts: a clock that was set back gives nothing back.
        """
        since_ns = now_ns - int(budget.within_s * 1e9)
        return sum(each.at_ns > since_ns for each in self._kept(SPENT, _of_action(action)))

    def _kept(self, kind: Kind[T], owner: str) -> Sequence[T]:
        """Return an owner's records; after some questions all of the kind are read at once."""
        self._asked[kind.name] += 1
        if kind.name not in self._all and self._asked[kind.name] <= _ASKED_ONE_BY_ONE:
            return tuple(self._ledger.records.of(kind, owner=owner).values())
        if kind.name not in self._all:
            found: dict[str, list[Any]] = {}
            for (of, _), value in self._ledger.records.owners(kind).items():
                found.setdefault(of, []).append(value)
            self._all[kind.name] = found
        return self._all[kind.name].get(owner, ())


def _note_ending(ledger: Ledger, after: Recommendation, incident: Incident, now_ns: int) -> None:
    action = after.advice.action
    owner = _of_remedy(incident.fault_class, action.kind)
    known = ledger.records.of(ENDINGS, owner=owner).get(action.host, Endings())
    cured = after.state is State.VERIFIED
    past = Past(
        at_ns=now_ns, host=action.host, target=action.target.name, cured=cured, approved_by=after.approvers
    )
    ending = replace(
        known,
        cured=known.cured + cured,
        tried=known.tried + 1,
        last=(past, *known.last)[:_LAST_AT_MOST],
    )
    ledger.records.put(ENDINGS, action.host, ending, owner=owner)


def _note_reload_of(ledger: Ledger, after: Recommendation, incident: Incident) -> None:
    """Measure from when a person said that it was done until the same detector cleared the case.

    Where it was cleared before anybody said so, nothing is measured: when it was carried out is unknown.
    """
    if after.done_by is None or after.done_ns is None or incident.cleared_ns is None:
        return
    seconds = (incident.cleared_ns - after.done_ns) / 1e9
    action = after.advice.action
    _put_reload(ledger, action.host, action.target, seconds, incident.cleared_ns)


def _put_reload(ledger: Ledger, host: AgentId, target: Subject, seconds: float, at_ns: int) -> None:
    if not 0 < seconds <= _LONGEST_RELOAD_S:
        return
    owner = _of_target(host, target)
    ledger.records.put(RELOADS, _key(at_ns, ""), Reload(round(seconds, 3)), owner=owner)
    _keep_newest(ledger, RELOADS, owner, _MEASURED_AT_MOST)


def _keep_newest(ledger: Ledger, kind: Kind[T], owner: str, limit: int) -> None:
    keys = list(ledger.records.of(kind, owner=owner))
    for key in keys[: max(0, len(keys) - limit)]:
        ledger.records.remove(kind, key, owner=owner)


def _of_remedy(fault_class: FaultClass, kind: ActionKind) -> str:
    return f"{fault_class.value} {kind.value}"


def _of_action(action: Action) -> str:
    return _digest(action.host, action.kind.value, action.target.kind.value, action.target.name)


def _of_target(host: AgentId, target: Subject) -> str:
    return _digest(host, target.kind.value, target.name)


@functools.lru_cache(maxsize=4096)  # asked for each report of a case whose advice is a restart
def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _key(at_ns: int, name: str) -> str:
    return f"{max(0, at_ns):020d} {name}"
