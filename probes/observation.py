"""What a sensor can say: frozen observations, and the Gap that says what it could not see.

An observation states a fact about one moment. It carries no judgement (that is the agent's) and no
content of a request, a command line or an environment. Durations are taken from `Instant.boot_ns`;
`Instant.unix_ns` is for people and may jump. Newer families have a file each in `probes/observed/`, and are
imported from here like the others.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from probes.gpu.facts import Absence, DriverFacts, GpuFacts, GpuIdentity, ProcessKind, XidFacts
from probes.http.facts import ExchangeFacts, FlightFacts, UnobservedFacts
from probes.observed.drills import DrillBegan as DrillBegan, DrillEnded as DrillEnded
from probes.observed.logs import LogCapture as LogCapture, LogLine as LogLine, Sessions as Sessions
from probes.observed.mesh import (
    MeshState as MeshState,
    MeshStatus as MeshStatus,
    MeshWarning as MeshWarning,
)
from probes.observed.network import (
    ConnectFailures as ConnectFailures,
    ConnectSuccesses as ConnectSuccesses,
    InterfaceLink as InterfaceLink,
    Peer as Peer,
    PeerTraffic as PeerTraffic,
    RdmaPort as RdmaPort,
)
from probes.observed.pressure import (
    BacklogState as BacklogState,
    CgroupPressure as CgroupPressure,
    Condition as Condition,
    DescriptorsRefused as DescriptorsRefused,
    DescriptorUser as DescriptorUser,
    DirectReclaims as DirectReclaims,
    Neighbour as Neighbour,
    PressureState as PressureState,
    ProcessCondition as ProcessCondition,
    RunDelay as RunDelay,
    TaskHung as TaskHung,
)
from probes.observed.scope import (
    CommandLine as CommandLine,
    CommandLines as CommandLines,
    ScopeBreached as ScopeBreached,
)
from probes.observed.server_metrics import (
    AskingFailed as AskingFailed,
    GaugeRead as GaugeRead,
    ServerGauge as ServerGauge,
    ServerMetrics as ServerMetrics,
)
from probes.observed.server_readiness import ServerReadiness as ServerReadiness
from probes.observed.services import (
    CgroupChanged as CgroupChanged,
    ControlListener as ControlListener,
    ControlListeners as ControlListeners,
    ControlService as ControlService,
    PublishedPort as PublishedPort,
    PublishedPorts as PublishedPorts,
    UnitEnded as UnitEnded,
    UnitResult as UnitResult,
    UnitsStanding as UnitsStanding,
    UnitStopped as UnitStopped,
    UnitUp as UnitUp,
)
from probes.observed.storage import (
    BlockActivity as BlockActivity,
    Filesystem as Filesystem,
    Filesystems as Filesystems,
    Sight as Sight,
    StorageErrors as StorageErrors,
    StorageFailure as StorageFailure,
    StorageRole as StorageRole,
)
from probes.origin import (
    CgroupId as CgroupId,
    Instant as Instant,
    Origin as Origin,
    SensorName as SensorName,
    ServerKind as ServerKind,
)


class NvidiaDevice(enum.StrEnum):
    """Which NVIDIA device node was opened."""

    CONTROL = "nvidiactl"
    GPU = "nvidia"
    UVM = "nvidia-uvm"
    UVM_TOOLS = "nvidia-uvm-tools"
    MODESET = "nvidia-modeset"
    OTHER = "nvidia-other"


@dataclass(frozen=True, slots=True)
class DeviceOpens:
    """`count` opens of one NVIDIA device node from one cgroup that ended with `errno` (0 is success).

    `prior_successes` is how many opens of any NVIDIA node this cgroup had completed before them, as the
    kernel's own table remembers it; it outlives the agent.
    """

    sensor: SensorName
    at: Instant
    origin: Origin
    device: NvidiaDevice
    minor: int | None
    errno: int
    count: int
    prior_successes: int


class OomScope(enum.StrEnum):
    """Whose memory ran out: a cgroup's limit or the host's."""

    CGROUP = "cgroup"
    HOST = "host"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class OomKill:
    """The kernel chose `origin` as the victim of its out-of-memory killer.

    `limit_bytes` and `kills_in_cgroup` come from the cgroup's own files, the second witness; `None` where
    the cgroup was gone before it could be read.
    """

    sensor: SensorName
    at: Instant
    origin: Origin
    scope: OomScope
    anon_rss_bytes: int | None
    limit_bytes: int | None
    kills_in_cgroup: int | None


@dataclass(frozen=True, slots=True)
class FatalSignal:
    """A process is ended by `signal`, whose default action it had not replaced.

    `code` is the kernel's si_code: above 0 the kernel raised it (a fault), 0 or below another process did.
    """

    sensor: SensorName
    at: Instant
    origin: Origin
    signal: int
    code: int


@dataclass(frozen=True, slots=True)
class Listener:
    """One listening TCP socket of the host's own network namespace. `address` is its canonical text form."""

    address: str
    port: int
    origin: Origin


