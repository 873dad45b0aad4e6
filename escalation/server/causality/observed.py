"""What reports have shown of the topology: who serves which model where, which peers and GPUs there are.

Learnt from the incidents of a host, so a server that was never ill is not in it: the declared map says the
rest. What has not been shown for a week is not counted any more, and of one host at most 32 servers, peers
and GPUs are kept: the newest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from escalation.model import AgentId, GpuEvidence, Incident, PeerEvidence, ServerKind, Subject, SubjectKind
from escalation.server.playbook.names import acted_on
from escalation.server.playbook.serving import route_of
from escalation.server.storage.records import Kind
from escalation.server.storage.store import Ledger

KEPT_S: Final = 7 * 86_400.0
OF_ONE_HOST: Final = 32

_AGAIN_S: Final = 86_400.0
"""How old a sight may be before it is written again: most reports only repeat it."""

_SERVERS: Final = frozenset({SubjectKind.CONTAINER, SubjectKind.UNIT, SubjectKind.CGROUP})


@dataclass(frozen=True, slots=True)
class Served:
    """A server on a host, seen to answer for a model at a port."""

    host: AgentId
    server: Subject
    kind: ServerKind
    port: int
    model: str
    seen_ns: int


@dataclass(frozen=True, slots=True)
class Reached:
    """An address that a host was seen to connect to."""

    host: AgentId
    address: str
    port: int
    seen_ns: int


@dataclass(frozen=True, slots=True)
class Held:
    """A GPU of a host, by its PCI address, and its product's name."""

    host: AgentId
    gpu: str
    name: str
    seen_ns: int


Sight = Served | Reached | Held
T = TypeVar("T", Served, Reached, Held)

SERVED: Final = Kind("served", Served)
REACHED: Final = Kind("reached", Reached)
HELD: Final = Kind("held", Held)


def learn(ledger: Ledger, incident: Incident, *, now_ns: int) -> bool:
    """Keep what an incident shows of the topology, and return whether any of it was new."""
    learnt = False
    for sight in sights(incident, now_ns=now_ns):
        match sight:
            case Served():
                learnt |= _keep(ledger, SERVED, sight, now_ns=now_ns)
            case Reached():
                learnt |= _keep(ledger, REACHED, sight, now_ns=now_ns)
            case Held():
                learnt |= _keep(ledger, HELD, sight, now_ns=now_ns)
    return learnt


def sights(incident: Incident, *, now_ns: int) -> Iterator[Sight]:
    """Yield what an incident shows."""
    host, route, server = incident.agent_id, route_of(incident), acted_on(incident)
    if route is not None and server.kind in _SERVERS:
        yield Served(host, server, route.server, route.port, route.model, now_ns)
    for each in incident.evidence:
        if isinstance(each, PeerEvidence) and each.address:
            yield Reached(host, each.address, each.port, now_ns)
        if isinstance(each, GpuEvidence) and each.gpu:
            yield Held(host, each.gpu, each.name, now_ns)


def of(ledger: Ledger, kind: Kind[T], *, now_ns: int) -> tuple[T, ...]:
    """Return what was shown of one kind and is not too old, in order of hosts."""
    oldest_ns = now_ns - int(KEPT_S * 1e9)
    return tuple(each for each in ledger.records.of(kind).values() if each.seen_ns >= oldest_ns)


def _keep(ledger: Ledger, kind: Kind[T], sight: T, *, now_ns: int) -> bool:
    key = _key(sight)
    known = ledger.records.get(kind, key)
    if known is not None and abs(now_ns - known.seen_ns) < _AGAIN_S * 1e9:
        return False
    ledger.records.put(kind, key, sight)
    if known is None:
        prefix = f"{sight.host} "
        mine = [
            (each.seen_ns, name) for name, each in ledger.records.of(kind).items() if name.startswith(prefix)
        ]
        for _, name in sorted(mine)[: max(0, len(mine) - OF_ONE_HOST)]:
            ledger.records.remove(kind, name)
    return known is None or now_ns - known.seen_ns > KEPT_S * 1e9


def _key(sight: Sight) -> str:
    """Return a key that begins with the host and is the same whenever the same is seen."""
    return f"{sight.host} {hashlib.sha256(repr(replace(sight, seen_ns=0)).encode()).hexdigest()[:24]}"
