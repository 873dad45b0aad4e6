"""F32 network.upstream_unreachable: a server cannot connect to the server that it asks.

The errno says how: refused (the host answers, nobody listens), unreachable (no route, no such neighbour),
or no answer at all. What tells a fault from the ordinary is who asks and for how long: a gateway, a chat
interface or another server of a known kind, or a service whose peer had been reached before, that fails
`min_failures` times over `patience_s` without one success in between.

Look-alikes stay quiet: a port scan (each port once), a probe by curl, a health check of one's own
container, a server that is restarted within the patience, an address of a kind that the host has no route
for (IPv6 on a host without it), the port of a worker that is gone (one that the kernel had chosen, or one of
Ray's other than its head's). A local server that is alive and does not listen yet loads its model, which is
a note: refused is not crashed (vLLM and its like bind their port after the weights are loaded).

A loopback address is another one in each network namespace, so what one client reaches there says nothing of
what another does: a case clears when nobody is left who failed lately and did not succeed since.
"""

from __future__ import annotations

import errno
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final, Self

from msgspec import Meta

from agent.bounded import entry, keep
from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick
from agent.finding import Finding, Hysteresis, OpenCase, Verdict, absent, unknown
from agent.host.exposure import parse
from agent.host.heard import Heard
from agent.subjects import cut, incarnation_of, place_of, process_name, subject_of, target_of
from escalation.model import FaultClass, PeerEvidence, Reason, ReasonCode, Severity, Subject, SubjectKind
from probes.observation import (
    Blind,
    ConnectFailures,
    ConnectSuccesses,
    Gap,
    Instant,
    ListenerInventory,
    Observation,
    Origin,
    Peer,
    SensorName,
    ServerKind,
    ServerUsage,
)

PEERS: Final = SensorName("host.peers")
SERVERS: Final = SensorName("host.servers")
INVENTORY: Final = SensorName("host.listeners")
_FAULT: Final = FaultClass.NETWORK_UPSTREAM_UNREACHABLE
_PEERS_MAX: Final = 256
_CLIENTS_MAX: Final = 16
_SERVERS_MAX: Final = 64
_STALE_S: Final = 30.0
_GATEWAYS: Final = frozenset({ServerKind.LITELLM, ServerKind.OPEN_WEBUI})
_RAY_HEAD: Final = 6379
"""Where a Ray cluster meets; its other processes look for each other on ports that come and go with them."""

_EPHEMERAL: Final = 32_768
"""Where Linux begins to hand out ports of its own (ip_local_port_range): a worker's, not a service's."""

