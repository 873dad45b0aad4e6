"""F31 network.retransmission: segments to one address get lost on the way and are sent again.

A few always do, so what counts is their share, per address, over a minute in which enough went there. Two
layers agree: the kernel's event for each retransmission, and the sockets' own accounts of what they sent.
Where the sockets cannot be asked (a container's own network) there is no share, and nothing is said.

Look-alikes stay quiet: an idle connection that repeats one segment of few, a bulk transfer that loses a few
of very many, loopback, which loses nothing on the way. A peer that the mesh reaches by a relay alone is
slow and lossy by that, which is another fault: its case is a note that names the relay.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final, Self

from msgspec import Meta

from agent.bounded import entry
from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick
from agent.finding import Finding, Hysteresis, Verdict, unknown
from agent.host.exposure import parse
from agent.host.heard import Heard
from agent.subjects import cut
from escalation.model import FaultClass, PeerEvidence, Reason, ReasonCode, Severity, Subject, SubjectKind
from probes.observation import Blind, Gap, Instant, MeshStatus, Observation, PeerTraffic, SensorName

PEERS: Final = SensorName("host.peers")
MESH: Final = SensorName("mesh.tailscale")
_FAULT: Final = FaultClass.NETWORK_RETRANSMISSION
_ADDRESSES_MAX: Final = 256
_RELAYED_FOR_S: Final = 180.0
"""How long the mesh's word about a path is taken for true."""


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which share of how many segments, in per cent, opens a case and clears it."""

    open_percent: Annotated[float, Meta(gt=0, le=100)] = 2.0
    clear_percent: Annotated[float, Meta(ge=0, le=100)] = 0.1
    least_segments: Annotated[int, Meta(ge=1)] = 1000
    window_s: Annotated[float, Meta(ge=10, le=3600)] = 60.0
    open_after: Annotated[int, Meta(ge=1)] = 2
    clear_hold_s: Annotated[float, Meta(ge=0)] = 60.0
    gone_clear_after_s: Annotated[float, Meta(gt=0)] = 86400.0


@dataclass(frozen=True, slots=True)
class _Sum:
    """What went to one address in the windows that are looked at together."""

    segments: int
    retransmitted: int
    counted: int
    resets: int
    seconds: float

    @property
    def percent(self) -> float:
        """The share that was sent again."""
        return 100.0 * self.retransmitted / max(1, self.segments)


@dataclass(slots=True)
class _Address:
    """The last windows of one address."""

    windows: deque[PeerTraffic] = field(default_factory=lambda: deque(maxlen=64))

    def add(self, traffic: PeerTraffic, window_s: float) -> _Sum:
        """Take one window more, forget the old ones, and return the sum."""
        self.windows.append(traffic)
        while len(self.windows) > 1 and traffic.at.since_s(self.windows[0].at) >= window_s:
            self.windows.popleft()
        known = [one for one in self.windows if one.segments is not None]
        return _Sum(
            segments=sum(one.segments or 0 for one in known),
            retransmitted=sum(one.retransmitted or 0 for one in known),
            counted=sum(one.counted for one in self.windows),
            resets=sum(one.resets for one in self.windows),
            seconds=sum(one.window_s for one in known),
        )


class NetworkRetransmission:
    """Says to which address segments get lost."""

    NAME: ClassVar[str] = "network_retransmission"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.NOTE, Severity.MEDIUM),
            sensors=(PEERS, MESH),
            opens="Of at least `least_segments` to one address in `window_s` seconds, `open_percent` or "
            "more were sent again, by the sockets' accounts and the kernel's events; `open_after` "
            "times in a row.",
            quiet="A larger share of few segments, a smaller share of many, loopback; a relayed peer of "
            "the mesh is a note; connections whose sockets cannot be asked (a container's own "
            "network).",
            clears="As many segments went there and less than `clear_percent` of them again; held for "
            "`clear_hold_s`; or nothing was told of it for `gone_clear_after_s`, while more would have been.",
        ),
    )

    def __init__(self, *, config: Config) -> None:
        self._config = config
        self._heard = Heard(PEERS)
        self._addresses: OrderedDict[str, _Address] = OrderedDict()
        self._relayed: frozenset[str] = frozenset()
        self._relayed_at: Instant | None = None
        self._blind = False

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:  # noqa: ARG003  # the protocol's
        """Make the detector."""
        return cls(config=config)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Two windows, because a burst fills one."""
        rule = Hysteresis(
            open_after=self._config.open_after,
            open_window_s=3 * self._config.window_s,
            clear_hold_s=self._config.clear_hold_s,
        )
        return {_FAULT: rule}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Judge one window of one address, or follow the sensor's sight."""
        match observation:
            case PeerTraffic(segments=int()):
                self._heard.take(_subject(observation.address), observation.at)
                return self._judged(observation)
            case PeerTraffic():
                self._heard.take(_subject(observation.address), observation.at)
                self._address(observation.address).add(observation, self._config.window_s)
                return ()
            case MeshStatus(peers_known=True):
                self._relayed, self._relayed_at = frozenset(observation.relayed), observation.at
                return ()
            case Gap(sensor=sensor) if sensor == PEERS:
                self._heard.sight(observation)
                self._blind = isinstance(observation.coverage, Blind)
                self._addresses.clear()
                return (unknown(_FAULT, observation.at),) if self._blind else ()
            case _:
                return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Hold clearings back while nothing is seen; end what nothing was lost to for a day."""
        if self._blind:
            return (unknown(_FAULT, tick.now),) if tick.open_cases else ()
        gone = (self._heard.gone(case, tick, self._config.gone_clear_after_s) for case in tick.open_cases)
        return [over for over in gone if over is not None]

    def _address(self, address: str) -> _Address:
        return entry(self._addresses, address, _Address, limit=_ADDRESSES_MAX)

    def _judged(self, traffic: PeerTraffic) -> Sequence[Finding]:
        sent = self._address(traffic.address).add(traffic, self._config.window_s)
        address = parse(traffic.address)
        if address is None or address.is_loopback or sent.segments < self._config.least_segments:
            return ()
        if sent.percent < self._config.clear_percent:
            return (self._finding(traffic, sent, Verdict.ABSENT, (Reason(ReasonCode.PATH_CLEAN_AGAIN),)),)
        if sent.percent < self._config.open_percent:
            return ()
        reasons = [
            Reason(
                ReasonCode.SEGMENTS_RETRANSMITTED,
                count=sent.retransmitted,
                threshold=self._config.open_percent,
                window_s=round(sent.seconds, 3),
            )
        ]
        if self._is_relayed(traffic):
            reasons.append(Reason(ReasonCode.PEER_IS_RELAYED))
        if not sent.counted:
            reasons.append(Reason(ReasonCode.SECOND_LAYER_UNKNOWN))
        return (self._finding(traffic, sent, Verdict.PRESENT, tuple(reasons)),)

    def _is_relayed(self, traffic: PeerTraffic) -> bool:
        fresh = self._relayed_at is not None and traffic.at.since_s(self._relayed_at) <= _RELAYED_FOR_S
        return fresh and traffic.address in self._relayed

    def _finding(
        self, traffic: PeerTraffic, sent: _Sum, verdict: Verdict, reasons: tuple[Reason, ...]
    ) -> Finding:
        present = verdict is Verdict.PRESENT
        certain = all(reason.code is ReasonCode.SEGMENTS_RETRANSMITTED for reason in reasons)
        evidence = PeerEvidence(
            address=cut(traffic.address, 64),
            port=0,
            window_s=round(sent.seconds, 3),
            segments=sent.segments,
            retransmitted=sent.retransmitted,
            resets=sent.resets,
            attempts=0,
            failed=0,
            errno=0,
        )
        return Finding(
            verdict=verdict,
            fault_class=_FAULT,
            subject=_subject(traffic.address),
            at=traffic.at,
            severity=Severity.UNKNOWN if not present else Severity.MEDIUM if certain else Severity.NOTE,
            reasons=reasons,
            evidence=(evidence,) if present else (),
        )


def _subject(address: str) -> Subject:
    return Subject(SubjectKind.PEER, cut(f"{address} 0"))
