"""What else could be done: every advice names doing nothing, and the other ways that its facts leave open.

A remedy gives the ways that are its own (`Advice.alternatives`); here stand those that follow from the
fault's family and from the kind of action. Each says what it costs and why it is not the first choice, so
that who decides otherwise knows what they choose.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from escalation.model import ActionKind, Advice, Alternative, FaultClass, Incident, Way
from escalation.server.playbook import serving

RESTARTS: Final = frozenset(
    {ActionKind.RESTART_UNIT, ActionKind.RESTART_CONTAINER, ActionKind.RECREATE_CONTAINER}
)
"""The kinds of action that end what runs and start it again."""


@dataclass(frozen=True, slots=True)
class _Idle:
    """What it costs to leave a family of faults as it is, and why that is not the first choice."""

    costs: str
    why_not: str


_IDLE: Final[Mapping[str, _Idle]] = {
    "container": _Idle(
        "What runs in the container fails again with the same request.",
        "It does not end by itself: the size is fixed when the container is made.",
    ),
    "cpu": _Idle(
        "Answers stay as slow as they are now.",
        "It may end when the load does; nobody can say when.",
    ),
    "database": _Idle(
        "Whoever needs a connection is refused until others give theirs back.",
        "Connections that leak are not given back.",
    ),
    "distributed": _Idle(
        "The model answers nobody, on every host that it runs over.",
        "A rank that waits for a lost one waits for ever.",
    ),
    "exposure": _Idle(
        "Whoever reaches that address can go on reaching the service.",
        "Nothing closes it by itself, and scanners find an open port within hours.",
    ),
    "gpu": _Idle(
        "What needs the GPU goes on without it, or fails.",
        "A GPU that was lost to a program does not come back to it by itself.",
    ),
    "memory": _Idle(
        "What is short of memory is killed, is refused or stands still, and may take the host with it.",
        "Memory that nobody gives back does not become free.",
    ),
    "mesh": _Idle(
        "What goes over the mesh is slow or does not arrive.",
        "The mesh often heals by itself; a key that has expired does not.",
    ),
    "monitor": _Idle(
        "What happens there stays unseen, faults included.",
        "An empty queue of a blind host says nothing.",
    ),
    "network": _Idle(
        "Connections to that peer go on failing or waiting.",
        "It ends by itself only if the other side mends it.",
    ),
    "process": _Idle(
        "What needs this process waits, or gets an error.",
        "What it needs to go on will not come by itself.",
    ),
    "route": _Idle(
        "Callers go on getting what they get now.",
        "They cannot tell a bad answer from a good one by its status.",
    ),
    "scope": _Idle(
        "What is not allowed goes on.",
        "Either it is wrong, or the declared scope is: one of the two has to change.",
    ),
    "service": _Idle(
        "It goes on with settings that nobody has agreed to.",
        "The next fault may come from what has changed, and nobody would know.",
    ),
    "storage": _Idle(
        "What writes there fails, or waits, and may lose what it could not write.",
        "Space and disks do not come back by themselves.",
    ),
    "transcription": _Idle(
        "Transcripts go on arriving many times more slowly than usual.",
        "A server that has settled on the CPU stays there until it is started again.",
    ),
    "ui": _Idle(
        "People see nothing where there is an answer.",
        "They will try again, and the model works twice for nothing.",
    ),
    "unit": _Idle(
        "It goes on starting and ending, and each start takes memory and time from its neighbours.",
        "What ends it is still there at the next start.",
    ),
    "unknown": _Idle(
        "Nobody here can say.",
        "The host holds it for a fault, and a newer orchestrator knows which.",
    ),
}
"""By the first word of a fault class; a test holds that every class has a family here."""

_MAY_PASS: Final[Mapping[FaultClass, str]] = {
    FaultClass.CPU_CONTENTION: "The neighbour may be done soon.",
    FaultClass.CPU_QUOTA_THROTTLED: "A burst passes by itself.",
    FaultClass.MESH_DEGRADED: "The mesh tries again by itself, and often finds a path.",
    FaultClass.NETWORK_RETRANSMISSION: "Congestion passes by itself.",
    FaultClass.NETWORK_UPSTREAM_UNREACHABLE: "A server that is loading listens when it is done.",
    FaultClass.ROUTE_ENGINE_STALLED: "A large prompt on a busy engine takes long and then answers.",
    FaultClass.ROUTE_LATENCY_RISING: "A queue that is worked off becomes short again.",
    FaultClass.ROUTE_ROUTER_COOLDOWN: "The router tries its deployments again when their time is over.",
    FaultClass.ROUTE_SATURATED: "A burst passes by itself.",
    FaultClass.STORAGE_SLOW_LOAD: "It loads, only slowly: it is ready when it has read the model.",
}
"""What may end by itself, and how."""


_REMOVE_ROUTE: Final = Alternative(
    Way.REMOVE_ROUTE,
    "Take the model out of the router first, so that callers go elsewhere while it restarts.",
    "Callers get the fallback, or an error where there is none, until it is taken in again.",
    "It is one more step to undo, and mends nothing by itself.",
)
_LOOK_FIRST: Final = Alternative(
    Way.LOOK_FIRST,
    "Read the log of the host and the server before anything is changed; keep it, for a restart "
    "begins a new one.",
    "Minutes, in which the fault goes on.",
    "The evidence stands on two signs already, or the step is small.",
)
_BY_HAND: Final = Alternative(
    Way.BY_HAND,
    "Change it where the service is defined (its unit, its compose file), and let it start anew.",
    "What runs now is interrupted once, at a time that you choose.",
    "It takes longer, and a mistake there comes back with each start.",
)


def with_alternatives(incident: Incident, advice: Advice) -> Advice:
    """Return the advice with the other ways: doing nothing, the remedy's own, then what the facts allow."""
    own = advice.alternatives
    ways = {each.way for each in own}
    further = [each for each in _further(incident, advice.action.kind) if each.way not in ways]
    return replace(advice, alternatives=(_nothing(incident.fault_class), *own, *further))


def family(fault_class: FaultClass) -> str:
    """Return the first word of a fault class."""
    return fault_class.value.partition(".")[0]


@functools.cache
def _nothing(fault_class: FaultClass) -> Alternative:
    idle = _IDLE[family(fault_class)]
    return Alternative(
        Way.DO_NOTHING,
        "Reject it with a reason and leave things as they are; the incident stays listed while it is open.",
        idle.costs,
        idle.why_not,
    )


@functools.cache
def _wait(fault_class: FaultClass) -> Alternative | None:
    passes = _MAY_PASS.get(fault_class)
    if passes is None:
        return None
    return Alternative(
        Way.WAIT,
        f"Wait some minutes and look again. {passes}",
        "It goes on for as long as you wait.",
        "It has lasted longer than what is usual here already.",
    )


def _further(incident: Incident, kind: ActionKind) -> list[Alternative]:
    found: list[Alternative] = []
    if kind is ActionKind.INSPECT:
        return found
    if (wait := _wait(incident.fault_class)) is not None:
        found.append(wait)
    if kind in RESTARTS and serving.route_of(incident) is not None and not serving.is_at_router(incident):
        found.append(_REMOVE_ROUTE)
    found.append(_LOOK_FIRST)
    if kind in {ActionKind.CHANGE_SETTING, ActionKind.FREE_SPACE, ActionKind.RECREATE_CONTAINER}:
        found.append(_BY_HAND)
    return found
