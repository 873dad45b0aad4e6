"""F33 mesh.degraded: the private mesh is down, alone, about to expire, or takes the long way round.

What the daemon says of itself is one layer, and the only one that there is: a node that is logged out, whose
key expired or which the coordination server no longer hears cannot be reached, and says so on its own socket.
What is normal for a moment has to last: a start, a warning, a relayed path (each path begins relayed). A mesh
that somebody stopped is a note.

A host without a daemon is quiet unless the mesh is declared (`expected`) or ran here within `remember_s`,
which is remembered across restarts. Idle peers have no path, so they are no sign of anything: a case that
began with relayed peers ends when active ones have direct paths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Final, Self

from msgspec import Meta

from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick
from agent.finding import Finding, Hysteresis, Verdict, absent, unknown
from escalation.model import (
    SEVERITY_ORDER,
    FaultClass,
    Incarnation,
    MeshEvidence,
    MeshState as WireState,
    MeshWarning as WireWarning,
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
    MeshState,
    MeshStatus,
    MeshWarning,
    Observation,
    SensorName,
    Suspended,
)

SENSOR: Final = SensorName("mesh.tailscale")
_FAULT: Final = FaultClass.MESH_DEGRADED
_RELAYED_MAX: Final = 256
_MEMORY: Final = "ran"
_DAY_S: Final = 86400.0
_HARMLESS: Final = frozenset({MeshWarning.WARMING_UP})
_MINOR: Final = frozenset({MeshWarning.OTHER, MeshWarning.STATEFUL_FILTERING})


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long what is normal for a moment may last."""

    expected: bool = False
    lasting_s: Annotated[float, Meta(ge=0)] = 60.0
    starting_s: Annotated[float, Meta(ge=0)] = 180.0
    warning_s: Annotated[float, Meta(ge=0)] = 300.0
    relayed_s: Annotated[float, Meta(ge=0)] = 300.0
    expiry_note_s: Annotated[float, Meta(ge=0)] = 7 * _DAY_S
    remember_s: Annotated[float, Meta(ge=0)] = 7 * _DAY_S
    clear_hold_s: Annotated[float, Meta(ge=0)] = 60.0


