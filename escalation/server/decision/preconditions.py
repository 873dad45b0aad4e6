"""What has to hold for an action, judged by the newest facts: when it is shown and when it is approved.

Everything here is a pure function of a `Scene`. What is not known is said to be not known: it never counts as
holding. A condition that does not belong to an action is not listed. What only reads has none, and what a
person does by hand is theirs to judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, assert_never

from escalation.model import (
    Action,
    ActionKind,
    AgentId,
    Check,
    Condition,
    FaultClass,
    FlightEvidence,
    Gauge,
    Incident,
    MetricEvidence,
    Override,
    ProcessEvidence,
    Result,
    RouteEvidence,
)
from escalation.server.decision.track_record import RestartBudget
from escalation.server.desk import HostState, Refused
from escalation.server.playbook.alternatives import RESTARTS
from escalation.server.playbook.names import acted_on
from escalation.server.playbook.serving import route_of
from escalation.wording.moments import moment
from escalation.wording.quantities import counted, duration

INTERRUPTING: Final = RESTARTS | {ActionKind.REMOVE_ROUTE}
"""The kinds of action after which somebody is not served for a while."""

CHANGING: Final = INTERRUPTING | {
    ActionKind.RESUME_PROCESS,
    ActionKind.FREE_SPACE,
    ActionKind.CHANGE_SETTING,
}
"""The kinds of action that change anything and can be approved."""

_REASON_LIMIT: Final = 2000

_SAID_TO_BE_DEAD: Final = frozenset(
    {
        FaultClass.DISTRIBUTED_RANK_STALL,
        FaultClass.NETWORK_UPSTREAM_UNREACHABLE,
        FaultClass.PROCESS_NOT_ANSWERING,
        FaultClass.PROCESS_UNINTERRUPTIBLE,
        FaultClass.ROUTE_ENGINE_STALLED,
    }
)
"""The faults whose restart is right only because nothing moves any more."""

_SERVES_NOBODY: Final = _SAID_TO_BE_DEAD | {
    FaultClass.ROUTE_DEGENERATE_OUTPUT,
    FaultClass.ROUTE_EMPTY_COMPLETION,
    FaultClass.UNIT_RESTART_LOOP,
}
"""The faults with which a replica is no healthy one: nothing is lost with the last of them."""

_LOADED: Final = frozenset(
    {
        FaultClass.CPU_CONTENTION,
        FaultClass.MEMORY_THRASHING,
        FaultClass.MEMORY_UNIFIED_EXHAUSTION,
        FaultClass.ROUTE_LATENCY_RISING,
        FaultClass.ROUTE_SATURATED,
    }
)
"""The faults of a replica that serves, and could not take more."""

_DOES_NOT_HINDER: Final = frozenset(
    {FaultClass.EXPOSURE_OFF_MESH_LISTENER, FaultClass.EXPOSURE_OPEN_CONTROL_PLANE}
)


@dataclass(frozen=True, slots=True)
class Replica:
    """Another server of the same model: what it is called, and what stands open against it."""

    name: str
    faults: frozenset[FaultClass]
    silent: bool = False

    @property
    def healthy(self) -> bool:
        """Return whether it serves, as far as is known."""
        return not self.silent and not self.faults - _LOADED - _DOES_NOT_HINDER

    @property
    def can_take_more(self) -> bool:
        """Return whether nothing says that it has as much as it can take."""
        return self.healthy and not self.faults & _LOADED


@dataclass(frozen=True, slots=True)
class Rank:
    """One host of a model that runs over several: what it showed last, when it was heard, whether it sees."""

    host: AgentId
    last_seen_ns: int
    last_heard_ns: int
    silent: bool
    sees: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The newest facts around an action.

    `beside` are other open incidents of the same host. `replicas` are the others that serve the same, None
    where nobody has declared them. `ranks` are there where a stall spans several hosts.
    """

    incident: Incident
    action: Action
    host: HostState | None
    would_be_seen: bool
    beside: tuple[Incident, ...]
    replicas: tuple[Replica, ...] | None
    ranks: tuple[Rank, ...]
    spent: int
    budget: RestartBudget
    maintenance: tuple[str, ...]
    evidence_max_age_s: float
    now_ns: int


def evaluate(scene: Scene) -> tuple[Check, ...]:
    """Return every condition that belongs to the action, with what became of it."""
    kind, fault = scene.action.kind, scene.incident.fault_class
    if kind not in CHANGING:
        return ()
    checks = [_same_life(scene), _evidence_fresh(scene)]
    if kind in RESTARTS and fault in _SAID_TO_BE_DEAD:
        checks.append(_not_busy(scene))
    if kind in INTERRUPTING:
        checks += [_other_replica(scene), _others_take_load(scene)]
    if fault is FaultClass.DISTRIBUTED_RANK_STALL:
        checks.append(_ranks_fresh(scene))
    if kind in RESTARTS:
        checks.append(_budget_left(scene))
    checks.append(_no_maintenance(scene))
    return tuple(sorted(checks, key=lambda each: tuple(Condition).index(each.condition)))