@dataclass(frozen=True, slots=True)
class ListenerOpened:
    """A socket began to listen. `confirmed` is whether the host's socket table shows it too."""

    sensor: SensorName
    at: Instant
    listener: Listener
    confirmed: bool | None


@dataclass(frozen=True, slots=True)
class ListenerClosed:
    """A socket stopped listening. `confirmed` is whether the host's socket table agrees that it is gone."""

    sensor: SensorName
    at: Instant
    listener: Listener
    confirmed: bool | None


@dataclass(frozen=True, slots=True)
class ListenerInventory:
    """Every listening TCP socket of the host at one moment, with the host's own addresses.

    `host_addresses` maps an address in canonical text form to its interface name.
    """

    sensor: SensorName
    at: Instant
    listeners: tuple[Listener, ...]
    host_addresses: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request to a model route has ended, with or without an answer. `origin` is who served it."""

    sensor: SensorName
    at: Instant
    origin: Origin
    facts: ExchangeFacts


@dataclass(frozen=True, slots=True)
class RequestsInFlight:
    """Requests to one route that wait for (the rest of) their answer; told every few seconds meanwhile."""

    sensor: SensorName
    at: Instant
    origin: Origin
    facts: FlightFacts


@dataclass(frozen=True, slots=True)
class Unobserved:
    """Traffic of a watched port that could not be judged: neither healthy nor faulty."""

    sensor: SensorName
    at: Instant
    origin: Origin
    facts: UnobservedFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryState:
    """The host's memory at one moment, and what happened to it in the `window_s` seconds before.

    `available_bytes` is the kernel's own estimate of what can be had without swapping; `free_bytes` is what
    nobody uses, page cache not counted. The shares of time that some or all tasks stalled (0..100, over ten
    seconds) are None on a kernel without pressure accounting.
    """

    sensor: SensorName
    at: Instant
    total_bytes: int
    available_bytes: int
    free_bytes: int
    cached_bytes: int
    swap_total_bytes: int
    swap_free_bytes: int
    some_avg10: float | None
    full_avg10: float | None
    window_s: float
    full_stalled_s: float
    allocation_stalls: int
    swapped_in_pages: int
    major_faults: int
    oom_kills: int


class UsageSource(enum.StrEnum):
    """Whose account a server's use of the processor is."""

    CGROUP = "cgroup"  # its unit or container has a cgroup of its own
    PROCESS_TREE = "process_tree"  # it shares one, so its processes are added up


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerUsage:
    """How many cores a model server and all its processes kept busy in the last `window_s` seconds.

    `origin` is the server's main process and `started` when it began; `pids` are its processes as the host
    numbers them, at most `PIDS_MAX`, smallest first.
    """

    sensor: SensorName
    at: Instant
    origin: Origin
    started: Instant
    port: int
    cores: float
    window_s: float
    source: UsageSource
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Suspended:
    """The host slept for `slept_s` seconds, and woke not long before `at`."""

    sensor: SensorName
    at: Instant
    slept_s: float


