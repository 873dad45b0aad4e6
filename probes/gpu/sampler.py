"""Reads GPUs through the protocol: what never changes once, what changes each time, the rest now and then.

A call that ends with a code leaves its fact None, and the code says why. What a GPU does not support is not
asked again before the next slow round. Three kinds of codes mean more than one missing fact: a GPU that is
lost or needs a reset is absent, with its code; a GPU of which nothing at all can be read is absent, with the
first code; and a library that is no longer initialised, or has no driver below it, ends the sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from probes.gpu.facts import IMPLAUSIBLE, Absence, GpuFacts, GpuIdentity, MigInstance, ProcessKind, Unread
from probes.gpu.protocol import (
    ABSENCES,
    GPUS_MAX,
    UNSUPPORTED,
    Handle,
    Nvml,
    NvmlCode,
    NvmlError,
    RunningProcess,
)

SLOW_S: Final = 10.0

_GPU_GONE: Final = frozenset({NvmlCode.GPU_IS_LOST, NvmlCode.RESET_REQUIRED, NvmlCode.GPU_NOT_FOUND})
_ALL_GONE: Final = frozenset(
    {NvmlCode.UNINITIALIZED, NvmlCode.DRIVER_NOT_LOADED, NvmlCode.LIB_RM_VERSION_MISMATCH}
)
_BYTES: Final = (0, 2**50)
_COUNT: Final = (0, 2**40)
_PERCENT: Final = (0, 100)


@dataclass(frozen=True, slots=True)
class _Reading:
    """One call: the facts it fills, and the range in which each makes sense."""

    read: Callable[[Nvml, Handle], tuple[Any, ...]]
    facts: tuple[tuple[str, tuple[float, float]], ...]


_ONCE: Final = (
    _Reading(lambda n, h: (n.sm_clock_max(h),), (("sm_clock_max_mhz", (1, 100_000)),)),
    _Reading(lambda n, h: (n.power_limit(h) / 1000,), (("power_limit_w", (0.001, 100_000)),)),
)
_FAST: Final = (
    _Reading(lambda n, h: (n.sm_clock(h),), (("sm_clock_mhz", (0, 100_000)),)),
    _Reading(
        lambda n, h: n.utilisation(h),
        (("utilisation_percent", _PERCENT), ("memory_utilisation_percent", _PERCENT)),
    ),
    _Reading(lambda n, h: (n.power(h) / 1000,), (("power_w", (0, 100_000)),)),
    _Reading(lambda n, h: (n.temperature(h),), (("temperature_celsius", (-100, 250)),)),
    _Reading(lambda n, h: n.memory(h), (("memory_used_bytes", _BYTES), ("memory_total_bytes", _BYTES))),
    _Reading(lambda n, h: (n.clock_reasons(h),), (("clock_reasons", (0, 2**64)),)),
)
_SLOW: Final = (
    *_ONCE,  # the limit is a setting, and either may have failed for once
    _Reading(lambda n, h: n.ecc(h), (("ecc_volatile", _COUNT), ("ecc_aggregate", _COUNT))),
    _Reading(
        lambda n, h: n.remapped(h),
        (
            ("remapped_correctable", _COUNT),
            ("remapped_uncorrectable", _COUNT),
            ("remap_pending", (0, 1)),
            ("remap_failed", (0, 1)),
        ),
    ),
    _Reading(lambda n, h: (n.recovery_action(h),), (("recovery_action", (0, 2**32)),)),
    _Reading(lambda n, h: (n.mig_enabled(h),), (("mig_enabled", (0, 1)),)),
)


@dataclass(frozen=True, slots=True)
class GpuSample:
    """One GPU that could be read, with its processes; None where their list could not be had."""

    facts: GpuFacts
    processes: tuple[tuple[ProcessKind, RunningProcess], ...] | None


@dataclass(frozen=True, slots=True)
class GpuMissing:
    """One GPU that could not be read."""

    gpu: GpuIdentity
    why: Absence
    code: int | None


@dataclass(slots=True)
class _Gpu:
    identity: GpuIdentity
    handle: Handle
    name: str | None
    slow: dict[str, Any] = field(default_factory=dict)
    slow_unread: tuple[Unread, ...] = ()
    unsupported: dict[str, int] = field(default_factory=dict)
    instances: tuple[Handle, ...] = ()
    unread: tuple[Unread, ...] = ()


class Sampler:
    """The GPUs of this host, for the thread that owns the library."""

    def __init__(self, *, nvml: Nvml) -> None:
        self._nvml = nvml
        self._gpus: list[_Gpu] = []
        self._missing: list[GpuMissing] = []
        self._known: list[GpuIdentity] = []  # by name: who is left may be counted anew
        self._slow_at_s: float | None = None
        self._unwatched: dict[int, int] = {}

    def __repr__(self) -> str:
        return f"Sampler(gpus={len(self._gpus)}, missing={len(self._missing)})"

    @property
    def handles(self) -> Sequence[tuple[int, Handle]]:
        """The index and handle of each GPU that was found."""
        return [(gpu.identity.index, gpu.handle) for gpu in self._gpus]

    @property
    def complete(self) -> bool:
        """Whether every GPU that was ever seen was found at the last discovery."""
        return not self._missing

    def unwatched(self, codes: dict[int, int]) -> None:
        """Take note of the GPUs (by index) whose events cannot be watched, and the codes."""
        self._unwatched = codes

    def hurry(self) -> None:
        """Make the next sample a slow round."""
        self._slow_at_s = None

    def discover(self, held: Sequence[str] = ()) -> None:
        """Find the GPUs anew; one that was there before and is not now is missing.

        So is one that the driver has (`held`, by address) and NVML does not count: a GPU that could not be
        started is left out without a word.
        """
        self._gpus, self._slow_at_s = [], None
        failed: dict[int, int] = {}
        count = self._nvml.count()
        for index in range(count):
            try:
                self._gpus.append(self._found(index))
            except NvmlError as error:
                if error.code in _ALL_GONE:
                    raise
                failed[index] = error.code
        found = [gpu.identity for gpu in self._gpus]
        lost = [known for known in self._known if not any(known.is_same(each) for each in found)]
        unnamed = [index for index in failed if not any(known.index == index for known in lost)]
        seen = {each.pci for each in (*found, *lost)}
        uncounted = [pci for pci in held if pci not in seen]
        if len(unnamed) == len(uncounted):  # NVML counts in the order of the bus
            lost += [
                GpuIdentity(uuid=None, pci=pci, index=index)
                for index, pci in zip(unnamed, uncounted, strict=True)
            ]
        elif not unnamed:
            lost += [
                GpuIdentity(uuid=None, pci=pci, index=index)
                for index, pci in enumerate(uncounted, start=count)
            ]
        self._missing = []
        for index, code in failed.items():
            identity = next((known for known in lost if known.index == index), None)
            if identity is None:
                identity = GpuIdentity(uuid=None, pci=None, index=index)
            else:
                lost.remove(identity)
            self._missing.append(GpuMissing(identity, ABSENCES.get(code, Absence.UNKNOWN), code))
        self._missing += [GpuMissing(identity, Absence.GONE, None) for identity in lost]
        named = [missing.gpu for missing in self._missing if missing.gpu.uuid or missing.gpu.pci]
        self._known = [*found, *named][:GPUS_MAX]

    def sample(self, now_s: float) -> tuple[list[GpuSample], list[GpuMissing]]:
        """Read every GPU; raise NvmlError when the library as a whole is of no use any more."""
        slow = self._slow_at_s is None or now_s - self._slow_at_s >= SLOW_S
        if slow:
            self._slow_at_s = now_s
        read, missing = [], list(self._missing)
        for gpu in self._gpus:
            try:
                read.append(self._read(gpu, slow=slow))
            except NvmlError as error:
                if error.code in _ALL_GONE:
                    raise
                why = ABSENCES.get(error.code, Absence.UNKNOWN)
                missing.append(GpuMissing(gpu.identity, why, error.code))
        return read, missing

    def _found(self, index: int) -> _Gpu:
        nvml = self._nvml
        handle = nvml.handle(index)
        identity = GpuIdentity(uuid=_or_none(nvml.uuid, handle), pci=_or_none(nvml.pci, handle), index=index)
        return _Gpu(identity, handle, _or_none(nvml.name, handle))

    def _read(self, gpu: _Gpu, *, slow: bool) -> GpuSample:
        if slow:
            gpu.unsupported.clear()
            self._read_slowly(gpu)
        values = dict(gpu.slow)
        unread = list(gpu.slow_unread)
        failed = self._fill(gpu, _FAST, values, unread)
        if failed is not None and len(unread) - len(gpu.slow_unread) >= sum(len(r.facts) for r in _FAST):
            raise failed
        processes = self._processes(gpu, unread)
        if gpu.identity.index in self._unwatched:
            unread.append(Unread("xids", self._unwatched[gpu.identity.index]))
        told = tuple(unread)
        gpu.unread = gpu.unread if gpu.unread == told else told  # equal from second to second: keep one
        facts = GpuFacts(gpu=gpu.identity, name=gpu.name, unread=gpu.unread, **values)
        return GpuSample(facts, processes)

    def _read_slowly(self, gpu: _Gpu) -> None:
        unread: list[Unread] = []
        gpu.slow = {}
        self._fill(gpu, _SLOW, gpu.slow, unread)
        gpu.instances = ()
        if gpu.slow.get("mig_enabled"):
            try:
                gpu.instances = tuple(self._nvml.mig(gpu.handle))
            except NvmlError as error:
                _raise_if_gone(error)
                unread.append(Unread("mig", error.code))
            gpu.slow["mig"] = tuple(self._instance(handle) for handle in gpu.instances)
        gpu.slow_unread = tuple(unread)

    def _fill(
        self, gpu: _Gpu, readings: Sequence[_Reading], values: dict[str, Any], unread: list[Unread]
    ) -> NvmlError | None:
        """Put what can be read into `values`, what cannot into `unread`; return the first real failure."""
        failed = None
        for reading in readings:
            first = reading.facts[0][0]
            code = gpu.unsupported.get(first)
            if code is None:
                try:
                    said = reading.read(self._nvml, gpu.handle)
                except NvmlError as error:
                    _raise_if_gone(error)
                    code = error.code
                    if code in UNSUPPORTED:
                        gpu.unsupported[first] = code
                    else:
                        failed = failed or error
                else:
                    for (name, (low, high)), value in zip(reading.facts, said, strict=True):
                        if low <= value <= high:
                            values[name] = value
                        else:
                            unread.append(Unread(name, IMPLAUSIBLE))
                    continue
            unread.extend(Unread(name, code) for name, _ in reading.facts)
        return failed

    def _processes(
        self, gpu: _Gpu, unread: list[Unread]
    ) -> tuple[tuple[ProcessKind, RunningProcess], ...] | None:
        found: list[tuple[ProcessKind, RunningProcess]] = []
        try:
            found.extend((ProcessKind.COMPUTE, p) for p in self._compute(gpu))
        except NvmlError as error:
            _raise_if_gone(error)
            unread.append(Unread("processes", error.code))
            return None
        if "graphics" not in gpu.unsupported:
            try:
                listed = self._nvml.processes(gpu.handle, ProcessKind.GRAPHICS)
                found.extend((ProcessKind.GRAPHICS, p) for p in listed)
            except NvmlError as error:
                _raise_if_gone(error)
                gpu.unsupported["graphics"] = error.code
        if "graphics" in gpu.unsupported:
            unread.append(Unread("graphics_processes", gpu.unsupported["graphics"]))
        return tuple(found)

    def _compute(self, gpu: _Gpu) -> Sequence[RunningProcess]:
        """Return the compute processes; a GPU in MIG mode may tell them by its instances only."""
        try:
            return self._nvml.processes(gpu.handle, ProcessKind.COMPUTE)
        except NvmlError as error:
            if not gpu.instances:
                raise
            _raise_if_gone(error)
        found: list[RunningProcess] = []
        for handle, instance in zip(gpu.instances, gpu.slow["mig"], strict=True):
            found.extend(
                process._replace(
                    gpu_instance=instance.gpu_instance, compute_instance=instance.compute_instance
                )
                for process in self._nvml.processes(handle, ProcessKind.COMPUTE)
            )
        return found

    def _instance(self, handle: Handle) -> MigInstance:
        nvml = self._nvml
        used, total = _or_none(nvml.memory, handle) or (None, None)
        low, high = _BYTES
        return MigInstance(
            uuid=_or_none(nvml.uuid, handle),
            gpu_instance=_or_none(nvml.gpu_instance, handle),
            compute_instance=_or_none(nvml.compute_instance, handle),
            memory_used_bytes=used if used is not None and low <= used <= high else None,
            memory_total_bytes=total if total is not None and low <= total <= high else None,
        )


def _or_none(read: Callable[[Handle], Any], handle: Handle) -> Any:
    try:
        return read(handle)
    except NvmlError as error:
        _raise_if_gone(error)
        return None


def _raise_if_gone(error: NvmlError) -> None:
    if error.code in _GPU_GONE or error.code in _ALL_GONE:
        raise error
