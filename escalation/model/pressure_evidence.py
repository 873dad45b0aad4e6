"""Evidence of what a host or a server waits for: memory, processor, descriptors, the kernel."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Resource(enum.StrEnum):
    """What tasks wait for."""

    UNKNOWN = "unknown"
    CPU = "cpu"
    MEMORY = "memory"
    IO = "io"


@dataclass(frozen=True, slots=True, kw_only=True)
class PressureEvidence:
    """Shares of time (0..100) in which some, and all, tasks waited for a resource, over `window_s` seconds.

    None where the kernel does not tell. The counts are of the same window, of the host or of the subject.
    """

    resource: Resource
    window_s: float
    some_percent: float | None
    full_percent: float | None
    major_faults: int = 0
    swapped_pages: int = 0
    direct_reclaims: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ThrottleEvidence:
    """How a cgroup was held back by its quota of processor time in `window_s` seconds."""

    window_s: float
    periods: int
    throttled_periods: int
    throttled_s: float
    quota_cores: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDelayEvidence:
    """How long a server's threads were ready to run and did not, in `window_s` seconds.

    `p99_s` is the 99th percentile of one wait, an upper bound of its class; `baseline_s` what is usual.
    `neighbour` is the cgroup that used `neighbour_cores` meanwhile, empty where none stood out.
    """

    window_s: float
    waits: int
    waited_s: float
    p99_s: float | None
    baseline_s: float | None
    neighbour: str
    neighbour_cores: float


class ProcessState(enum.StrEnum):
    """The state of a process, proc(5)."""

    UNKNOWN = "unknown"
    RUNNING = "running"
    SLEEPING = "sleeping"
    UNINTERRUPTIBLE = "uninterruptible"
    STOPPED = "stopped"
    ZOMBIE = "zombie"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessEvidence:
    """A process that does not get on: its state, for how long, and what waits for it.

    `backlog` connections to `port` (0: none) are established and not accepted, of at most `backlog_limit`.
    """

    process_name: str
    pid: int | None
    state: ProcessState
    lasted_s: float
    used_cpu_s: float | None
    port: int = 0
    backlog: int = 0
    backlog_limit: int = 0


class DescriptorCall(enum.StrEnum):
    """Which system call found no descriptor."""

    UNKNOWN = "unknown"
    OPEN = "open"
    ACCEPT = "accept"
    SOCKET = "socket"


@dataclass(frozen=True, slots=True, kw_only=True)
class DescriptorEvidence:
    """Calls that were refused because the process had no descriptor left (EMFILE) or the host (ENFILE)."""

    process_name: str
    pid: int | None
    call: DescriptorCall
    failures: int
    limit: int | None
    host_wide: bool