@dataclass(frozen=True, slots=True)
class ManagerReloaded:
    """The service manager read its units again at `at` (`systemctl daemon-reload`, or a re-execution)."""

    sensor: SensorName
    at: Instant


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that holds memory of a GPU. Without MIG it has no instances; None bytes are unknown."""

    origin: Origin
    kind: ProcessKind
    used_bytes: int | None
    gpu_instance: int | None
    compute_instance: int | None


@dataclass(frozen=True, slots=True)
class GpuState:
    """One GPU as it is. `processes` is None where NVML does not tell them: nobody is known to be absent."""

    sensor: SensorName
    at: Instant
    facts: GpuFacts
    processes: tuple[GpuProcess, ...] | None


@dataclass(frozen=True, slots=True)
class GpuAbsent:
    """A GPU (or, without one named, every GPU) cannot be read: `why`, and the NVML code if there is one."""

    sensor: SensorName
    at: Instant
    gpu: GpuIdentity | None
    why: Absence
    code: int | None


@dataclass(frozen=True, slots=True)
class GpuDriver:
    """Which versions of the NVIDIA driver are loaded and installed; told on a change and now and then."""

    sensor: SensorName
    at: Instant
    facts: DriverFacts


@dataclass(frozen=True, slots=True)
class GpuXid:
    """The driver reported an Xid. One fault may be told by several sources: `probes.gpu.xids` joins them."""

    sensor: SensorName
    at: Instant
    origin: Origin
    facts: XidFacts


class BlindReason(enum.StrEnum):
    """Why a sensor cannot see."""

    DISABLED = "disabled"
    NOT_HANDED_OVER = "not_handed_over"
    NO_PRIVILEGE = "no_privilege"
    NO_KERNEL_SUPPORT = "no_kernel_support"
    NO_HEADERS = "no_headers"
    NO_LIBRARY = "no_library"
    ATTACH_FAILED = "attach_failed"
    READ_FAILED = "read_failed"
    UNSUPPORTED_PLATFORM = "unsupported_platform"
    NO_NVML = "no_nvml"
    NO_DRIVER = "no_driver"
    NO_DEVICE_ACCESS = "no_device_access"
    VERSION_MISMATCH = "version_mismatch"
    NOT_ANSWERING = "not_answering"


@dataclass(frozen=True, slots=True)
class Seeing:
    """The sensor works."""


@dataclass(frozen=True, slots=True)
class Blind:
    """The sensor sees nothing. `detail` is for the host's own log and `doctor`; it never leaves the host."""

    reason: BlindReason
    detail: str


Coverage = Seeing | Blind


@dataclass(frozen=True, slots=True)
class Gap:
    """`sensor` missed something: `lost` samples (0 with a Blind coverage: everything, from now on).

    A Gap with `Seeing` and `lost == 0` says that sight is back.
    """

    sensor: SensorName
    at: Instant
    coverage: Coverage
    lost: int = 0


Observation = (
    DeviceOpens
    | OomKill
    | FatalSignal
    | ListenerOpened
    | ListenerClosed
    | ListenerInventory
    | Exchange
    | RequestsInFlight
    | Unobserved
    | GpuState
    | GpuAbsent
    | GpuDriver
    | GpuXid
    | MemoryState
    | ServerUsage
    | Suspended
    | ManagerReloaded
    | LogLine
    | Sessions
    | ServerMetrics
    | Filesystems
    | BlockActivity
    | StorageErrors
    | ServerReadiness
    | PressureState
    | CgroupPressure
    | DirectReclaims
    | RunDelay
    | DescriptorsRefused
    | ProcessCondition
    | BacklogState
    | TaskHung
    | CommandLines
    | ScopeBreached
    | ConnectFailures
    | ConnectSuccesses
    | PeerTraffic
    | InterfaceLink
    | RdmaPort
    | MeshStatus
    | UnitEnded
    | UnitUp
    | UnitStopped
    | UnitsStanding
    | CgroupChanged
    | PublishedPorts
    | ControlListeners
    | DrillBegan
    | DrillEnded
    | Gap
)
