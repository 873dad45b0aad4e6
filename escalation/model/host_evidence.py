"""Evidence of processes, sockets and sensors of a host."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Device(enum.StrEnum):
    """Which GPU device node."""

    UNKNOWN = "unknown"
    CONTROL = "nvidiactl"
    GPU = "nvidia"
    UVM = "nvidia-uvm"
    UVM_TOOLS = "nvidia-uvm-tools"
    MODESET = "nvidia-modeset"
    OTHER = "nvidia-other"


@dataclass(frozen=True, slots=True)
class DeviceOpenEvidence:
    """Opens of a GPU device node that failed with `errno`, and how many had succeeded before."""

    device: Device
    minor: int | None
    errno: int
    failures: int
    prior_successes: int
    process_name: str
    pid: int | None


class OomScope(enum.StrEnum):
    """Whose memory ran out."""

    UNKNOWN = "unknown"
    CGROUP = "cgroup"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class OomEvidence:
    """One kill by the kernel's out-of-memory killer, with the cgroup's own account as second witness."""

    scope: OomScope
    process_name: str
    pid: int | None
    anon_rss_bytes: int | None
    limit_bytes: int | None
    kills_in_cgroup: int | None


@dataclass(frozen=True, slots=True)
class SignalEvidence:
    """A process that ended by a signal; `code` is the kernel's si_code (above 0: raised by the kernel)."""

    signal: int
    code: int
    process_name: str
    pid: int | None


class Reach(enum.StrEnum):
    """From where a listener can be reached, judged by address alone."""

    UNKNOWN = "unknown"
    ALL_INTERFACES = "all_interfaces"
    PUBLIC = "public"
    PRIVATE_NETWORK = "private_network"


@dataclass(frozen=True, slots=True)
class ListenerEvidence:
    """A listening TCP socket. `confirmed` is whether the host's socket table shows it (None: unknown).

    `further` is how many more ports of the same holder are open like it, beside those that are told.
    """

    address: str
    port: int
    reach: Reach
    process_name: str
    confirmed: bool | None
    further: int = 0


class BlindReason(enum.StrEnum):
    """Why a sensor, or a whole host, cannot be seen."""

    UNKNOWN = "unknown"
    DISABLED = "disabled"
    NOT_HANDED_OVER = "not_handed_over"
    NO_PRIVILEGE = "no_privilege"
    NO_KERNEL_SUPPORT = "no_kernel_support"
    NO_HEADERS = "no_headers"
    NO_LIBRARY = "no_library"
    ATTACH_FAILED = "attach_failed"
    READ_FAILED = "read_failed"
    UNSUPPORTED_PLATFORM = "unsupported_platform"
    HOST_SILENT = "host_silent"
    NO_NVML = "no_nvml"
    NO_DRIVER = "no_driver"
    NO_DEVICE_ACCESS = "no_device_access"
    VERSION_MISMATCH = "version_mismatch"
    NOT_ANSWERING = "not_answering"


@dataclass(frozen=True, slots=True)
class BlindEvidence:
    """What cannot be seen, and since how many seconds."""

    sensor: str
    reason: BlindReason
    silent_s: float
