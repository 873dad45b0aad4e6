"""F29 distributed.worker_lost: a worker of a cluster (Ray) is gone, and what it carried waits for it.

The head's log names the node that it took for dead; the node's own log says when it was taken for dead
itself. That is one layer, and a note. The second is the host's: attempts to connect to that node fail, the
head's table of connections shrank, a process of the cluster died of a signal, is stopped or stuck, or the
cluster's own numbers count a dead node.

Look-alikes stay quiet: a node that left in order (`ray stop` ends it with SIGTERM, and the head calls that
expected); failed health checks that end well; connections that fail while nobody was taken for dead; a head
that is not there yet.

A case clears when a node joins again at that address, or the node's own part starts, by the word of who
writes such lines: anybody may write anything into a journal, so there it takes Ray's own program, or the
container or unit that told of the loss. It clears also when the head that missed it has been gone for a day,
because who leads now knows nothing of that node; and where its return may have been missed (the agent was not
there, or lines were lost), a day after.
"""

from __future__ import annotations

import errno
import ipaddress
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Self

from msgspec import Meta

from agent.bounded import keep
from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick, sight_after
from agent.finding import Finding, Hysteresis, OpenCase, Verdict, absent, unknown
from agent.host.log_evidence import log_evidence
from agent.routes.findings import gone_for_long
from agent.subjects import incarnation_of, place_of, subject_of, target_of
from escalation.model import (
    Evidence,
    FaultClass,
    PeerEvidence,
    Reason,
    ReasonCode,
    Severity,
    Subject,
    SubjectKind,
)
from probes.observation import (
    Condition,
    ConnectFailures,
    FatalSignal,
    Gap,
    Instant,
    LogLine,
    Observation,
    Origin,
    ProcessCondition,
    SensorName,
    ServerGauge,
    ServerKind,
    ServerMetrics,
    Sessions,
)

JOURNAL: Final = SensorName("host.logs")
FILES: Final = SensorName("host.log_files")
_FAULT: Final = FaultClass.DISTRIBUTED_WORKER_LOST
_HEAD_PORT: Final = 6379
_LOST_MAX: Final = 64
_SIGNS_MAX: Final = 64
_CONNECTS: Final = {
    errno.ECONNREFUSED: ReasonCode.CONNECTS_REFUSED,
    errno.ETIMEDOUT: ReasonCode.CONNECTS_TIME_OUT,
    errno.EHOSTUNREACH: ReasonCode.CONNECTS_UNREACHABLE,
    errno.ENETUNREACH: ReasonCode.CONNECTS_UNREACHABLE,
}
_CONDITIONS: Final = {
    Condition.STOPPED: ReasonCode.PROCESS_STOPPED,
    Condition.STUCK: ReasonCode.STUCK_IN_KERNEL,
    Condition.GONE: ReasonCode.PROCESS_GONE,
}


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How far apart the two layers may be, and what counts as a connection table that shrank."""

    together_s: Annotated[float, Meta(gt=0)] = 120.0
    sessions_fall_min: Annotated[int, Meta(ge=1)] = 3
    clear_hold_s: Annotated[float, Meta(ge=0)] = 30.0
    gone_clear_after_s: Annotated[float, Meta(gt=0)] = 86400.0


@dataclass(frozen=True, slots=True)
class _Lost:
    """A node that was taken for dead: when last, by which line; `address` is None for this host itself."""

    at: Instant
    subject: Subject
    address: str | None
    told: LogLine


@dataclass(frozen=True, slots=True)
class _Sign:
    """What the host's own layers saw; without an address it may be of any node."""

    at: Instant
    reason: Reason
    address: str | None = None
    origin: Origin | None = None
    evidence: Evidence | None = None


_NOBODY: Final = Subject(SubjectKind.UNKNOWN, "")


