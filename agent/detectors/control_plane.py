"""F44 exposure.open_control_plane: what obeys whoever reaches it can be reached from off the mesh.

Three layers: the port in the host's socket table, the processes behind it (or the engine's word which port
of a container it is), and who is connected. A port whose process is recognised is graded by its reach,
critical with a public address and high on a private network; a peer with a public address makes it critical
by itself. A port alone is a note, and on ports that many programs use it is nothing.

Look-alikes stay quiet: loopback, the mesh, container bridges, the allow-list, direct links that are declared
(`[mesh] links`: the two nodes that serve one model together need each other's Ray ports), another program on
such a port. Whether a firewall in front of it keeps everybody out is not seen from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Final, Self

from msgspec import Meta

from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick
from agent.finding import Finding, Hysteresis, Verdict, absent, unknown
from agent.host.exposure import Reachability, parse
from agent.subjects import cut, incarnation_of, place_of, target_of
from escalation.model import (
    ControlPlane,
    ControlPlaneEvidence,
    FaultClass,
    Reach,
    Reason,
    ReasonCode,
    Severity,
    Subject,
    SubjectKind,
)
from probes.host.control_services import SHARED, recognised, service_at
from probes.observation import (
    Blind,
    ControlListener,
    ControlListeners,
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

INVENTORY: Final = SensorName("host.listeners")
EVENTS: Final = SensorName("kernel.listener")
_FAULT: Final = FaultClass.EXPOSURE_OPEN_CONTROL_PLANE


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """For how long it has to be closed."""

    clear_hold_s: Annotated[float, Meta(ge=0)] = 5.0


class OpenControlPlane:
    """Says which service that commands the host is open to others."""

    NAME: ClassVar[str] = "control_plane"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.NOTE, Severity.HIGH, Severity.CRITICAL),
            sensors=(INVENTORY, EVENTS),
            opens="Ray (8265, 6379, 10001), Docker's API (2375), a database (5432, 6379), etcd, a kubelet, "
            "Ollama, OpenClaw (18789) or Jupyter listens beyond loopback and mesh, and its process is "
            "recognised or an engine publishes it: critical with a public address or a public peer, high on "
            "a private network; by its port alone a note.",
            quiet="Loopback, the mesh, container bridges, declared direct links (`[mesh] links`), the "
            "allow-list, another program on the port.",
            clears="The socket table no longer shows it, or it is allowed or out of reach; held for "
            "`clear_hold_s`. Unknown while an engine publishes without a proxy what it published by one.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._around = surroundings
        self._reachability: Reachability | None = None
        self._table: tuple[Instant, frozenset[Subject]] | None = None
        self._told: dict[Subject, frozenset[str]] = {}
        """Which sockets were told, and which peers from outside each had."""
        self._publications_known = True
        self._sees = False

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Open at once; a restart of the service within the hold is one case."""
        return {_FAULT: Hysteresis(clear_hold_s=self._config.clear_hold_s)}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Judge the whole table, and what leaves it meanwhile."""
        match observation:
            case PublishedPorts():
                self._publications_known = observation.known
            case ListenerInventory():
                self._sees = True
                self._reachability = Reachability.of(self._around.mesh, observation.host_addresses)
                shown = frozenset(_subject(one.address, one.port) for one in observation.listeners)
                self._table = (observation.at, shown)
                self._told = {subject: self._told[subject] for subject in self._told.keys() & shown}
            case ListenerOpened(confirmed=True):
                found_at_once = self._began(observation)
                return () if found_at_once is None else (found_at_once,)
            case ControlListeners():
                found = [self._judged(one, observation.at) for one in observation.listeners]
                return [one for one in found if one is not None]
            case ListenerClosed(confirmed=True):
                subject = _subject(observation.listener.address, observation.listener.port)
                if subject in self._told:
                    del self._told[subject]
                    return (_absent(subject, observation.at, ReasonCode.CONTROL_PLANE_CLOSED),)
            case Gap(sensor=sensor, coverage=coverage) if sensor == INVENTORY:
                self._sees = not isinstance(coverage, Blind)
                if not self._sees:
                    self._table = None
                    return (unknown(_FAULT, observation.at),)
            case _:
                pass
        return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Clear what the last socket table no longer shows; hold back what it could not show."""
        if not tick.open_cases:
            self._told.clear()
            return ()
        if not self._sees:
            return (unknown(_FAULT, tick.now),)
        if self._table is None:
            return ()
        read_at, shown = self._table
        found: list[Finding] = []
        for case in tick.open_cases:
            if case.subject in shown or read_at.boot_ns <= case.last_seen.boot_ns:
                continue
            published = any(
                isinstance(item, ControlPlaneEvidence) and item.published for item in case.evidence
            )
            if published and not self._publications_known:
                found.append(unknown(_FAULT, tick.now, case.subject))
            else:
                found.append(_absent(case.subject, read_at, ReasonCode.CONTROL_PLANE_CLOSED))
        return found

    def _began(self, opened: ListenerOpened) -> Finding | None:
        """Judge a socket that begins to listen by its process's own name; the next table knows more."""
        listener = opened.listener
        names = (listener.origin.process_name,) if listener.origin.process_name else ()
        service = service_at(listener.port, names)
        if service is None or recognised(service, names) is not True:
            return None
        control = ControlListener(
            service=service,
            address=listener.address,
            port=listener.port,
            origin=listener.origin,
            recognised=True,
            published=False,
            peers=(),
        )
        return self._judged(control, opened.at)

    def _judged(self, control: ControlListener, at: Instant) -> Finding | None:
        address = parse(control.address)
        if address is None or self._reachability is None:
            return None
        subject = _subject(control.address, control.port)
        listener = Listener(control.address, control.port, control.origin)
        if any(allowed.matches(listener) for allowed in self._around.allowed_listeners):
            return self._fine(subject, at, ReasonCode.LISTENER_ALLOWED)
        reach = self._reachability.of_listener(address)
        if reach is None:
            return self._fine(subject, at, ReasonCode.CONTROL_PLANE_CLOSED)
        certain = control.published or control.recognised is True
        if not certain and (control.recognised is False or control.port in SHARED):
            return self._fine(subject, at, ReasonCode.CONTROL_PLANE_CLOSED)
        return self._open(control, subject, reach, at, certain=certain)

    def _fine(self, subject: Subject, at: Instant, code: ReasonCode) -> Finding | None:
        """Return that it is over where it was told before; what never was a case needs no end."""
        self._told.pop(subject, None)
        return _absent(subject, at, code)

    def _open(
        self, control: ControlListener, subject: Subject, reach: Reach, at: Instant, *, certain: bool
    ) -> Finding:
        outside = self._outside(control)
        public = reach is Reach.PUBLIC or any(far is Reach.PUBLIC for _, far in outside)
        reasons = [Reason(ReasonCode.CONTROL_PLANE_REACHABLE, count=1)]
        if reach is Reach.PUBLIC:
            reasons.append(Reason(ReasonCode.HOST_HAS_PUBLIC_ADDRESS, count=1))
        if outside:
            reasons.append(Reason(ReasonCode.PEER_OFF_MESH, count=len(outside)))
        if control.published:
            reasons.append(Reason(ReasonCode.PUBLISHED_BY_PROXY, count=1))
        if not outside:  # somebody who is connected came through whatever there is
            reasons.append(Reason(ReasonCode.FIREWALL_NOT_SEEN))
        if not certain:
            reasons.append(Reason(ReasonCode.SECOND_LAYER_UNKNOWN))
        before, peers = self._told.get(subject), frozenset(peer for peer, _ in outside)
        self._told[subject] = peers
        severity = Severity.CRITICAL if public else Severity.HIGH
        return Finding(
            verdict=Verdict.PRESENT,
            fault_class=_FAULT,
            subject=subject,
            target=None if control.published else target_of(control.origin, subject),
            at=at,
            severity=severity if certain else Severity.NOTE,
            incarnation=incarnation_of(control.origin, self._around.kernel_boot_id),
            place=place_of(control.origin),
            count=1 if before is None else len(peers - before),
            reasons=tuple(reasons),
            evidence=(
                ControlPlaneEvidence(
                    plane=ControlPlane(control.service.value),
                    address=cut(control.address, 64),
                    port=control.port,
                    published=control.published,
                    outside_peers=len(outside),
                    outside_peer=cut(outside[0][0], 64) if outside else "",
                ),
            ),
        )

    def _outside(self, control: ControlListener) -> list[tuple[str, Reach]]:
        """Return who from outside is connected, public addresses first."""
        assert self._reachability is not None
        found: dict[str, Reach] = {}
        for own, peer in control.peers:
            here, there = parse(own), parse(peer)
            if here is None or there is None:
                continue
            reach = self._reachability.of_peer(here, there)
            if reach is not None:
                found[peer] = reach
        return sorted(found.items(), key=lambda item: (item[1] is not Reach.PUBLIC, item[0]))


def _subject(address: str, port: int) -> Subject:
    shown = f"[{address}]" if ":" in address else address
    return Subject(SubjectKind.LISTENER, cut(f"{shown}:{port}"))


def _absent(subject: Subject, at: Instant, code: ReasonCode) -> Finding:
    return absent(_FAULT, subject, at, Reason(code, count=1))
