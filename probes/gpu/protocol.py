"""What the product asks of NVML, in plain values, and the codes it answers with.

A narrow protocol in front of the library: the sampler and the threads know only this, so that they are tested
on scripted answers as well as on a library, and one file knows the binding. Every call may raise NvmlError;
every call may also block for ever on a sick GPU, which is the business of whoever calls.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, NewType, Protocol

from probes.gpu.facts import IMPLAUSIBLE, Absence, ProcessKind

GPUS_MAX: Final = 64
MIG_MAX: Final = 16
PROCESSES_MAX: Final = 1024

Handle = NewType("Handle", object)
"""NVML's own name for a GPU or a MIG instance; good until the library is shut down."""


class NvmlCode(enum.IntEnum):
    """The codes of nvml.h that make a difference here."""

    UNINITIALIZED = 1
    INVALID_ARGUMENT = 2
    NOT_SUPPORTED = 3
    NO_PERMISSION = 4
    NOT_FOUND = 6
    INSUFFICIENT_SIZE = 7
    DRIVER_NOT_LOADED = 9
    TIMEOUT = 10
    LIBRARY_NOT_FOUND = 12
    FUNCTION_NOT_FOUND = 13
    GPU_IS_LOST = 15
    RESET_REQUIRED = 16
    OPERATING_SYSTEM = 17
    LIB_RM_VERSION_MISMATCH = 18
    GPU_NOT_FOUND = 28
    UNKNOWN = 999


ABSENCES: Final[dict[int, Absence]] = {
    NvmlCode.NO_PERMISSION: Absence.NO_PERMISSION,
    NvmlCode.DRIVER_NOT_LOADED: Absence.NO_DRIVER,
    NvmlCode.LIBRARY_NOT_FOUND: Absence.NO_LIBRARY,
    NvmlCode.GPU_IS_LOST: Absence.LOST,
    NvmlCode.RESET_REQUIRED: Absence.RESET_REQUIRED,
    NvmlCode.OPERATING_SYSTEM: Absence.BLOCKED,
    NvmlCode.LIB_RM_VERSION_MISMATCH: Absence.VERSION_MISMATCH,
    NvmlCode.NOT_FOUND: Absence.GONE,
    NvmlCode.GPU_NOT_FOUND: Absence.GONE,
}
"""What a code means when nothing can be read; any other is UNKNOWN."""

UNSUPPORTED: Final = frozenset({NvmlCode.NOT_SUPPORTED, NvmlCode.FUNCTION_NOT_FOUND})
"""This GPU, or this library, does not tell it; asking again each second would be a waste."""

XID_EVENT: Final = 0x0008  # nvmlEventTypeXidCriticalError
UNAVAILABLE_EVENT: Final = 0x4000  # nvmlEventTypeGpuUnavailableError
RECOVERY_EVENT: Final = 0x8000  # nvmlEventTypeGpuRecoveryAction


class NvmlError(Exception):
    """A call ended with `code`: one of nvml.h, or IMPLAUSIBLE. The message names the call."""

    def __init__(self, call: str, code: int) -> None:
        said = "an answer that makes no sense" if code == IMPLAUSIBLE else f"code {code}"
        super().__init__(f"{call}: {said}")
        self.call = call
        self.code = code


class RunningProcess(NamedTuple):
    """A process on a GPU, by its host pid. Outside MIG it has no instances."""

    pid: int
    used_bytes: int | None
    gpu_instance: int | None
    compute_instance: int | None


class NvmlEvent(NamedTuple):
    """One event; `pci` is None where the library named no GPU that is known."""

    pci: str | None
    kind: int
    data: int
    gpu_instance: int | None


class Nvml(Protocol):
    """The calls, for one thread. Sizes are bytes, powers milliwatts, clocks MHz, temperatures Celsius."""

    @property
    def calling(self) -> tuple[str, float] | None:
        """The call that is under way and the monotonic second it began; read by other threads."""

    def start(self) -> None:
        """Initialise the library; every start needs its stop."""

    def stop(self) -> None:
        """Shut the library down; handles are void."""

    def version_in_use(self) -> str:
        """Return NVML's own version."""

    def count(self) -> int:
        """Return how many GPUs there are, at most GPUS_MAX."""

    def handle(self, index: int) -> Handle:
        """Return the GPU that NVML counts as `index`."""

    def uuid(self, handle: Handle) -> str:
        """Return the UUID of a GPU or MIG instance."""

    def name(self, handle: Handle) -> str:
        """Return the product's name."""

    def pci(self, handle: Handle) -> str:
        """Return the PCI address as sysfs writes it."""

    def sm_clock(self, handle: Handle) -> int:
        """Return the clock of the multiprocessors."""

    def sm_clock_max(self, handle: Handle) -> int:
        """Return the highest clock of the multiprocessors."""

    def utilisation(self, handle: Handle) -> tuple[int, int]:
        """Return the percentages of time that kernels ran and that memory was read or written."""

    def power(self, handle: Handle) -> int:
        """Return the power drawn."""

    def power_limit(self, handle: Handle) -> int:
        """Return the limit that is enforced."""

    def temperature(self, handle: Handle) -> int:
        """Return the temperature of the GPU's core."""

    def memory(self, handle: Handle) -> tuple[int, int]:
        """Return used and total memory."""

    def clock_reasons(self, handle: Handle) -> int:
        """Return the clocks event reasons, a bit mask."""

    def ecc(self, handle: Handle) -> tuple[int, int]:
        """Return the uncorrectable errors since the driver was loaded, and in all."""

    def remapped(self, handle: Handle) -> tuple[int, int, bool, bool]:
        """Return rows remapped for correctable and uncorrectable errors; one is pending; one failed."""

    def recovery_action(self, handle: Handle) -> int:
        """Return what the driver asks for, field 230."""

    def mig_enabled(self, handle: Handle) -> bool:
        """Return whether the GPU is in MIG mode now."""

    def mig(self, handle: Handle) -> Sequence[Handle]:
        """Return the MIG instances, at most MIG_MAX."""

    def gpu_instance(self, handle: Handle) -> int:
        """Return the GPU instance number of a MIG instance."""

    def compute_instance(self, handle: Handle) -> int:
        """Return the compute instance number of a MIG instance."""

    def processes(self, handle: Handle, kind: ProcessKind) -> Sequence[RunningProcess]:
        """Return the processes of one list, at most PROCESSES_MAX."""

    def watch(self, handles: Sequence[Handle]) -> tuple[Any, dict[int, int]]:
        """Return a set of events of these GPUs, and the code for each index that cannot be watched."""

    def wait(self, events: Any, timeout_ms: int) -> NvmlEvent | None:
        """Return the next event, or None when none came in time."""

    def unwatch(self, events: Any) -> None:
        """Give the set of events back."""