_PROBES: Final = frozenset({"curl", "wget", "nc", "ncat", "nmap", "telnet", "socat", "masscan", "zmap"})
_CODES: Final = {
    errno.ECONNREFUSED: ReasonCode.CONNECTS_REFUSED,
    errno.ETIMEDOUT: ReasonCode.CONNECTS_TIME_OUT,
}


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many failures, over how long, and how long a model may take to load."""

    min_failures: Annotated[int, Meta(ge=1)] = 3
    patience_s: Annotated[float, Meta(ge=0)] = 60.0
    window_s: Annotated[float, Meta(gt=0)] = 600.0
    load_patience_s: Annotated[float, Meta(ge=0)] = 1800.0
    clear_hold_s: Annotated[float, Meta(ge=0)] = 30.0
    gone_clear_after_s: Annotated[float, Meta(gt=0)] = 86400.0


@dataclass(slots=True)
class _Client:
    """Who asks one peer: since when it fails without a success, how often, and how."""

    origin: Origin
    first: Instant
    last: Instant
    errors: Counter[int] = field(default_factory=Counter)

    @property
    def failed(self) -> int:
        """How many attempts failed."""
        return self.errors.total()


@dataclass(slots=True)
class _Peer:
    """One peer: its failing clients, and whether it was ever reached."""

    clients: OrderedDict[Subject, _Client] = field(default_factory=OrderedDict)
    reached: bool = False


class NetworkUpstream:
    """Says which server cannot be reached by those who ask it."""

    NAME: ClassVar[str] = "network_upstream"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.NOTE, Severity.MEDIUM, Severity.HIGH),
            sensors=(INVENTORY, PEERS, SERVERS),
            opens="A server of a known kind (high), or a service whose peer had been reached before "
            "(medium), fails to connect to one address and port `min_failures` times over "
            "`patience_s` seconds without a success. A local server that is alive for less than "
            "`load_patience_s` and does not listen yet makes it a note.",
            quiet="A port scan, a probe by curl and its like, a health check of one's own container, a "
            "restart within `patience_s`, IPv6 on a host without a route for it, the slower side of"
            " a race between addresses, a worker's port that the kernel had chosen (but for a "
            "gateway).",
            clears="A connection to the peer succeeds; or the cgroup that asked is gone, or made anew by a "
            "restart; or nobody has failed to reach it for `gone_clear_after_s`; held for `clear_hold_s`.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._heard = Heard(PEERS)
        self._around = surroundings
        self._peers: OrderedDict[Peer, _Peer] = OrderedDict()
        self._servers: OrderedDict[int, ServerUsage] = OrderedDict()
        self._own_addresses: frozenset[str] = frozenset()
        self._blind = False

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """The patience was had here; a success has to last."""
        return {_FAULT: Hysteresis(clear_hold_s=self._config.clear_hold_s)}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Judge attempts; remember which servers live here and what the host's addresses are."""
        match observation:
            case ConnectFailures():
                self._heard.take(_subject(observation.peer), observation.at)
                return self._failed(observation)
            case ConnectSuccesses():
                return self._succeeded(observation)
            case ServerUsage():
                keep(self._servers, observation.port, observation, limit=_SERVERS_MAX)
            case ListenerInventory():
                self._own_addresses = frozenset(address for address, _ in observation.host_addresses)
            case Gap(sensor=sensor) if sensor == PEERS:
                self._heard.sight(observation)
                self._blind = isinstance(observation.coverage, Blind)
                self._peers.clear()
                return (unknown(_FAULT, observation.at),) if self._blind else ()
            case _:
                pass
        return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Clear what nobody asks any more, or whose asker is gone; hold the rest while blind."""
        if self._blind:
            return (unknown(_FAULT, tick.now),) if tick.open_cases else ()
        over = (
            absent(_FAULT, case.subject, tick.now, Reason(ReasonCode.CGROUP_GONE, count=1))
            if _asker_is_gone(case, tick)
            else self._heard.gone(case, tick, self._config.gone_clear_after_s)
            for case in tick.open_cases
        )
        return [each for each in over if each is not None]

    def _peer(self, peer: Peer) -> _Peer:
        return entry(self._peers, peer, _Peer, limit=_PEERS_MAX)

    def _succeeded(self, event: ConnectSuccesses) -> Sequence[Finding]:
        peer = self._peer(event.peer)
        peer.reached = True
        who = subject_of(event.origin)
        peer.clients = OrderedDict(
            (other, client)
            for other, client in peer.clients.items()
            if not _is_unknown(event.origin)
            and other != who
            and event.at.since_s(client.last) <= self._config.window_s
        )
        if peer.clients:
            return ()
        reason = Reason(ReasonCode.CONNECTS_SUCCEED_AGAIN, count=event.count)
        return (absent(_FAULT, _subject(event.peer), event.at, reason),)

    def _failed(self, event: ConnectFailures) -> Sequence[Finding]:
        peer = self._peer(event.peer)
        peer.reached = peer.reached or event.reached_before
        if not self._concerns(event, peer):
            return ()
        who = subject_of(event.origin)
        client = peer.clients.pop(who, None)
        if client is None or event.at.since_s(client.last) > self._config.window_s:
            client = _Client(event.origin, first=event.at, last=event.at)
        client.origin, client.last = event.origin, event.at
        client.errors[event.errno] += event.count
        keep(peer.clients, who, client, limit=_CLIENTS_MAX)
        lasted_s = client.last.since_s(client.first)
        if client.failed < self._config.min_failures or lasted_s < self._config.patience_s:
            return ()
        return (self._present(event, client, lasted_s),)

    def _concerns(self, event: ConnectFailures, peer: _Peer) -> bool:
        """Whether an attempt is that of a server that needs its peer."""
        origin, address = event.origin, parse(event.peer.address)
        if address is None or _is_unknown(origin):
            return False
        if event.by_route and address.version == 6 and not peer.reached:
            return False
        if origin.process_name in _PROBES or self._asks_itself(event):
            return False
        if origin.server in _GATEWAYS:
            return True
        if event.peer.port >= _EPHEMERAL:
            return False
        if origin.server is ServerKind.RAY:
            return event.peer.port == _RAY_HEAD
        if origin.server is not ServerKind.OTHER:
            return True
        return peer.reached and bool(origin.container_id or origin.unit)

    def _asks_itself(self, event: ConnectFailures) -> bool:
        """Whether a health check asks the server whose container or unit it runs in."""
        server = self._local_server(event.peer, event.at)
        return server is not None and subject_of(server.origin) == subject_of(event.origin)

    def _local_server(self, peer: Peer, at: Instant) -> ServerUsage | None:
        """Return the living local server that is meant to listen there."""
        address = parse(peer.address)
        if address is None or not (address.is_loopback or peer.address in self._own_addresses):
            return None
        usage = self._servers.get(peer.port)
        return usage if usage is not None and at.since_s(usage.at) <= _STALE_S else None

    def _present(self, event: ConnectFailures, client: _Client, lasted_s: float) -> Finding:
        code, _ = client.errors.most_common(1)[0]
        server = self._local_server(event.peer, event.at)
        loads = (
            server is not None
            and code == errno.ECONNREFUSED
            and event.at.since_s(server.started) < self._config.load_patience_s
        )
        reason = Reason(
            _CODES.get(code, ReasonCode.CONNECTS_UNREACHABLE),
            count=client.failed,
            threshold=float(self._config.min_failures),
            window_s=round(lasted_s, 3),
        )
        subject = _subject(event.peer)
        return Finding(
            verdict=Verdict.PRESENT,
            fault_class=_FAULT,
            subject=subject,
            target=None if server is None else target_of(server.origin, subject),
            at=event.at,
            severity=Severity.NOTE if loads else _severity(client.origin),
            incarnation=incarnation_of(client.origin, self._around.kernel_boot_id),
            place=place_of(client.origin),
            count=event.count,
            reasons=(reason, Reason(ReasonCode.SERVER_IS_LOADING)) if loads else (reason,),
            evidence=(
                PeerEvidence(
                    address=cut(event.peer.address, 64),
                    port=event.peer.port,
                    window_s=round(max(lasted_s, event.window_s), 3),
                    segments=0,
                    retransmitted=0,
                    resets=0,
                    attempts=client.failed,
                    failed=client.failed,
                    errno=code,
                    process_name=process_name(client.origin),
                ),
            ),
        )


def _is_unknown(origin: Origin) -> bool:
    return origin.pid is None and origin.cgroup_id is None


def _severity(asks: Origin) -> Severity:
    """What a model server or a gateway asks is needed to answer; of another service it is not known."""
    return Severity.MEDIUM if asks.server is ServerKind.OTHER else Severity.HIGH


def _asker_is_gone(case: OpenCase, tick: Tick) -> bool:
    """Whether nobody is left who failed; who was started anew may ask somebody else, or fail anew."""
    look = tick.world.cgroups.get(case.place) if case.place is not None else None
    return look is not None and (not look.exists or look.same is False)


def _subject(peer: Peer) -> Subject:
    return Subject(SubjectKind.PEER, cut(f"{peer.address} {peer.port}"))
