"""What is told of waiting: for a processor, for memory, for a descriptor, for the kernel, for an answer."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from probes.origin import Instant, Origin, SensorName


@dataclass(frozen=True, slots=True, kw_only=True)
class PressureState:
    """The host's pressure stall information (shares of time, 0..100), and what its memory did meanwhile.

    The shares are None on a kernel without pressure accounting. The counts are of the `window_s` seconds
    before; `allocation_stalls` counts direct reclaim for the whole host, not that of a control group's limit.
    """

    sensor: SensorName
    at: Instant
    window_s: float
    cpu_some_avg10: float | None
    cpu_some_avg60: float | None
    io_full_avg10: float | None
    io_full_avg60: float | None
    memory_some_avg10: float | None
    memory_full_avg10: float | None
    memory_full_avg60: float | None
    major_faults: int
    refaulted_pages: int
    swapped_in_pages: int
    swapped_out_pages: int
    allocation_stalls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupPressure:
    """How the control group of a known server was held back in the last `window_s` seconds.

    `origin` is the server's main process and `up_s` how long it has run. `quota_cores` is the smallest quota
    of its group and those above, None without one; the periods are of that group.
    """

    sensor: SensorName
    at: Instant
    origin: Origin
    up_s: float | None
    window_s: float
    quota_cores: float | None
    periods: int
    throttled_periods: int
    throttled_s: float
    memory_some_avg10: float | None
    memory_full_avg10: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectReclaims:
    """Tasks of one control group had to make room for themselves `count` times in `window_s` seconds.

    `by_limit` counts those at a group's own limit, the rest were for want of memory on the host. The share of
    time in which all of the group's tasks stalled is None where the kernel does not tell it.
    """

    sensor: SensorName
    at: Instant
    origin: Origin
    window_s: float
    count: int
    by_limit: int
    memory_full_avg10: float | None
    memory_full_avg60: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A control group beside a server: the cores that it uses, and how many more than it used to."""

    cgroup_path: str
    cores: float
    grown_cores: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDelay:
    """How long threads of a server were ready to run and did not, in `window_s` seconds.

    `p99_s` is an upper bound of the 99th percentile of one wait, None without a wait. `cpu_some_avg10` is the
    host's pressure at the end of the window. `neighbours` come with the most grown first.
    """

    sensor: SensorName
    at: Instant
    origin: Origin
    window_s: float
    threads: int
    waits: int
    waited_s: float
    p99_s: float | None
    cpu_some_avg10: float | None
    neighbours: tuple[Neighbour, ...]


class DescriptorUser(enum.StrEnum):
    """Which system call found no descriptor."""

    OPEN = "open"
    ACCEPT = "accept"
    SOCKET = "socket"


@dataclass(frozen=True, slots=True, kw_only=True)
class DescriptorsRefused:
    """A process got no descriptor `count` times: its own limit is reached, or (`host_wide`) the host's.

    `limit` is the process's soft limit of open files, None where it is gone.
    """

    sensor: SensorName
    at: Instant
    origin: Origin
    call: DescriptorUser
    host_wide: bool
    count: int
    limit: int | None


class Condition(enum.StrEnum):
    """How a process that did not get on stands now."""

    STUCK = "stuck"  # in the kernel, uninterruptible
    STOPPED = "stopped"
    RUNS = "runs"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessCondition:
    """A process that has been stuck or stopped for `lasted_s` seconds, or that got over it, told once.

    `used_cpu_s` is what it used of the processor meanwhile, None where it cannot be told any more.
    """

    sensor: SensorName
    at: Instant
    origin: Origin
    condition: Condition
    lasted_s: float
    used_cpu_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BacklogState:
    """Connections to a listening socket that are established and not accepted, at every look for `lasted_s`.

    With a `backlog` of 0 it says, once, that all were taken or that the socket is closed. `used_cpu_s` is
    what the processes that may accept them used meanwhile, `stopped` how many of these `processes` are
    stopped; None where no process is known.
    """

    sensor: SensorName
    at: Instant
    origin: Origin
    address: str
    port: int
    backlog: int
    limit: int
    lasted_s: float
    processes: int | None
    stopped: int | None
    used_cpu_s: float | None
    closed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskHung:
    """The kernel's own watchdog found a task stuck for its whole time-out; `origin` is its process."""

    sensor: SensorName
    at: Instant
    origin: Origin