def by_policy(
    checks: Sequence[Check],
    *,
    kind: ActionKind,
    may_override: frozenset[Condition],
    refuse_unknown: frozenset[ActionKind],
) -> tuple[Check, ...]:
    """Return the checks with what policy makes of each."""
    return tuple(
        replace(
            check,
            in_the_way=_refuses(check.result, unknown_refuses=kind in refuse_unknown),
            may_be_set_aside=check.condition in may_override,
        )
        for check in checks
    )


def insist(checks: Sequence[Check], overrides: Sequence[Override]) -> None:
    """Raise Refused, with the words, for a condition in the way that nobody set aside, or nobody may."""
    aside = {each.condition for each in overrides}
    found = {each.condition for each in checks}
    for override in overrides:
        if override.condition not in found:
            raise Refused(f"{override.condition.value} is no condition of this action")
        if not override.reason.strip():
            raise Refused(f"setting {override.condition.value} aside needs a reason")
        if "\0" in override.reason or len(override.reason) > _REASON_LIMIT:
            raise Refused(f"a reason has at most {_REASON_LIMIT} characters, and no NUL")
    for check in checks:
        if not check.in_the_way:
            continue
        why = f"{check.condition.value} {'fails' if check.result is Result.FAILS else 'is not known'}"
        if not check.may_be_set_aside:
            raise Refused(f"{why}, and policy lets nobody set it aside: {check.words}")
        if check.condition not in aside:
            raise Refused(f"{why}: {check.words}. Whoever knows better sets it aside by name, with a reason")


def _refuses(result: Result, *, unknown_refuses: bool) -> bool:
    match result:
        case Result.HOLDS:
            return False
        case Result.UNKNOWN:
            return unknown_refuses
        case Result.FAILS:
            return True
        case _:
            assert_never(result)


def _check(condition: Condition, result: Result, words: str) -> Check:
    return Check(condition, result, words)


def _same_life(scene: Scene) -> Check:
    incident, host = scene.incident, scene.host
    condition = Condition.SAME_LIFE
    if not incident.open:
        return _check(condition, Result.FAILS, "the case is over")
    boot = incident.incarnation.kernel_boot_id
    if host is not None and host.kernel_boot_id and boot and host.kernel_boot_id != boot:
        return _check(condition, Result.FAILS, "the host was started anew since the evidence was seen")
    target = acted_on(incident)
    for other in scene.beside:
        if (
            acted_on(other) == target
            and other.last_seen_ns > incident.last_seen_ns
            and _differ(incident, other)
        ):
            return _check(
                condition,
                Result.FAILS,
                f"{other.fault_class.value} was seen later on another life of the same target",
            )
    if host is None or not host.kernel_boot_id:
        return _check(condition, Result.UNKNOWN, "the host has not said which start of it this is")
    return _check(condition, Result.HOLDS, "no report speaks of another life of it")


def _differ(one: Incident, other: Incident) -> bool:
    mine, theirs = one.incarnation, other.incarnation
    pairs = (
        (mine.kernel_boot_id or None, theirs.kernel_boot_id or None),
        (mine.container_id, theirs.container_id),
        (mine.start_ticks, theirs.start_ticks) if mine.pid == theirs.pid else (None, None),
    )
    return any(here is not None and there is not None and here != there for here, there in pairs)


def _evidence_fresh(scene: Scene) -> Check:
    """An open case without news still stands while its host is heard and would say that it is over."""
    condition, host, incident = Condition.EVIDENCE_FRESH, scene.host, scene.incident
    seen_s = max(0.0, (scene.now_ns - incident.last_seen_ns) / 1e9)
    last = f"last seen {duration(seen_s)} ago"
    if seen_s <= scene.evidence_max_age_s:
        return _check(condition, Result.HOLDS, last)
    if host is None:
        return _check(condition, Result.UNKNOWN, f"{last}, and nothing is known of the host")
    heard_s = max(0.0, (scene.now_ns - host.last_heard_ns) / 1e9)
    if host.silent or heard_s > scene.evidence_max_age_s:
        return _check(condition, Result.FAILS, f"{last}, and the host is silent for {duration(heard_s)}")
    if not scene.would_be_seen:
        return _check(condition, Result.UNKNOWN, f"{last}, and the host cannot see now whether it is over")
    return _check(
        condition, Result.HOLDS, f"{last}; the host was heard {duration(heard_s)} ago and holds the case open"
    )


def _not_busy(scene: Scene) -> Check:
    condition = Condition.NOT_BUSY
    told = sorted(
        (each for each in (scene.incident, *scene.beside) if _is_same_server(each, scene.incident)),
        key=lambda each: -each.last_seen_ns,
    )
    dead = ""
    for incident in told:
        for piece in incident.evidence:
            alive, now_dead = _life_in(piece, incident)
            if alive and (not dead or incident.last_seen_ns >= scene.incident.last_seen_ns):
                return _check(condition, Result.FAILS, f"busy is not dead: {alive}")
            dead = dead or now_dead
    if dead:
        return _check(condition, Result.HOLDS, dead)
    return _check(condition, Result.UNKNOWN, "nothing that was seen tells a busy server from a dead one")


