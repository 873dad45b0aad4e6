"""What a detector is: a pure judge of observations, and what it may ask about the host.

A detector holds what it has seen and does no I/O; time comes with the observation or the tick. It does not
keep watch over open cases itself: each tick shows it the open ones of its fault classes, so it judges the
same after a restart as before. What it wants to know of the host (does this cgroup still exist, does this
process live) it names beforehand, and the shell looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import msgspec

from agent.finding import Finding, Hysteresis, OpenCase, Place
from agent.gpus.placement import Placements
from agent.host.exposure import AllowedListener, Mesh
from escalation.model import AgentId, FaultClass, Severity
from probes.observation import Blind, CgroupId, Gap, Instant, Observation, SensorName
from probes.scopes import ScopeRule


@dataclass(frozen=True, slots=True)
class CgroupLook:
    """What stands at a place now: whether the path exists, holds processes, and is still the same cgroup.

    `populated` and `same` are None where they could not be told. A restarted unit has its old path but
    another inode: it exists, and is not the same; `cgroup_id` is that inode.
    """

    exists: bool
    populated: bool | None = None
    same: bool | None = None
    cgroup_id: CgroupId | None = None


@dataclass(frozen=True, slots=True)
class ProcessKey:
    """One life of one process; without `start_ticks` the pid stands for whoever has it."""

    pid: int
    start_ticks: int | None


@dataclass(frozen=True, slots=True)
class World:
    """What the shell found out about the host. A thing that is missing here is unknown."""

    cgroups: Mapping[Place, CgroupLook] = field(default_factory=dict)
    processes: Mapping[ProcessKey, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: the open cases of the detector's fault classes, and the host as it is now."""

    now: Instant
    open_cases: Sequence[OpenCase] = ()
    world: World = field(default_factory=World)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a detector may need to know of the host that it judges."""

    host: AgentId
    kernel_boot_id: str
    mesh: Mesh = field(default_factory=Mesh)
    allowed_listeners: tuple[AllowedListener, ...] = ()
    placements: Placements = field(default_factory=Placements)
    scopes: tuple[ScopeRule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultNote:
    """One row of the fault-class reference: what opens a case, what stays quiet, what clears it."""

    fault_class: FaultClass
    severity: tuple[Severity, ...]
    sensors: tuple[SensorName, ...]
    opens: str
    quiet: str
    clears: str


class DetectorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every detector lets be configured."""

    enabled: bool = True


class Detector(Protocol):
    """Judges one fault class or a close family."""

    NAME: ClassVar[str]
    FAULTS: ClassVar[tuple[FaultNote, ...]]
    SETTINGS: ClassVar[type[DetectorConfig]]

    @classmethod
    def build(cls, config: Any, surroundings: Surroundings) -> Self:
        """Make the detector from an instance of its own `SETTINGS`."""

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """How cases of each of its fault classes open and clear."""

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Judge one observation; kinds that it does not know give nothing."""

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Judge the passing of time."""


@runtime_checkable
class Asking(Protocol):
    """A detector that wants to know of processes whether they live."""

    def watching(self) -> Sequence[ProcessKey]:
        """Return the processes whose life the next tick should tell."""


@runtime_checkable
class Remembering(Protocol):
    """A detector that learns: what it learnt is kept beside the cases, and comes back after a restart."""

    def memory(self) -> Mapping[str, bytes]:
        """Return what was learnt, by key; of bounded number and size."""

    def recall(self, memory: Mapping[str, bytes]) -> int:
        """Take up what an earlier one returned; return how many entries could not be read."""


def sight_after(seeing_since: Instant | None, gap: Gap) -> Instant | None:
    """Return since when a sensor has seen everything, given that and its next Gap; None while it is blind.

    Lost samples begin a new sight: what lies before them is not known to be quiet.
    """
    if isinstance(gap.coverage, Blind):
        return None
    if gap.lost or seeing_since is None:
        return gap.at
    return seeing_since


def quiet_for_s(seeing_since: Instant | None, last_seen: Instant, now: Instant) -> float:
    """Return for how long nothing happened *and* it would have been seen; 0 while blind."""
    if seeing_since is None:
        return 0.0
    return max(0.0, now.since_s(max(seeing_since, last_seen, key=lambda moment: moment.boot_ns)))
