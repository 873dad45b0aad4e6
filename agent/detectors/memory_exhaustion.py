"""F23 memory.unified_exhaustion: the host runs out of memory, which on unified memory ends in a freeze.

Two layers: the level (available memory, the kernel's own estimate, below a floor) and the pressure (time in
which all tasks stall, processes that have to make room for themselves, pages that come back from swap faster
than a page now and then: on a full host somebody always touches what was swapped out long ago). Both
together are critical. The level alone is a note while it stays where it is, because a host that is filled to
the brim on purpose is like that; while it falls towards nothing within `empty_in_s` it is high and says that
its second layer is missing: on a host that freezes the pressure comes seconds before the end, too late to act
on. The one model server of the host is named as the target, unless it has started more often than
`restart_budget` lately: then another start is no cure.

Catalogued look-alikes stay quiet: page cache that fills free memory (what is available is not less for it), a
dip that is over in seconds, swap in use without stalls.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final, Self

from msgspec import Meta

from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick
from agent.finding import Finding, Hysteresis, Verdict, absent, unknown
from agent.subjects import subject_of
from escalation.model import (
    FaultClass,
    Incarnation,
    MemoryEvidence,
    Reason,
    ReasonCode,
    Severity,
    Subject,
    SubjectKind,
)
from probes.observation import Blind, Gap, Instant, MemoryState, Observation, SensorName, ServerUsage

SENSOR: Final = SensorName("host.memory")
SERVERS: Final = SensorName("host.servers")
_FAULT: Final = FaultClass.MEMORY_UNIFIED_EXHAUSTION
_SAMPLES: Final = 64
_SERVERS_MAX: Final = 64
_STALE_S: Final = 30.0
_GIB: Final = 1 << 30


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How little is too little. The floor is the smaller of `floor_bytes` and `floor_share` of all memory.

    One fault brings up to eight pages back from swap (vm.page-cluster, the kernel's sysctl/vm.rst), so
    `swapped_in_per_s` is at least six faults a second.
    """

    floor_bytes: Annotated[int, Meta(ge=0)] = 8 * _GIB
    floor_share: Annotated[float, Meta(ge=0, le=1)] = 0.1
    lasting_s: Annotated[float, Meta(ge=0)] = 6.0
    steady_s: Annotated[float, Meta(ge=0)] = 60.0
    slope_s: Annotated[float, Meta(gt=0)] = 30.0
    empty_in_s: Annotated[float, Meta(gt=0)] = 120.0
    stalled_percent: Annotated[float, Meta(ge=0, le=100)] = 5.0
    swapped_in_per_s: Annotated[float, Meta(gt=0)] = 50.0
    clear_above: Annotated[float, Meta(ge=1)] = 1.25
    clear_hold_s: Annotated[float, Meta(ge=0)] = 60.0
    restart_budget: Annotated[int, Meta(ge=0)] = 2
    restart_window_s: Annotated[float, Meta(gt=0)] = 3600.0


class _Stage(enum.IntEnum):
    """How far it has gone, each worse than the one before."""

    WELL = 0
    LOW = 1
    FALLING = 2
    PRESSED = 3


@dataclass(slots=True)
class _Server:
    """A model server: when it was last seen to run, and when each of its lives began."""

    seen: Instant
    starts: deque[Instant] = field(default_factory=lambda: deque(maxlen=_SAMPLES))


_SEVERITY: Final = {
    _Stage.LOW: Severity.NOTE,
    _Stage.FALLING: Severity.HIGH,
    _Stage.PRESSED: Severity.CRITICAL,
}