class DistributedWorker:
    """Says which node of a cluster is lost."""

    NAME: ClassVar[str] = "distributed_worker"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.NOTE, Severity.CRITICAL),
            sensors=(
                JOURNAL,
                FILES,
                SensorName("host.sessions"),
                SensorName("host.peers"),
                SensorName("kernel.fatal_signal"),
            ),
            opens="Ray's head logs that it took a node for dead, or a node that it was. A note "
            "alone; critical together with one of these within `together_s`: attempts to connect to the node "
            "fail, the head lost a peer or `sessions_fall_min` connections, a process of Ray's died of a "
            "fault signal, is stopped or stuck, or Ray counts a dead node.",
            quiet="A node that left in order (`ray stop`, SIGTERM); health checks that fail and then pass; a "
            "head that cannot be reached while nobody was taken for dead.",
            clears="A node registers at that address again; for this host itself, its raylet starts again "
            "(said in a followed file, by `gcs_server` or `raylet` itself, or by the container or unit that "
            "told of the loss); the cgroup of who missed it has been gone for `gone_clear_after_s`; or the "
            "logs were not read for a while, and for as long since nobody has said again that it is lost.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._around = surroundings
        self._lost: OrderedDict[str, _Lost] = OrderedDict()
        self._back: OrderedDict[str, Instant] = OrderedDict()
        self._tellers: dict[str, Subject | None] = {}
        self._signs: deque[_Sign] = deque(maxlen=_SIGNS_MAX)
        self._held: deque[Sessions] = deque(maxlen=16)
        self._dead_nodes: float | None = None
        self._sight: dict[SensorName, Instant | None] = {JOURNAL: None, FILES: None}

    def __repr__(self) -> str:
        return f"DistributedWorker({len(self._lost)} lost, {len(self._signs)} signs)"

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Open at once: Ray has waited through its health checks already."""
        return {_FAULT: Hysteresis(clear_hold_s=self._config.clear_hold_s)}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Follow what the cluster says of its nodes, and what the host sees of them."""
        match observation:
            case LogLine(pattern="ray.node_dead"):
                return self._dead(observation)
            case LogLine(pattern="ray.marked_dead_itself"):
                return self._dead_itself(observation)
            case LogLine(pattern="ray.node_registered"):
                self._registered(observation, _address(observation), by="gcs_server")
            case LogLine(pattern="ray.raylet_started"):
                self._registered(observation, None, by="raylet")
            case Gap(sensor=sensor) if sensor in self._sight:
                self._sight[sensor] = sight_after(self._sight[sensor], observation)
                if not any(self._sight.values()):
                    return (unknown(_FAULT, observation.at),)
            case _:
                sign = self._sign(observation)
                return self._seen(sign) if sign is not None else ()
        return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Clear the cases of nodes that are back; keep in mind who told of those that are not."""
        self._tellers = {case.subject.name: case.target for case in tick.open_cases}
        return [over for case in tick.open_cases if (over := self._over(case, tick)) is not None]

    def _dead(self, told: LogLine) -> Sequence[Finding]:
        address = _address(told)
        if address is None:
            subject = subject_of(told.origin) if told.origin.unit or told.origin.container_id else self._host
            return (self._taken_for_dead(_Lost(told.at, subject, None, told)),)
        return (self._taken_for_dead(_Lost(told.at, _node(address), address, told)),)

    def _dead_itself(self, told: LogLine) -> Sequence[Finding]:
        return (self._taken_for_dead(_Lost(told.at, self._host, None, told)),)

    def _taken_for_dead(self, lost: _Lost) -> Finding:
        keep(self._lost, lost.subject.name, lost, limit=_LOST_MAX)
        return self._finding(lost, lost.at, count=lost.told.count)

    def _registered(self, told: LogLine, address: str | None, *, by: str) -> None:
        """Take a node for back, where the line is Ray's `by` or of who told that the node was lost."""
        name = self._host.name if address is None else _node(address).name
        writer, lost = _holder(told.origin), self._lost.get(name)
        tellers = {self._tellers.get(name), _holder(lost.told.origin) if lost is not None else None}
        if told.sensor != FILES and told.origin.process_name != by and (writer or _NOBODY) not in tellers:
            return
        self._lost.pop(name, None)
        keep(self._back, name, told.at, limit=_LOST_MAX)

    def _sign(self, seen: Observation) -> _Sign | None:
        match seen:
            case ConnectFailures():
                return _failed(seen)
            case FatalSignal() if _is_rays(seen.origin):
                return _Sign(seen.at, Reason(ReasonCode.WORKER_PROCESS_ENDED, count=1), origin=seen.origin)
            case ProcessCondition() if _is_rays(seen.origin) and seen.condition in _CONDITIONS:
                reason = Reason(_CONDITIONS[seen.condition], count=1, window_s=round(seen.lasted_s, 3))
                return _Sign(seen.at, reason, origin=seen.origin)
            case Sessions(port=port) if port == _HEAD_PORT:
                return self._fewer_sessions(seen)
            case ServerMetrics() if seen.server is ServerKind.RAY:
                return self._more_dead(seen)
            case _:
                return None

    def _fewer_sessions(self, told: Sessions) -> _Sign | None:
        earlier = [each for each in self._held if told.at.since_s(each.at) <= self._config.together_s]
        self._held.append(told)
        peers = max((each.peers for each in earlier), default=0)
        sessions = max((each.sessions for each in earlier), default=0)
        fell = sessions - told.sessions
        if told.peers >= peers and fell < self._config.sessions_fall_min:
            return None
        return _Sign(told.at, Reason(ReasonCode.CONNECTIONS_RESET, count=max(1, fell)), origin=told.origin)

    def _more_dead(self, told: ServerMetrics) -> _Sign | None:
        dead = next(
            (each.value for each in told.gauges if each.gauge is ServerGauge.NODES_DEAD), self._dead_nodes
        )
        before, self._dead_nodes = self._dead_nodes, dead
        if before is None or dead is None or dead <= before:
            return None
        return _Sign(told.at, Reason(ReasonCode.METRICS_AGREE, count=int(dead - before)))

    def _seen(self, sign: _Sign) -> Sequence[Finding]:
        """Keep the sign; a node that was taken for dead before it is certain now."""
        self._signs.append(sign)
        return [
            self._finding(lost, sign.at, count=0)
            for lost in self._lost.values()
            if abs(sign.at.since_s(lost.at)) <= self._config.together_s and _is_of(sign, lost)
        ]

    def _finding(self, lost: _Lost, at: Instant, *, count: int) -> Finding:
        signs = [
            sign
            for sign in self._signs
            if abs(lost.at.since_s(sign.at)) <= self._config.together_s and _is_of(sign, lost)
        ]
        by_code = {sign.reason.code: sign for sign in signs}
        told = lost.told
        origin = next((sign.origin for sign in signs if sign.origin is not None), told.origin)
        if lost.address is not None:
            origin = told.origin  # what an action would act on is not where the node was
        reasons = [Reason(ReasonCode.NODE_MARKED_DEAD, count=told.count)]
        reasons += [sign.reason for sign in by_code.values()]
        if not signs:
            reasons.append(Reason(ReasonCode.SECOND_LAYER_UNKNOWN))
        line = log_evidence(told, count=told.count, window_s=self._config.together_s)
        more = [sign.evidence for sign in by_code.values() if sign.evidence is not None]
        return Finding(
            verdict=Verdict.PRESENT,
            fault_class=_FAULT,
            subject=lost.subject,
            target=target_of(origin, lost.subject),
            at=at,
            severity=Severity.CRITICAL if signs else Severity.NOTE,
            incarnation=incarnation_of(origin, self._around.kernel_boot_id),
            place=place_of(origin),
            count=count,
            reasons=tuple(reasons),
            evidence=(line, *more),
        )

    def _over(self, case: OpenCase, tick: Tick) -> Finding | None:
        back, now = self._back.get(case.subject.name), tick.now
        if back is None or back.boot_ns <= case.last_seen.boot_ns:
            return gone_for_long(case, tick, self._config.gone_clear_after_s) or self._unproven(case, now)
        return absent(
            _FAULT,
            case.subject,
            now,
            Reason(ReasonCode.WORKER_BACK, count=1, window_s=round(now.since_s(back), 3)),
        )

    def _unproven(self, case: OpenCase, now: Instant) -> Finding | None:
        """Return the end of a case whose node may have come back unseen, where nothing was told of it since.

        A cluster says once that a node is lost, and once that one joins. While the logs are read without a
        break nothing is missed, and the case stands for as long as the node is away.
        """
        since = max((at for at in self._sight.values() if at is not None), key=_boot_ns, default=None)
        if since is None or since.boot_ns <= case.last_seen.boot_ns:
            return None
        after_s, quiet_s = self._config.gone_clear_after_s, now.since_s(since)
        reason = Reason(ReasonCode.NOT_SEEN_SINCE, threshold=after_s, window_s=round(quiet_s, 3))
        return absent(_FAULT, case.subject, now, reason) if quiet_s >= after_s else None

    @property
    def _host(self) -> Subject:
        return Subject(SubjectKind.HOST, self._around.host)


