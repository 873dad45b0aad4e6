"""What is said about a GPU: numbers, codes and identities. None is unknown, never zero and never healthy.

Names, code numbers and bit masks are those of NVIDIA's header nvml.h and of its Xid catalogue.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final

IMPLAUSIBLE: Final = -1
"""Stands for an NVML code where the library answered, but what it said makes no sense."""


class Absence(enum.StrEnum):
    """Why a GPU, or every GPU, cannot be read. Each has another remedy; none of them is healthy."""

    NO_DEVICE = "no_device"  # the host has no NVIDIA GPU, or NVML counts none
    NO_LIBRARY = "no_library"  # libnvidia-ml.so.1 is not installed: NVML_ERROR_LIBRARY_NOT_FOUND
    NO_BINDING = "no_binding"  # the Python package nvidia-ml-py is not installed
    NO_DRIVER = "no_driver"  # NVML_ERROR_DRIVER_NOT_LOADED
    NO_PERMISSION = "no_permission"  # NVML_ERROR_NO_PERMISSION
    VERSION_MISMATCH = "version_mismatch"  # NVML_ERROR_LIB_RM_VERSION_MISMATCH
    BLOCKED = "blocked"  # NVML_ERROR_OPERATING_SYSTEM: the system or a cgroup refuses the control device
    LOST = "lost"  # NVML_ERROR_GPU_IS_LOST: fallen off the bus, or not reachable
    RESET_REQUIRED = "reset_required"  # NVML_ERROR_RESET_REQUIRED
    GONE = "gone"  # it was there, and NVML does not list it any more
    NOT_ANSWERING = "not_answering"  # a call did not come back in time
    UNKNOWN = "unknown"  # any other code; the number says which


class ClockReason(enum.IntFlag, boundary=enum.KEEP):
    """Why the clocks are what they are (nvmlClocksEventReasons); bits without a name are kept."""

    GPU_IDLE = 0x001
    APPLICATION_SETTING = 0x002
    SOFTWARE_POWER_CAP = 0x004
    HARDWARE_SLOWDOWN = 0x008
    SYNC_BOOST = 0x010
    SOFTWARE_THERMAL = 0x020
    HARDWARE_THERMAL = 0x040
    HARDWARE_POWER_BRAKE = 0x080
    DISPLAY_SETTING = 0x100


CLOCKS_BENIGN: Final = (
    ClockReason.GPU_IDLE
    | ClockReason.APPLICATION_SETTING
    | ClockReason.SYNC_BOOST
    | ClockReason.DISPLAY_SETTING
)
"""Idle or configured so: never a fault."""

CLOCKS_BAD: Final = (
    ClockReason.HARDWARE_SLOWDOWN | ClockReason.HARDWARE_THERMAL | ClockReason.HARDWARE_POWER_BRAKE
)
"""A fault when held. SOFTWARE_POWER_CAP is normal at full load, SOFTWARE_THERMAL a warning."""


class RecoveryAction(enum.IntEnum):
    """What the driver asks for (field NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, 230)."""

    NONE = 0
    GPU_RESET = 1
    NODE_REBOOT = 2
    DRAIN_P2P = 3
    DRAIN_AND_RESET = 4
    RECOVER_IMEX_DOMAIN = 5
    BUS_RESET = 6
    SYSTEM_REBOOT = 7


class ProcessKind(enum.StrEnum):
    """Which list of NVML a process stands in."""

    COMPUTE = "compute"
    GRAPHICS = "graphics"


class XidSource(enum.StrEnum):
    """Who told of an Xid."""

    TRACEPOINT = "tracepoint"  # nvidia:nvidia_dev_xid
    NVML = "nvml"  # nvmlEventTypeXidCriticalError
    LOG = "log"  # the kernel log's NVRM line


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuIdentity:
    """Which GPU: `pci` as sysfs writes it (``000f:01:00.0``), `index` as NVML counts now."""

    uuid: str | None
    pci: str | None
    index: int

    def is_same(self, other: GpuIdentity) -> bool:
        """Return whether both name one GPU: by uuid, else by address, else by the index alone."""
        if self.uuid is not None and other.uuid is not None:
            return self.uuid == other.uuid
        if self.pci is not None and other.pci is not None:
            return self.pci == other.pci
        return self.index == other.index


@dataclass(frozen=True, slots=True)
class Unread:
    """A fact that is None, and the NVML code (or IMPLAUSIBLE) that came in its place."""

    fact: str
    code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MigInstance:
    """One slice of a GPU in MIG mode. Its processes name it by its two instance numbers."""

    uuid: str | None
    gpu_instance: int | None
    compute_instance: int | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFacts:
    """One GPU at one moment. Every None that NVML was asked for is explained in `unread`.

    Utilisation is in percent of the last sample period of the driver. Memory is the GPU's own: a part that
    shares the system's memory does not tell any. ECC counts are uncorrectable errors.
    """

    gpu: GpuIdentity
    name: str | None
    mig_enabled: bool | None = None
    mig: tuple[MigInstance, ...] = ()
    sm_clock_mhz: int | None = None
    sm_clock_max_mhz: int | None = None
    utilisation_percent: int | None = None
    memory_utilisation_percent: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    temperature_celsius: int | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    clock_reasons: int | None = None  # bits of ClockReason
    ecc_volatile: int | None = None  # since the driver was loaded
    ecc_aggregate: int | None = None  # since the GPU was made
    remapped_correctable: int | None = None
    remapped_uncorrectable: int | None = None
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    recovery_action: int | None = None  # of RecoveryAction; a newer driver may know more
    unread: tuple[Unread, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverFacts:
    """The versions on this host: the loaded kernel module, the library in use, the library on disk.

    Module and disk differ after an upgrade without a reboot: what runs goes on, what starts now fails.
    `disk` is told from the library's file name, `loaded` is NVML's own (a CUDA number before the driver's).
    """

    module: str | None
    loaded: str | None
    disk: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class XidFacts:
    """One telling of one Xid. `pci` is None where the source named no GPU that is known."""

    pci: str | None
    number: int
    source: XidSource
    gpu_instance: int | None = None


_ADDRESS = re.compile(
    r"(?:PCI:)?(?:(?P<domain>[0-9a-fA-F]{1,8}):)?"
    r"(?P<bus>[0-9a-fA-F]{1,2}):(?P<device>[0-9a-fA-F]{1,2})(?:\.(?P<function>[0-7]))?"
)


def pci_address(text: str) -> str | None:
    """Return a PCI address as sysfs writes it, from NVML's, the kernel log's or sysfs's own form.

    ``0000000F:01:00.0``, ``PCI:000f:01:00`` and ``000f:01:00.0`` are one address.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None or not text.isascii():
        return None
    domain = int(found["domain"] or "0", 16)
    return pci_of(domain, int(found["bus"], 16), int(found["device"], 16), int(found["function"] or "0"))


def pci_of(domain: int, bus: int, device: int, function: int = 0) -> str:
    """Return the address of these numbers, as sysfs writes it."""
    return f"{domain:04x}:{bus:02x}:{device:02x}.{function}"
