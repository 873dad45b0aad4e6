"""NVML through NVIDIA's own binding: the only place that imports pynvml.

The binding is imported late, by the thread that will use it: a host without a GPU never pays for it, and the
privileged loader, which reads the same registry, never runs it. Its loader, structures, constants and calls
are used as they are, with two exceptions. Text is taken from buffers of our own, because the binding raises
on bytes that are no UTF-8; and the lists of processes go into one array of bounded size that is used again,
because the binding allocates whatever count the library claims, and makes an object for each.

A library that was replaced on disk (a driver upgrade) is loaded beside the old one, by its path and under a
second copy of the binding. Unloading the old one is not possible: a thread may be blocked inside it for ever.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, cast

from probes.gpu.facts import IMPLAUSIBLE, ProcessKind, pci_of
from probes.gpu.protocol import (
    GPUS_MAX,
    MIG_MAX,
    PROCESSES_MAX,
    RECOVERY_EVENT,
    UNAVAILABLE_EVENT,
    XID_EVENT,
    Handle,
    NvmlCode,
    NvmlError,
    NvmlEvent,
    RunningProcess,
)

SONAME: Final = "libnvidia-ml.so.1"
_EVENTS: Final = XID_EVENT | UNAVAILABLE_EVENT | RECOVERY_EVENT
_TEXT_BYTES: Final = 96
_RECOVERY_FIELD: Final = 230  # NVML_FI_DEV_GET_GPU_RECOVERY_ACTION
_NO_INSTANCE: Final = 0xFFFFFFFF
_NOT_AVAILABLE: Final = 2**64 - 1
_BYTES_MAX: Final = 2**50
_LISTS: Final = {
    ProcessKind.COMPUTE: "nvmlDeviceGetComputeRunningProcesses_v3",
    ProcessKind.GRAPHICS: "nvmlDeviceGetGraphicsRunningProcesses_v3",
}


class BindingMissing(Exception):
    """The package nvidia-ml-py is not installed."""


def installed() -> bool:
    """Return whether the dynamic loader finds the library; it stays loaded when it does."""
    known = sys.modules.get("pynvml")
    if known is not None and known.nvmlLib is not None:
        return True
    try:
        ctypes.CDLL(SONAME)
    except OSError:
        return False
    return True


def binding() -> Any:
    """Return pynvml, on a fresh copy of the library if the one it holds was replaced on disk."""
    try:
        import pynvml  # noqa: PLC0415  # see the top
    except ImportError as error:
        raise BindingMissing("the package nvidia-ml-py is not installed") from error
    replaced = _replacement(pynvml.nvmlLib)
    if replaced is None:
        return pynvml
    sys.modules.pop("pynvml")
    fresh: Any = importlib.import_module("pynvml")
    try:
        fresh.nvmlLib = ctypes.CDLL(str(replaced))
    except OSError as error:
        raise NvmlError("dlopen", NvmlCode.LIBRARY_NOT_FOUND) from error
    return fresh


def file_on_disk(held: Any) -> Path | None:
    """Return the file that a process starting now would load, beside the one that `held` was loaded from."""
    mapped = _mapped(held.nvmlLib)
    if mapped is None:
        return None
    try:
        return (mapped.parent / SONAME).resolve(strict=True)
    except OSError:
        return None


def _replacement(library: Any) -> Path | None:
    mapped = None if library is None else _mapped(library)
    if mapped is None:
        return None
    try:
        on_disk = (mapped.parent / SONAME).resolve(strict=True)
    except OSError:
        return None
    return None if on_disk == mapped else on_disk


def _mapped(library: Any) -> Path | None:
    """Return the file behind a loaded library; one that is gone from disk ends with `` (deleted)``."""
    address = ctypes.cast(library.nvmlShutdown, ctypes.c_void_p).value or 0
    try:
        lines = Path("/proc/self/maps").read_text(errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        first, _, rest = line.partition("-")
        last = rest.partition(" ")[0]
        if int(first, 16) <= address < int(last, 16):
            return Path(line[line.index("/") :]) if "/" in line else None
    return None


class NvmlLibrary:
    """The protocol of `probes.gpu.protocol` on a binding. One object for each thread that calls."""

    def __init__(self, *, binding: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._nvml = binding
        self._clock = clock
        self._calling: tuple[str, float] | None = None
        self._text = ctypes.create_string_buffer(_TEXT_BYTES)
        self._room = 64
        self._list = (binding.c_nvmlProcessInfo_v3_t * self._room)()

    def __repr__(self) -> str:
        return f"NvmlLibrary(calling={self._calling and self._calling[0]})"

    @property
    def calling(self) -> tuple[str, float] | None:
        """The call that is under way, and since when."""
        return self._calling

    def start(self) -> None:
        """Load the library if need be, and initialise it."""
        self._call("nvmlInit")

    def stop(self) -> None:
        """Shut the library down."""
        self._call("nvmlShutdown")

    def version_in_use(self) -> str:
        """Return NVML's own version."""
        return self._string("nvmlSystemGetNVMLVersion")

    def count(self) -> int:
        """Return how many GPUs there are."""
        return min(int(self._call("nvmlDeviceGetCount")), GPUS_MAX)

    def handle(self, index: int) -> Handle:
        """Return a GPU."""
        return cast("Handle", self._call("nvmlDeviceGetHandleByIndex", index))

    def uuid(self, handle: Handle) -> str:
        """Return a UUID."""
        return self._string("nvmlDeviceGetUUID", handle)

    def name(self, handle: Handle) -> str:
        """Return a product name."""
        return self._string("nvmlDeviceGetName", handle)

    def pci(self, handle: Handle) -> str:
        """Return an address."""
        info = self._call("nvmlDeviceGetPciInfo_v3", handle)
        return pci_of(info.domain, info.bus, info.device)

    def sm_clock(self, handle: Handle) -> int:
        """Return a clock."""
        return int(self._call("nvmlDeviceGetClockInfo", handle, self._nvml.NVML_CLOCK_SM))

    def sm_clock_max(self, handle: Handle) -> int:
        """Return the highest clock."""
        return int(self._call("nvmlDeviceGetMaxClockInfo", handle, self._nvml.NVML_CLOCK_SM))

    def utilisation(self, handle: Handle) -> tuple[int, int]:
        """Return two percentages."""
        rates = self._call("nvmlDeviceGetUtilizationRates", handle)
        return rates.gpu, rates.memory

    def power(self, handle: Handle) -> int:
        """Return a power."""
        return int(self._call("nvmlDeviceGetPowerUsage", handle))

    def power_limit(self, handle: Handle) -> int:
        """Return the limit that is enforced."""
        return int(self._call("nvmlDeviceGetEnforcedPowerLimit", handle))

    def temperature(self, handle: Handle) -> int:
        """Return a temperature; the library gives it without a sign."""
        sensor = self._nvml.NVML_TEMPERATURE_GPU
        celsius = int(self._call("nvmlDeviceGetTemperature", handle, sensor))
        return celsius - 2**32 if celsius >= 2**31 else celsius

    def memory(self, handle: Handle) -> tuple[int, int]:
        """Return used and total memory."""
        memory = self._call("nvmlDeviceGetMemoryInfo", handle)
        return memory.used, memory.total

    def clock_reasons(self, handle: Handle) -> int:
        """Return a bit mask; drivers before 535 know it by its first name alone."""
        try:
            return int(self._call("nvmlDeviceGetCurrentClocksEventReasons", handle))
        except NvmlError as error:
            if error.code != NvmlCode.FUNCTION_NOT_FOUND:
                raise
        return int(self._call("nvmlDeviceGetCurrentClocksThrottleReasons", handle))

    def ecc(self, handle: Handle) -> tuple[int, int]:
        """Return two counts of uncorrectable errors."""
        nvml = self._nvml
        kind = nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
        return (
            self._call("nvmlDeviceGetTotalEccErrors", handle, kind, nvml.NVML_VOLATILE_ECC),
            self._call("nvmlDeviceGetTotalEccErrors", handle, kind, nvml.NVML_AGGREGATE_ECC),
        )

    def remapped(self, handle: Handle) -> tuple[int, int, bool, bool]:
        """Return what the row remapper did."""
        correctable, uncorrectable, pending, failed = self._call("nvmlDeviceGetRemappedRows", handle)
        return correctable, uncorrectable, bool(pending), bool(failed)

    def recovery_action(self, handle: Handle) -> int:
        """Return field 230."""
        (value,) = self._call("nvmlDeviceGetFieldValues", handle, [_RECOVERY_FIELD])
        if value.nvmlReturn:
            raise NvmlError("nvmlDeviceGetFieldValues", value.nvmlReturn)
        return cast("int", value.value.uiVal)

    def mig_enabled(self, handle: Handle) -> bool:
        """Return the mode as it is now."""
        current, _ = self._call("nvmlDeviceGetMigMode", handle)
        return bool(current == self._nvml.NVML_DEVICE_MIG_ENABLE)

    def mig(self, handle: Handle) -> Sequence[Handle]:
        """Return the instances; a place without one is skipped."""
        found = []
        for index in range(min(self._call("nvmlDeviceGetMaxMigDeviceCount", handle), MIG_MAX)):
            try:
                found.append(self._call("nvmlDeviceGetMigDeviceHandleByIndex", handle, index))
            except NvmlError as error:
                if error.code != NvmlCode.NOT_FOUND:
                    raise
        return found

    def gpu_instance(self, handle: Handle) -> int:
        """Return a GPU instance number."""
        return int(self._call("nvmlDeviceGetGpuInstanceId", handle))

    def compute_instance(self, handle: Handle) -> int:
        """Return a compute instance number."""
        return int(self._call("nvmlDeviceGetComputeInstanceId", handle))

    def processes(self, handle: Handle, kind: ProcessKind) -> Sequence[RunningProcess]:
        """Return one list; the array grows with what is asked for, up to PROCESSES_MAX."""
        name = _LISTS[kind]
        while True:
            count = ctypes.c_uint(self._room)
            code = self._raw(name, handle, ctypes.byref(count), self._list)
            if code != NvmlCode.INSUFFICIENT_SIZE or self._room >= PROCESSES_MAX:
                break
            self._room = min(max(count.value + 8, 2 * self._room), PROCESSES_MAX)
            self._list = (self._nvml.c_nvmlProcessInfo_v3_t * self._room)()
        if code:
            raise NvmlError(name, code)
        if count.value > self._room:
            raise NvmlError(name, IMPLAUSIBLE)
        return [_process(self._list[i]) for i in range(count.value)]

    def watch(self, handles: Sequence[Handle]) -> tuple[Any, dict[int, int]]:
        """Register for Xids, lost GPUs and changed recovery actions, as far as each GPU offers them."""
        sick: dict[int, int] = {}
        while True:
            events = self._call("nvmlEventSetCreate")
            refused = dict(sick)
            for index, handle in enumerate(handles):
                if index in sick:
                    continue
                try:
                    offered = self._call("nvmlDeviceGetSupportedEventTypes", handle)
                    self._call("nvmlDeviceRegisterEvents", handle, offered & _EVENTS, events)
                    if not offered & XID_EVENT:
                        refused[index] = int(NvmlCode.NOT_SUPPORTED)
                except NvmlError as error:
                    refused[index] = error.code
                    if (
                        error.code == NvmlCode.UNKNOWN
                    ):  # nvml.h: the set is of no use then, and is to be freed
                        sick[index] = error.code
                        break
            else:
                return events, refused
            self.unwatch(events)

    def wait(self, events: Any, timeout_ms: int) -> NvmlEvent | None:
        """Wait for the next event."""
        try:
            told = self._call("nvmlEventSetWait_v2", events, timeout_ms)
        except NvmlError as error:
            if error.code == NvmlCode.TIMEOUT:
                return None
            raise
        try:
            pci = self.pci(told.device) if told.device else None
        except NvmlError:  # a GPU that fell off the bus may not even say where it was
            pci = None
        instance = None if told.gpuInstanceId == _NO_INSTANCE else told.gpuInstanceId
        return NvmlEvent(pci, told.eventType, told.eventData, instance)

    def unwatch(self, events: Any) -> None:
        """Free the set."""
        self._call("nvmlEventSetFree", events)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call the binding; a function that it does not have any more is as one that the library lacks."""
        function = getattr(self._nvml, name, None)
        if function is None:
            raise NvmlError(name, NvmlCode.FUNCTION_NOT_FOUND)
        self._calling = (name, self._clock())
        try:
            return function(*arguments)
        except self._nvml.NVMLError as error:
            raise NvmlError(name, error.value) from error
        except (ValueError, MemoryError, ctypes.ArgumentError) as error:
            raise NvmlError(name, IMPLAUSIBLE) from error
        finally:
            self._calling = None

    def _raw(self, name: str, *arguments: Any) -> int:
        function = getattr(self._nvml.nvmlLib, name, None)
        if function is None:
            return NvmlCode.FUNCTION_NOT_FOUND
        self._calling = (name, self._clock())
        try:
            return cast("int", function(*arguments))
        finally:
            self._calling = None

    def _string(self, name: str, *arguments: Any) -> str:
        self._text[0] = b"\0"
        code = self._raw(name, *arguments, self._text, ctypes.c_uint(_TEXT_BYTES))
        if code:
            raise NvmlError(name, code)
        return self._text.raw.partition(b"\0")[0].decode(errors="replace")


def _process(told: Any) -> RunningProcess:
    used = told.usedGpuMemory
    return RunningProcess(
        told.pid,
        None if used == _NOT_AVAILABLE or used > _BYTES_MAX else used,
        None if told.gpuInstanceId == _NO_INSTANCE else told.gpuInstanceId,
        None if told.computeInstanceId == _NO_INSTANCE else told.computeInstanceId,
    )
