"""F30 network.rdma_fault: the fast link between the ranks of one model counts errors, or is lost.

Three layers, each from a source of its own: the counters of the RDMA port, the carrier of the interface on
the same device, and what the ranks' own library wrote to its log (NCCL). Two of them within `window_s` are
a fault, one alone is a note. RDMA goes past TCP, so retransmissions say nothing here.

Look-alikes stay quiet: a port that nothing uses and that has no carrier, a cable of an interface that no
RDMA device stands on, an interface that was switched off by hand, counters that rise by little where every
busy fabric does (sequence errors that adaptive routing makes), lines that also tell of a rank that ended
for another reason. Log lines name no port, so they join whatever port showed something in the same time.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final, Self

from msgspec import Meta

from agent.bounded import entry
from agent.detector import (
    DetectorConfig,
    FaultNote,
    Surroundings,
    Tick,
    quiet_for_s,
    sight_after,
)
from agent.finding import Finding, Hysteresis, Verdict, absent, unknown
from agent.host.heard import Heard
from agent.subjects import cut, subject_of
from escalation.model import (
    FaultClass,
    LinkCounter,
    LinkEvidence,
    Reason,
    ReasonCode,
    Severity,
    Subject,
    SubjectKind,
)
from probes.observation import Gap, Instant, InterfaceLink, LogLine, Observation, RdmaPort, SensorName

LINKS: Final = SensorName("host.links")
LOGS: Final = SensorName("host.logs")
_FAULT: Final = FaultClass.NETWORK_RDMA_FAULT
_LINKS_MAX: Final = 128
_GRAVE: Final = frozenset({LinkCounter.LINK_DOWNED, LinkCounter.LOCAL_ACK_TIMEOUT, LinkCounter.RNR_NAK_RETRY})
"""Counters that a sound link leaves alone; the others rise a little on any busy fabric."""

_RDMA_FAILED: Final = "nccl.ib_error"
COLLECTIVE_FAILED: Final = frozenset(
    {_RDMA_FAILED, "nccl.collective_timeout", "nccl.connection_closed", "nccl.remote_exited"}
)


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much has to rise, what counts as the same time, and for how long it has to be quiet."""

    least_rise: Annotated[int, Meta(ge=1)] = 100
    window_s: Annotated[float, Meta(gt=0)] = 120.0
    clear_after_s: Annotated[float, Meta(ge=0)] = 300.0
    gone_clear_after_s: Annotated[float, Meta(gt=0)] = 86400.0


@dataclass(slots=True)
class _Port:
    """What one port showed: its counters' rises and its carrier's losses, with when they were last seen."""

    number: int = 0
    up: bool | None = None
    looks: deque[tuple[Instant, LinkCounter, int]] = field(default_factory=lambda: deque(maxlen=256))
    rose: Instant | None = None
    changes: int = 0
    lost: Instant | None = None

    @property
    def rises(self) -> Mapping[LinkCounter, int]:
        """By how much each counter rose in the looks that are kept."""
        sums: Counter[LinkCounter] = Counter()
        for _, counter, rise in self.looks:
            sums[counter] += rise
        return sums

    def forget(self, at: Instant, window_s: float) -> None:
        """Leave out what lies too far back."""
        while self.looks and at.since_s(self.looks[0][0]) > window_s:
            self.looks.popleft()
        if self.rose is not None and at.since_s(self.rose) > window_s:
            self.rose = None
        if self.lost is not None and at.since_s(self.lost) > window_s:
            self.changes, self.lost = 0, None

    def last(self) -> Instant | None:
        """When it last showed anything."""
        return max((i for i in (self.rose, self.lost) if i), key=lambda i: i.boot_ns, default=None)


@dataclass(frozen=True, slots=True)
class _Line:
    """A log line about a collective operation."""

    at: Instant
    count: int
    by_rdma: bool
    subject: Subject