class MeshDegraded:
    """Says what is wrong with this host's place in the mesh."""

    NAME: ClassVar[str] = "mesh"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.NOTE, Severity.MEDIUM, Severity.HIGH),
            sensors=(SENSOR,),
            opens="The daemon is gone, logged out, or not heard by its coordination server for `lasting_s`, "
            "or starts for `starting_s`, or its key expired (high); it warns of its connections for "
            "`warning_s` or an active peer is relayed for `relayed_s` (medium); its key expires within "
            "`expiry_note_s`, it was stopped, or it warns of something else (note).",
            quiet="The first seconds of a start or of a path, which begins relayed, also after a sleep of "
            "the host; idle peers; a host on which the mesh never ran, unless it is `expected`.",
            clears="The daemon runs, is heard, and warns of nothing; after relayed peers, active peers have "
            "direct paths. Held for `clear_hold_s`.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._around = surroundings
        self._subject = Subject(SubjectKind.HOST, surroundings.host)
        self._ran_unix_ns: int | None = None
        self._since: dict[ReasonCode, Instant] = {}
        self._relayed: dict[str, Instant] = {}
        self._relay_told = False
        self._told = False
        self._sees = False

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Open at once, because what had to last was waited for here."""
        return {_FAULT: Hysteresis(clear_hold_s=self._config.clear_hold_s)}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Judge one status."""
        match observation:
            case Gap(sensor=sensor, coverage=coverage) if sensor == SENSOR:
                self._sees = not isinstance(coverage, Blind)
                if self._sees:
                    return ()
                self._since.clear()
                self._relayed.clear()
                return (unknown(_FAULT, observation.at, self._subject),)
            case Suspended():
                # Nothing lasted while the host slept, and everything begins anew when it wakes.
                self._since.clear()
                self._relayed.clear()
                return ()
            case MeshStatus():
                self._sees = True
                return self._judged(observation)
            case _:
                return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Say unknown of an open case while the daemon does not answer."""
        self._told = bool(tick.open_cases)
        if not tick.open_cases:
            self._relay_told = False
            return ()
        self._relay_told |= any(
            isinstance(item, MeshEvidence) and item.peers_relayed > 0
            for case in tick.open_cases
            for item in case.evidence
        )
        return () if self._sees else (unknown(_FAULT, tick.now, self._subject),)

    def memory(self) -> Mapping[str, bytes]:
        """Return when the mesh was last seen to run."""
        return {} if self._ran_unix_ns is None else {_MEMORY: str(self._ran_unix_ns).encode()}

    def recall(self, memory: Mapping[str, bytes]) -> int:
        """Take up when the mesh was last seen to run."""
        raw = memory.get(_MEMORY)
        if raw is None:
            return 0
        if not (raw.isdigit() and len(raw) < 20):
            return 1
        self._ran_unix_ns = int(raw)
        return 0

    def _judged(self, status: MeshStatus) -> Sequence[Finding]:
        if status.state is MeshState.RUNNING:
            self._ran_unix_ns = status.at.unix_ns
        elif status.state is MeshState.NO_DAEMON and not self._is_ours(status.at):
            return ()
        found = [*self._state(status), *self._key(status), *self._warned(status), *self._paths(status)]
        if found:
            return (self._present(status, found),)
        settled = status.state is MeshState.RUNNING and status.online is not False and not self._since
        if not settled or self._relayed:
            return ()
        if self._relay_told and not (status.peers_known and status.peers_active and not status.peers_relayed):
            return ()
        reason = Reason(ReasonCode.MESH_WELL_AGAIN, count=status.peers_active)
        return (absent(_FAULT, self._subject, status.at, reason),)

    def _is_ours(self, now: Instant) -> bool:
        if self._config.expected:
            return True
        if self._ran_unix_ns is None:
            return False
        # A clock that was set back since does not make a host forget its mesh.
        return (now.unix_ns - self._ran_unix_ns) / 1e9 <= self._config.remember_s

    def _state(self, status: MeshStatus) -> list[tuple[Severity, Reason]]:
        running = status.state is MeshState.RUNNING
        starting = status.state is MeshState.STARTING
        lasting_s = self._config.starting_s if starting else self._config.lasting_s
        by_hand = status.state in {MeshState.STOPPED, MeshState.UNKNOWN}
        down = self._held_s(ReasonCode.MESH_NOT_RUNNING, status.at, holds=not running)
        alone = self._held_s(ReasonCode.MESH_OFFLINE, status.at, holds=running and status.online is False)
        found = []
        if down is not None and down >= lasting_s:
            reason = Reason(ReasonCode.MESH_NOT_RUNNING, count=1, threshold=lasting_s, window_s=down)
            found.append((Severity.NOTE if by_hand else Severity.HIGH, reason))
        if alone is not None and alone >= self._config.lasting_s:
            limit_s = self._config.lasting_s
            reason = Reason(ReasonCode.MESH_OFFLINE, count=1, threshold=limit_s, window_s=alone)
            found.append((Severity.HIGH, reason))
        return found

    def _key(self, status: MeshStatus) -> list[tuple[Severity, Reason]]:
        left_s = status.key_expires_in_s
        if status.expired or (left_s is not None and left_s <= 0):
            return [(Severity.HIGH, Reason(ReasonCode.KEY_EXPIRED, count=1))]
        if left_s is None or left_s > self._config.expiry_note_s:
            return []
        return [
            (
                Severity.NOTE,
                Reason(
                    ReasonCode.KEY_EXPIRES_SOON,
                    count=1,
                    threshold=self._config.expiry_note_s,
                    window_s=left_s,
                ),
            )
        ]

    def _warned(self, status: MeshStatus) -> list[tuple[Severity, Reason]]:
        told = set(status.warnings) - _HARMLESS
        held_s = self._held_s(ReasonCode.HEALTH_WARNINGS, status.at, holds=bool(told))
        if held_s is None or held_s < self._config.warning_s:
            return []
        reason = Reason(
            ReasonCode.HEALTH_WARNINGS, count=len(told), threshold=self._config.warning_s, window_s=held_s
        )
        return [(Severity.MEDIUM if told - _MINOR else Severity.NOTE, reason)]

    def _paths(self, status: MeshStatus) -> list[tuple[Severity, Reason]]:
        if status.peers_known:
            self._relayed = {
                address: self._relayed.get(address, status.at) for address in status.relayed[:_RELAYED_MAX]
            }
        ages_s = [status.at.since_s(since) for since in self._relayed.values()]
        lasting = [age_s for age_s in ages_s if age_s >= self._config.relayed_s]
        if not lasting:
            return []
        self._relay_told = True
        reason = Reason(
            ReasonCode.PEERS_RELAYED,
            count=len(lasting),
            threshold=self._config.relayed_s,
            window_s=round(max(lasting), 3),
        )
        return [(Severity.MEDIUM, reason)]

    def _held_s(self, code: ReasonCode, at: Instant, *, holds: bool) -> float | None:
        """Return for how long what `holds` has held, None while it does not."""
        if not holds:
            self._since.pop(code, None)
            return None
        return round(at.since_s(self._since.setdefault(code, at)), 3)

    def _present(self, status: MeshStatus, found: Sequence[tuple[Severity, Reason]]) -> Finding:
        known, self._told = self._told, True
        return Finding(
            verdict=Verdict.PRESENT,
            fault_class=_FAULT,
            subject=self._subject,
            at=status.at,
            count=0 if known else 1,
            severity=max((severity for severity, _ in found), key=SEVERITY_ORDER.index),
            incarnation=Incarnation(kernel_boot_id=self._around.kernel_boot_id),
            reasons=tuple(reason for _, reason in found),
            evidence=(
                MeshEvidence(
                    state=WireState(status.state.value),
                    online=status.online,
                    key_expires_in_s=status.key_expires_in_s,
                    warnings=tuple(WireWarning(warning.value) for warning in status.warnings),
                    peers_active=status.peers_active,
                    peers_relayed=status.peers_relayed,
                ),
            ),
        )