def _life_in(piece: object, incident: Incident) -> tuple[str, str]:
    """Return what says that the server works, and what says that it does not."""
    seen = f"as seen at {moment(incident.last_seen_ns)}"
    match piece:
        case FlightEvidence() if piece.requests > 0:
            silence = (
                f"not a byte for {duration(piece.silent_s)} where {duration(piece.patience_s)} are allowed"
            )
            flight = f"{counted(piece.requests, 'request')} in flight, {silence}, {seen}"
            return ("", flight) if 0 < piece.patience_s <= piece.silent_s else (flight, "")
        case MetricEvidence(gauge=Gauge.GENERATED_TOKENS):
            if piece.rise > 0:
                return f"it made {piece.rise:g} tokens in {duration(piece.window_s)}, {seen}", ""
            return "", f"it made no token in {duration(piece.window_s)}, {seen}"
        case RouteEvidence() if incident.fault_class in {
            FaultClass.ROUTE_LATENCY_RISING,
            FaultClass.ROUTE_SATURATED,
        }:
            answered = piece.exchanges - piece.unobserved
            return (
                (f"{counted(answered, 'request')} came back, if slowly, {seen}", "")
                if answered > 0
                else ("", "")
            )
        case ProcessEvidence():
            return "", f"it got no further for {duration(piece.lasted_s)}, {seen}"
        case _:
            return "", ""


def _is_same_server(one: Incident, other: Incident) -> bool:
    """Return whether two incidents of one host are of one server: by what is acted on, or by its port."""
    if acted_on(one) == acted_on(other):
        return True
    here, there = route_of(one), route_of(other)
    return here is not None and there is not None and here.port == there.port


def _other_replica(scene: Scene) -> Check:
    condition = Condition.OTHER_REPLICA
    if scene.incident.fault_class in _SERVES_NOBODY:
        return _check(condition, Result.HOLDS, "as it is it serves nobody")
    if scene.replicas is None:
        return _check(condition, Result.UNKNOWN, "nobody has declared what else serves the same")
    healthy = [each.name for each in scene.replicas if each.healthy]
    of = f"{len(healthy)} of {counted(len(scene.replicas), 'other replica')}"
    if healthy:
        is_are = "is" if len(healthy) == 1 else "are"
        return _check(condition, Result.HOLDS, f"{of} {is_are} healthy: {', '.join(healthy)}")
    if not scene.replicas:
        return _check(condition, Result.FAILS, "it is the only one that serves this")
    return _check(condition, Result.FAILS, f"it is the last that serves this: {of} are healthy")


def _others_take_load(scene: Scene) -> Check:
    condition = Condition.OTHERS_TAKE_LOAD
    if scene.replicas is None:
        return _check(condition, Result.UNKNOWN, "nobody has declared where its callers could go")
    able = [each.name for each in scene.replicas if each.can_take_more]
    if able:
        return _check(
            condition, Result.HOLDS, f"nothing says that these have all they can take: {', '.join(able)}"
        )
    if scene.incident.fault_class in _SERVES_NOBODY:
        return _check(condition, Result.HOLDS, "it has no load that others would have to take")
    return _check(condition, Result.FAILS, "no other is there that could take its callers")


def _ranks_fresh(scene: Scene) -> Check:
    condition = Condition.RANKS_FRESH
    if not scene.ranks:
        return _check(condition, Result.UNKNOWN, "only one host has told of the stall")
    limit_s = scene.evidence_max_age_s
    stale = [
        each.host
        for each in scene.ranks
        if each.silent or (scene.now_ns - max(each.last_seen_ns, each.last_heard_ns)) / 1e9 > limit_s
    ]
    if stale:
        return _check(condition, Result.FAILS, f"nothing new is heard of {', '.join(stale)}")
    blind = [
        each.host
        for each in scene.ranks
        if not each.sees and (scene.now_ns - each.last_seen_ns) / 1e9 > limit_s
    ]
    if blind:
        told = f"older than {duration(limit_s)}, and it cannot see now whether it is over"
        return _check(condition, Result.UNKNOWN, f"what is known of {', '.join(blind)} is {told}")
    hosts = ", ".join(each.host for each in scene.ranks)
    return _check(condition, Result.HOLDS, f"heard of within {duration(limit_s)}: {hosts}")


def _budget_left(scene: Scene) -> Check:
    budget = scene.budget
    words = f"{scene.spent} of {budget.approvals} restarts of it approved in {duration(budget.within_s)}"
    if scene.spent >= budget.approvals:
        return _check(Condition.BUDGET_LEFT, Result.FAILS, f"{words}: find the cause first")
    return _check(Condition.BUDGET_LEFT, Result.HOLDS, words)


def _no_maintenance(scene: Scene) -> Check:
    if scene.maintenance:  # whether what is done in a window clashes with it, only who works there knows
        return _check(Condition.NO_MAINTENANCE, Result.UNKNOWN, "; ".join(scene.maintenance))
    return _check(Condition.NO_MAINTENANCE, Result.HOLDS, "nobody has said that they work on it")