class NetworkRdma:
    """Says which fast link fails."""

    NAME: ClassVar[str] = "network_rdma"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.NOTE, Severity.HIGH),
            sensors=(LINKS, LOGS),
            opens="Two of these within `window_s`: error counters of an RDMA port rise (grave ones at "
            "all, others by `least_rise`), its interface loses the carrier, NCCL reports that a "
            "collective operation failed. One alone is a note; a carrier alone only where an RDMA "
            "device stands on it, a log line alone only where it names an RDMA operation.",
            quiet="A port without a carrier that nothing uses, an interface that was switched off, "
            "counters that rise by little, a rank that ended for another reason.",
            clears="The link is up and has shown nothing for `clear_after_s` while it was seen; or it has "
            "not been there for `gone_clear_after_s`.",
        ),
    )

    def __init__(self, *, config: Config) -> None:
        self._config = config
        self._heard = Heard(LINKS)
        self._seeing_since: Instant | None = None
        self._ports: OrderedDict[str, _Port] = OrderedDict()
        self._devices: dict[str, str] = {}
        self._line: _Line | None = None

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:  # noqa: ARG003  # the protocol's
        """Make the detector."""
        return cls(config=config)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Open at the first sign; the quiet time was waited for here."""
        return {_FAULT: Hysteresis(clear_hold_s=0.0)}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Judge one look at a link or one line of a log, or follow the sensor's sight."""
        match observation:
            case RdmaPort():
                return self._counted(observation)
            case InterfaceLink():
                return self._carrier(observation)
            case LogLine(pattern=pattern) if pattern in COLLECTIVE_FAILED:
                return self._logged(observation)
            case Gap(sensor=sensor) if sensor == LINKS:
                self._heard.sight(observation)
                self._seeing_since = sight_after(self._seeing_since, observation)
                return () if self._seeing_since else (unknown(_FAULT, observation.at),)
            case _:
                return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Clear links that are up and were seen to be quiet for long enough."""
        if self._seeing_since is None:
            return (unknown(_FAULT, tick.now),) if tick.open_cases else ()
        found = []
        for case in tick.open_cases:
            quiet_s = quiet_for_s(self._seeing_since, case.last_seen, tick.now)
            port = self._ports.get(case.subject.name)
            if quiet_s < self._config.clear_after_s or (port is not None and port.up is False):
                continue
            if case.subject.kind is SubjectKind.INTERFACE and port is None:
                # It may be unplugged for a while.
                gone = self._heard.gone(case, tick, self._config.gone_clear_after_s)
                found += [gone] if gone is not None else []
                continue
            code = ReasonCode.LINK_STEADY_AGAIN
            reason = Reason(code, threshold=self._config.clear_after_s, window_s=round(quiet_s, 3))
            found.append(absent(_FAULT, case.subject, tick.now, reason))
        return found

    def _port(self, device: str, at: Instant) -> _Port:
        self._heard.take(Subject(SubjectKind.INTERFACE, cut(device)), at)
        port = entry(self._ports, device, _Port, limit=_LINKS_MAX)
        port.forget(at, self._config.window_s)
        return port

    def _counted(self, seen: RdmaPort) -> Sequence[Finding]:
        if seen.interface is not None and len(self._devices) < _LINKS_MAX:
            self._devices[seen.interface] = seen.device
        port = self._port(seen.device, seen.at)
        port.number, port.up = seen.port, seen.active
        port.looks.extend((seen.at, _counter(name), rise) for name, rise in seen.rises)
        told = any(
            rise >= (1 if counter in _GRAVE else self._config.least_rise)
            for counter, rise in port.rises.items()
        )
        if not (seen.rises and told):
            return ()
        port.rose = seen.at
        return self._judged(seen.device, port, seen.at)

    def _carrier(self, seen: InterfaceLink) -> Sequence[Finding]:
        device = self._devices.get(seen.interface, seen.interface)
        port = self._port(device, seen.at)
        if device == seen.interface:
            port.up = seen.up
        if not seen.changes or not seen.enabled:
            return ()
        port.lost, port.changes = seen.at, port.changes + seen.changes
        return self._judged(device, port, seen.at)

    def _logged(self, line: LogLine) -> Sequence[Finding]:
        self._line = _Line(line.at, line.count, line.pattern == _RDMA_FAILED, subject_of(line.origin))
        found: list[Finding] = []
        for device, port in self._ports.items():
            last = port.last()
            if last is not None and line.at.since_s(last) <= self._config.window_s:
                found += self._judged(device, port, line.at)
        if found or not self._line.by_rdma:
            return found
        reasons = (
            Reason(ReasonCode.COLLECTIVE_FAILED, count=line.count),
            Reason(ReasonCode.SECOND_LAYER_UNKNOWN),
        )
        return (_present(self._line.subject, line.at, Severity.NOTE, reasons, ()),)

    def _judged(self, device: str, port: _Port, at: Instant) -> Sequence[Finding]:
        reasons = list(self._reasons(port, at))
        lone_carrier = len(reasons) == 1 and reasons[0].code is ReasonCode.CARRIER_LOST
        if not reasons or (lone_carrier and device not in self._devices.values()):
            return ()
        severity = Severity.HIGH if len(reasons) > 1 else Severity.NOTE
        if len(reasons) == 1:
            reasons.append(Reason(ReasonCode.SECOND_LAYER_UNKNOWN))
        evidence = tuple(_evidence(device, port, self._config.window_s))
        subject = Subject(SubjectKind.INTERFACE, cut(device))
        return (_present(subject, at, severity, tuple(reasons), evidence),)

    def _reasons(self, port: _Port, at: Instant) -> Iterator[Reason]:
        window_s = self._config.window_s
        if port.rose is not None:
            yield Reason(ReasonCode.RDMA_COUNTERS_RISE, count=sum(port.rises.values()), window_s=window_s)
        if port.lost is not None:
            yield Reason(ReasonCode.CARRIER_LOST, count=port.changes, window_s=window_s)
        if self._line is not None and abs(at.since_s(self._line.at)) <= window_s:
            yield Reason(ReasonCode.COLLECTIVE_FAILED, count=self._line.count)


def _counter(name: str) -> LinkCounter:
    try:
        return LinkCounter(name)
    except ValueError:
        return LinkCounter.UNKNOWN


def _evidence(device: str, port: _Port, window_s: float) -> Iterator[LinkEvidence]:
    """Yield the counters that rose most, at most three, and the carrier's changes."""
    by_rise = sorted(port.rises.items(), key=lambda item: (-item[1], item[0].value))
    shown = [*by_rise[:3], *([(LinkCounter.CARRIER_CHANGES, port.changes)] if port.lost else [])]
    for counter, rise in shown:
        yield LinkEvidence(
            device=cut(device, 64),
            port=port.number,
            counter=counter,
            rise=rise,
            window_s=window_s,
            up=port.up,
        )


def _present(
    subject: Subject,
    at: Instant,
    severity: Severity,
    reasons: tuple[Reason, ...],
    evidence: tuple[LinkEvidence, ...],
) -> Finding:
    return Finding(
        verdict=Verdict.PRESENT,
        fault_class=_FAULT,
        subject=subject,
        at=at,
        severity=severity,
        reasons=reasons,
        evidence=evidence,
    )
