"""F43 exposure.off_mesh_listener: a socket that listens where the mesh ends.

A wildcard listener is graded by the host's own addresses: critical where one of them is public, high where
the widest is a private network, nothing where there is only loopback, mesh and container bridges. What is
said by the kernel's event must be in the host's socket table too; an event that the table contradicts comes
from another network namespace (a container's own), and one that it could not be held against is a note.

A port that a container engine publishes says so, and names no unit to be restarted: that would be the
engine's. One that this host never had open while the agent learned is told as new. Neither changes the
severity.

The first `ports_each` ports of one holder (a container, a unit, a cgroup) have a case each; its further ones
are one case of the holder, with their number and the first of them (`agent/host/port_crowds.py`).

A case clears when the socket table shows that nothing listens there any more, when the port is allowed, or
when the host's addresses no longer make it reachable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Final, Self

from msgspec import Meta

from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick
from agent.finding import Finding, Hysteresis, Verdict, absent, unknown
from agent.host.expected_listeners import ExpectedListeners
from agent.host.exposure import Reachability, parse
from agent.host.port_crowds import PortCrowds
from agent.subjects import cut, incarnation_of, place_of, process_name, subject_of, target_of
from escalation.model import (
    FaultClass,
    ListenerEvidence,
    Reach,
    Reason,
    ReasonCode,
    Severity,
    Subject,
    SubjectKind,
)
from probes.observation import (
    Blind,
    Gap,
    Instant,
    Listener,
    ListenerClosed,
    ListenerInventory,
    ListenerOpened,
    Observation,
    PublishedPorts,
    SensorName,
)

EVENTS = SensorName("kernel.listener")
INVENTORY = SensorName("host.listeners")
_FAULT = FaultClass.EXPOSURE_OFF_MESH_LISTENER
_MEMORY: Final = "expected"
_HELD: Final = 1024
"""Listeners kept until the host's addresses are known; the inventory has them all."""


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a listener becomes a case."""

    clear_hold_s: Annotated[float, Meta(ge=0)] = 5.0
    learn_s: Annotated[float, Meta(ge=0)] = 3 * 86400.0
    ports_each: Annotated[int, Meta(ge=1)] = 32


class OffMeshListener:
    """Says which ports can be reached from outside the mesh."""

    NAME: ClassVar[str] = "off_mesh_listener"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.NOTE, Severity.HIGH, Severity.CRITICAL),
            sensors=(INVENTORY, EVENTS),
            opens="A TCP socket listens on a wildcard or an address off the mesh, and the socket table shows "
            "it: critical with a public address, high on a private network; a note where the table or the "
            "host's addresses cannot be read. Says whether a container engine publishes it, and whether "
            "this host never had it open in its first `learn_s`. The ports of one holder beyond "
            "`ports_each` are one case of that container, unit or cgroup.",
            quiet="Loopback, the mesh (while the host has a mesh interface), container bridges, declared "
            "direct links, the allow-list, and sockets of another network namespace. A port that an engine "
            "publishes without a proxy has no socket and is not seen.",
            clears="The socket table no longer shows it (of a holder: none of its further ports), or it is "
            "allowed or out of reach; held for `clear_hold_s`.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._around = surroundings
        self._reachability: Reachability | None = None
        self._inventory_blind = False
        self._held: dict[Subject, ListenerOpened] = {}
        self._table: tuple[Instant, frozenset[Subject]] | None = None
        self._present: set[Subject] = set()
        self._expected = ExpectedListeners(learn_s=config.learn_s)
        self._host = Subject(SubjectKind.HOST, surroundings.host)
        self._crowds = PortCrowds(each=config.ports_each, host=self._host)
        self._published: frozenset[tuple[str, int]] = frozenset()

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Open at once; a port that closes and opens again within the hold is one case."""
        return {_FAULT: Hysteresis(clear_hold_s=self._config.clear_hold_s)}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Judge one event of a socket, or the whole table."""
        match observation:
            case ListenerOpened():
                return self._opened(observation)
            case ListenerClosed():
                return self._closed(observation)
            case PublishedPorts():
                self._published = frozenset((one.address, one.port) for one in observation.ports)
                return ()
            case ListenerInventory():
                return self._inventory(observation)
            case Gap() if observation.sensor == INVENTORY:
                return self._sight(observation)
            case _:
                return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Clear what the last socket table no longer shows; hold every clearing back while there is none."""
        if self._inventory_blind:
            return (unknown(_FAULT, tick.now),) if tick.open_cases else ()
        if self._table is None:
            return ()
        read_at, shown = self._table
        return [
            _absent(case.subject, read_at, ReasonCode.LISTENER_CLOSED)
            for case in tick.open_cases
            if case.subject not in shown
            and case.subject not in self._crowds
            and read_at.boot_ns > case.last_seen.boot_ns
        ]

    def memory(self) -> Mapping[str, bytes]:
        """Return which listeners this host is used to have."""
        learned = self._expected.memory()
        return {} if learned is None else {_MEMORY: learned}

    def recall(self, memory: Mapping[str, bytes]) -> int:
        """Take up which listeners this host is used to have."""
        raw = memory.get(_MEMORY)
        return 0 if raw is None or self._expected.recall(raw) else 1

    def _sight(self, gap: Gap) -> Sequence[Finding]:
        self._inventory_blind = isinstance(gap.coverage, Blind)
        if not self._inventory_blind:
            return ()
        self._table = None
        held, self._held = self._held, {}
        judged = [
            self._judge(event.listener, confirmed=event.confirmed, at=event.at) for event in held.values()
        ]
        return [*self._together(judged, gap.at), unknown(_FAULT, gap.at)]

    def _opened(self, event: ListenerOpened) -> Sequence[Finding]:
        if event.confirmed is False:
            return ()
        if self._reachability is None and not self._inventory_blind:
            self._held[_subject(event.listener)] = event
            while len(self._held) > _HELD:
                del self._held[next(iter(self._held))]
            return ()
        found = self._judge(event.listener, confirmed=event.confirmed, at=event.at)
        return self._together([found], event.at)

    def _closed(self, event: ListenerClosed) -> Sequence[Finding]:
        subject = _subject(event.listener)
        if event.confirmed is False:
            return ()
        self._held.pop(subject, None)
        self._present.discard(subject)
        if event.confirmed is None:
            return (unknown(_FAULT, event.at, subject),)
        over = [subject, self._crowds.leave(subject)]
        return [_absent(one, event.at, ReasonCode.LISTENER_CLOSED) for one in over if one is not None]

    def _inventory(self, table: ListenerInventory) -> Sequence[Finding]:
        self._reachability = Reachability.of(self._around.mesh, table.host_addresses)
        self._inventory_blind = False
        self._held = {}
        self._table = (table.at, frozenset(_subject(listener) for listener in table.listeners))
        self._crowds.keep(self._table[1])
        judged = [self._judge(listener, confirmed=True, at=table.at) for listener in table.listeners]
        self._present &= self._table[1]
        return self._together(judged, table.at)

    def _together(self, judged: Sequence[Finding | Subject | None], at: Instant) -> list[Finding]:
        """Return what was found of each listener by itself, and once of each holder of further ones."""
        holders = dict.fromkeys(one for one in judged if isinstance(one, Subject))
        together = (self._crowds.told(holder, at) for holder in holders)
        return [one for one in (*judged, *together) if isinstance(one, Finding)]

    def _judge(self, listener: Listener, *, confirmed: bool | None, at: Instant) -> Finding | Subject | None:
        """Return what there is to say of one listener, or the holder with whose others it is told.

        None for what is no address at all.
        """
        address = parse(listener.address)
        if address is None:
            return None
        subject = _subject(listener)
        if any(allowed.matches(listener) for allowed in self._around.allowed_listeners):
            return self._fine(subject, at)
        reach: Reach | None = Reach.UNKNOWN
        if self._reachability is not None:
            reach = self._reachability.of_listener(address)
        elif address.is_loopback:
            reach = None
        if reach is None:
            return self._fine(subject, at)
        return self._exposed(listener, subject, reach, confirmed=confirmed, at=at)

    def _fine(self, subject: Subject, at: Instant) -> Finding | None:
        self._present.discard(subject)
        self._crowds.leave(subject)
        return _absent(subject, at, ReasonCode.LISTENER_ALLOWED)

    def _exposed(
        self, listener: Listener, subject: Subject, reach: Reach, *, confirmed: bool | None, at: Instant
    ) -> Finding | Subject:
        holder = self._holder(listener)
        own = self._crowds.has_own(subject, holder)
        wildcard = subject.name.startswith(("0.0.0.0:", "[::]:"))
        known = subject in self._present
        certain = confirmed is True and reach is not Reach.UNKNOWN
        if certain and own:
            self._present.add(subject)
        reasons = [
            Reason(ReasonCode.LISTENS_ON_ALL_INTERFACES if wildcard else ReasonCode.LISTENS_OFF_MESH, count=1)
        ]
        if reach is Reach.PUBLIC:
            reasons.append(Reason(ReasonCode.HOST_HAS_PUBLIC_ADDRESS, count=1))
        reasons.append(
            Reason(ReasonCode.SOCKET_TABLE_AGREES, count=1)
            if certain
            else Reason(ReasonCode.SECOND_LAYER_UNKNOWN)
        )
        reasons.append(Reason(ReasonCode.FIREWALL_NOT_SEEN))
        published = (listener.address, listener.port) in self._published
        if published:
            reasons.append(Reason(ReasonCode.PUBLISHED_BY_PROXY, count=1))
        if own and certain and self._expected.is_new(listener.port, listener.origin, at):
            reasons.append(Reason(ReasonCode.NOT_EXPECTED_HERE, count=1))
        found = Finding(
            verdict=Verdict.PRESENT,
            fault_class=_FAULT,
            subject=subject,
            target=None if published else target_of(listener.origin, subject),
            at=at,
            severity=_severity(reach, certain=certain),
            incarnation=incarnation_of(listener.origin, self._around.kernel_boot_id),
            place=place_of(listener.origin),
            count=0 if known else 1,
            reasons=tuple(reasons),
            evidence=(
                ListenerEvidence(
                    address=cut(listener.address, 64),
                    port=listener.port,
                    reach=Reach.ALL_INTERFACES if wildcard and reach is Reach.UNKNOWN else reach,
                    process_name=process_name(listener.origin),
                    confirmed=confirmed,
                ),
            ),
        )
        return found if own else self._crowds.join(subject, holder, found)

    def _holder(self, listener: Listener) -> Subject:
        holder = subject_of(listener.origin)
        return self._host if holder.kind is SubjectKind.PROCESS else holder


def _severity(reach: Reach, *, certain: bool) -> Severity:
    if not certain:
        return Severity.NOTE
    return Severity.CRITICAL if reach is Reach.PUBLIC else Severity.HIGH


def _subject(listener: Listener) -> Subject:
    address = f"[{listener.address}]" if ":" in listener.address else listener.address
    return Subject(SubjectKind.LISTENER, cut(f"{address}:{listener.port}"))


def _absent(subject: Subject, at: Instant, code: ReasonCode) -> Finding:
    return absent(_FAULT, subject, at, Reason(code, count=1))