class MemoryExhaustion:
    """Says when the host is about to run out of memory."""

    NAME: ClassVar[str] = "memory_exhaustion"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.NOTE, Severity.HIGH, Severity.CRITICAL),
            sensors=(SENSOR, SERVERS),
            opens="Available memory has been below the floor for `lasting_s` while tasks stall for memory, "
            "allocations wait or `swapped_in_per_s` pages come back from swap a second (critical); or while "
            "it falls towards nothing within `empty_in_s` (high); or for `steady_s` without either (note).",
            quiet="Page cache that fills free memory; a dip that is over in `lasting_s`; swap in use without "
            "pressure; a page now and then that comes back from it; stalls while enough memory is available "
            "(a control group at its own limit).",
            clears="`clear_above` times the floor is available and nothing stalls, for `clear_hold_s`.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._around = surroundings
        self._subject = Subject(SubjectKind.HOST, surroundings.host)
        self._levels: deque[tuple[Instant, int]] = deque(maxlen=_SAMPLES)
        self._low_since: Instant | None = None
        self._told = _Stage.WELL
        self._latest: MemoryState | None = None
        self._servers: dict[Subject, _Server] = {}
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
        """Judge one look at the memory; keep in mind which model servers run."""
        match observation:
            case Gap(sensor=sensor, coverage=coverage) if sensor == SENSOR:
                self._sees = not isinstance(coverage, Blind)
                self._forget()
                return () if self._sees else (unknown(_FAULT, observation.at),)
            case ServerUsage():
                self._took(observation)
                return ()
            case MemoryState():
                return self._judged(observation)
            case _:
                return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Say unknown of an open case while nothing is seen."""
        return (unknown(_FAULT, tick.now),) if tick.open_cases and not self._sees else ()

    def _judged(self, state: MemoryState) -> Sequence[Finding]:
        before, self._latest = self._latest, state
        if before is not None and state.at.since_s(before.at) > _STALE_S:
            self._forget()
        self._levels.append((state.at, state.available_bytes))
        floor = self.floor(state)
        if state.available_bytes >= floor:
            self._low_since = None
            well = state.available_bytes >= floor * self._config.clear_above and not self._pressed(state)
            if not well:
                return ()
            self._told = _Stage.WELL
            over = Reason(ReasonCode.MEMORY_AVAILABLE_AGAIN)
            return (absent(_FAULT, self._subject, state.at, over),)
        self._low_since = self._low_since or state.at
        low_s = state.at.since_s(self._low_since)
        stage = self._stage(state, low_s)
        if stage is _Stage.WELL:
            return ()
        worse = stage > self._told
        self._told = max(self._told, stage)
        return (self._present(state, stage, floor, low_s, counts=worse),)

    def floor(self, state: MemoryState) -> int:
        """Return how much should be available on this host."""
        return min(self._config.floor_bytes, int(state.total_bytes * self._config.floor_share))

    def _stage(self, state: MemoryState, low_s: float) -> _Stage:
        if low_s < self._config.lasting_s:
            return _Stage.WELL
        if self._pressed(state):
            return _Stage.PRESSED
        empty_in_s = self._empty_in_s()
        if empty_in_s is not None and empty_in_s <= self._config.empty_in_s:
            return _Stage.FALLING
        return _Stage.LOW if low_s >= self._config.steady_s else _Stage.WELL

    def _pressed(self, state: MemoryState) -> bool:
        return self._stalled(state) or state.allocation_stalls > 0 or self._swaps_in(state)

    def _swaps_in(self, state: MemoryState) -> bool:
        """Return whether pages come back from swap at a rate that holds work up."""
        least = self._config.swapped_in_per_s * state.window_s
        return state.swapped_in_pages > 0 and state.swapped_in_pages >= least

    def _stalled(self, state: MemoryState) -> bool:
        return state.full_avg10 is not None and state.full_avg10 >= self._config.stalled_percent

    def _falls(self) -> float:
        """Return how many bytes a second are lost, by least squares over the last `slope_s`; 0 if none."""
        if not self._levels:
            return 0.0
        last = self._levels[-1][0]
        ago = [(at.since_s(last), level) for at, level in self._levels]
        kept = [(at_s, level) for at_s, level in ago if -at_s <= self._config.slope_s]
        if len(kept) < 3:
            return 0.0
        middle = sum(at for at, _ in kept) / len(kept)
        mean = sum(level for _, level in kept) / len(kept)
        spread = sum((at - middle) ** 2 for at, _ in kept)
        slope = sum((at - middle) * (level - mean) for at, level in kept) / spread if spread else 0.0
        return max(0.0, -slope)

    def _empty_in_s(self) -> float | None:
        falls = self._falls()
        return self._levels[-1][1] / falls if falls > 0 else None

    def _present(
        self, state: MemoryState, stage: _Stage, floor: int, low_s: float, *, counts: bool
    ) -> Finding:
        reasons = [Reason(ReasonCode.MEMORY_BELOW_FLOOR, window_s=round(low_s, 3))]
        empty_in_s = self._empty_in_s()
        if empty_in_s is not None and empty_in_s <= self._config.empty_in_s:
            reasons.append(Reason(ReasonCode.MEMORY_FALLS, threshold=self._config.empty_in_s))
        if self._stalled(state):
            reasons.append(Reason(ReasonCode.TASKS_STALL_FOR_MEMORY, threshold=self._config.stalled_percent))
        if state.allocation_stalls or self._swaps_in(state):
            reasons.append(Reason(ReasonCode.ALLOCATIONS_STALL, count=state.allocation_stalls))
        if stage is not _Stage.PRESSED:
            reasons.append(Reason(ReasonCode.SECOND_LAYER_UNKNOWN))
        return Finding(
            verdict=Verdict.PRESENT,
            fault_class=_FAULT,
            subject=self._subject,
            at=state.at,
            severity=_SEVERITY[stage],
            incarnation=Incarnation(kernel_boot_id=self._around.kernel_boot_id),
            target=self._only_server(state.at),
            lifebound=True,
            count=int(counts),
            reasons=tuple(reasons),
            evidence=(
                MemoryEvidence(
                    total_bytes=state.total_bytes,
                    available_bytes=state.available_bytes,
                    free_bytes=state.free_bytes,
                    floor_bytes=floor,
                    falls_bytes_per_s=round(self._falls(), 1),
                    empty_in_s=None if empty_in_s is None else round(empty_in_s, 1),
                    stalled_percent=state.full_avg10,
                    stalls=state.allocation_stalls,
                ),
            ),
        )

    def _only_server(self, now: Instant) -> Subject | None:
        """Return the one model server of this host: with two, nobody knows here which is to blame."""
        running = [subject for subject, known in self._servers.items() if now.since_s(known.seen) < _STALE_S]
        one = len(running) == 1 and running[0].kind in {SubjectKind.CONTAINER, SubjectKind.UNIT}
        return running[0] if one and self._restarts(running[0], now) <= self._config.restart_budget else None

    def _restarts(self, subject: Subject, now: Instant) -> int:
        """Return how often a server has started lately; one more start of what fills the host is no cure."""
        window_s = self._config.restart_window_s
        return sum(now.since_s(start) <= window_s for start in self._servers[subject].starts)

    def _took(self, usage: ServerUsage) -> None:
        """Keep in mind that a server runs, and since when."""
        subject = subject_of(usage.origin)
        known = self._servers.pop(subject, None) or _Server(usage.at)
        known.seen = usage.at
        if not known.starts or usage.started.since_s(known.starts[-1]) > 1:
            known.starts.append(usage.started)
        self._servers[subject] = known
        while len(self._servers) > _SERVERS_MAX:
            del self._servers[next(iter(self._servers))]

    def _forget(self) -> None:
        self._levels.clear()
        self._low_since = None
        self._told = _Stage.WELL