def _node(address: str) -> Subject:
    return Subject(SubjectKind.PEER, f"{address} 0")


def _boot_ns(at: Instant) -> int:
    return at.boot_ns


def _holder(origin: Origin) -> Subject | None:
    return subject_of(origin) if origin.container_id or origin.unit else None


def _address(told: LogLine) -> str | None:
    number = told.number("address")
    if number is None or not 0 <= number < 1 << 32:
        return None
    return str(ipaddress.IPv4Address(int(number)))


def _is_rays(origin: Origin) -> bool:
    return origin.server is ServerKind.RAY or (origin.process_name or "") in {"raylet", "gcs_server"}


def _is_of(sign: _Sign, lost: _Lost) -> bool:
    return sign.address is None or lost.address is None or sign.address == lost.address


def _failed(seen: ConnectFailures) -> _Sign | None:
    code = _CONNECTS.get(seen.errno)
    if code is None:
        return None
    evidence = PeerEvidence(
        address=seen.peer.address,
        port=seen.peer.port,
        window_s=round(seen.window_s, 3),
        segments=0,
        retransmitted=0,
        resets=0,
        attempts=seen.count,
        failed=seen.count,
        errno=seen.errno,
    )
    reason = Reason(code, count=seen.count, window_s=round(seen.window_s, 3))
    return _Sign(seen.at, reason, address=seen.peer.address, origin=seen.origin, evidence=evidence)
