"""`gpu.nvml`: what NVML says of every GPU each second, and of Xids as they come.

`read` never waits: it hands out what the worker has ready, asks for the next round, and looks whether a call
has been away for too long. A library that does not answer blinds this sensor and nothing else.

A host without a GPU is not blind: its PCI bus lists none and no library is installed, and that is said. With
a GPU or a library there, whatever keeps NVML from working is blindness with its reason.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from probes.gpu import nvml
from probes.gpu.bell import Bell
from probes.gpu.driver import Versions, devices, held
from probes.gpu.facts import Absence, ProcessKind, XidFacts, XidSource
from probes.gpu.protocol import NvmlEvent, RunningProcess
from probes.gpu.worker import STUCK_MAX, Connection, Failure, Round, Worker, stuck
from probes.host.identity import Identifier
from probes.observation import (
    BlindReason,
    Gap,
    GpuAbsent,
    GpuDriver,
    GpuProcess,
    GpuState,
    GpuXid,
    Instant,
    Observation,
    Origin,
    Seeing,
    SensorName,
)
from probes.sensor import SensorBlind

NAME: Final = SensorName("gpu.nvml")
PERIOD_S: Final = 1.0
BARE_S: Final = 60.0
OPEN_S: Final = 0.5
_ORIGIN_S: Final = 30.0

_REASONS: Final[dict[Absence, BlindReason]] = {
    Absence.NO_LIBRARY: BlindReason.NO_NVML,
    Absence.NO_BINDING: BlindReason.NO_NVML,
    Absence.NO_DRIVER: BlindReason.NO_DRIVER,
    Absence.NO_PERMISSION: BlindReason.NO_DEVICE_ACCESS,
    Absence.BLOCKED: BlindReason.NO_DEVICE_ACCESS,
    Absence.VERSION_MISMATCH: BlindReason.VERSION_MISMATCH,
    Absence.NOT_ANSWERING: BlindReason.NOT_ANSWERING,
}
"""What blinds the whole sensor; any other absence is a read that failed."""


def connect() -> Connection:
    """Return NVML on NVIDIA's binding; raise BindingMissing or NvmlError."""
    binding = nvml.binding()
    return Connection(
        nvml=nvml.NvmlLibrary(binding=binding),
        waiting=nvml.NvmlLibrary(binding=binding),
        on_disk=lambda: nvml.file_on_disk(binding),
    )


class NvmlSensor:
    """Keeps one worker; tells what it found."""

    name = NAME

    def __init__(
        self,
        *,
        identifier: Identifier,
        clock: Callable[[], Instant],
        connect: Callable[[], Connection] = connect,
        installed: Callable[[], bool] = nvml.installed,
        monotonic: Callable[[], float] = time.monotonic,
        sys_folder: Path = Path("/sys"),
        proc: Path = Path("/proc"),
        open_s: float = OPEN_S,
    ) -> None:
        self._identifier = identifier
        self._clock = clock
        self._connect = connect
        self._installed = installed
        self._monotonic = monotonic
        self._sys = sys_folder
        self._proc = proc
        self._open_s = open_s
        self._worker: Worker | None = None
        self._bell: Bell | None = None
        self._bare = False
        self._origins: dict[int, tuple[float, Origin]] = {}

    def __repr__(self) -> str:
        state = "no GPU" if self._worker is None else repr(self._worker)
        return f"NvmlSensor({NAME}, {state}, stuck={stuck()})"

    @property
    def period_s(self) -> float:
        """Each second; on a host without a GPU each minute, to see whether there is one."""
        return BARE_S if self._bare else PERIOD_S

    def open(self) -> None:
        """Start the worker and give it a moment; raise SensorBlind when it knows by then that it fails."""
        if sys.platform != "linux":
            raise SensorBlind(BlindReason.UNSUPPORTED_PLATFORM, "NVML is read on Linux")
        given_up = stuck()
        if given_up >= STUCK_MAX:
            raise self._blind(Absence.NOT_ANSWERING, None, f"{given_up} calls of NVML never came back")
        self._bare = self._is_bare()
        if self._bare:
            return
        self._bell = Bell()
        self._worker = Worker(
            connect=self._connect,
            versions=Versions(proc=self._proc),
            held=lambda: held(self._sys, self._proc),
            clock=self._clock,
            ring=self._bell.ring,
            monotonic=self._monotonic,
        )
        try:
            answered = self._worker.answered(self._open_s)
            self._raise_if_failed(self._worker, patient=answered or not given_up)
        except BaseException:
            self.close()
            raise

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return the last round and the Xids since the last read; raise SensorBlind when NVML is no use."""
        worker = self._worker
        if worker is None:
            return self._nothing_there(now)
        self._raise_if_failed(worker)
        if self._bell is not None:
            self._bell.quieten()
        round_, told, lost = worker.take()
        worker.ask()
        found: list[Observation] = [self._xid(at, event) for at, event in told]
        if lost:
            found.append(Gap(NAME, now, Seeing(), lost=lost))
        if round_ is not None:
            found.extend(self._states(round_))
        return found

    def waiting(self) -> bool:
        """There is always the next second."""
        return True

    def settle(self) -> None:
        """Nothing is kept for a successor: what is true of a GPU is read again."""

    def wakeup_fd(self) -> int | None:
        """An Xid is told at once. A host that had no GPU when the sensor opened has none."""
        return self._bell.fd if self._bell is not None else None

    def close(self) -> None:
        """End the worker, and let go of the descriptor."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()
        bell, self._bell = self._bell, None
        if bell is not None:
            bell.close()

    def _raise_if_failed(self, worker: Worker, *, patient: bool = True) -> None:
        if worker.defect is not None:
            raise worker.defect
        failure = worker.failure
        call = worker.overdue() if patient else "NVML"
        if call is not None:
            failure = Failure(Absence.NOT_ANSWERING, None, f"{call} does not come back")
        if failure is not None:
            worker.end()  # here, where waiting for it holds nobody up
            _, told, _ = worker.take()
            xids = [self._xid(at, event) for at, event in told]
            raise self._blind(failure.why, failure.code, failure.detail, *xids)

    def _blind(self, why: Absence, code: int | None, detail: str, *xids: GpuXid) -> SensorBlind:
        absent = GpuAbsent(NAME, self._clock(), None, why, code)
        return SensorBlind(_REASONS.get(why, BlindReason.READ_FAILED), detail, last=[*xids, absent])

    def _is_bare(self) -> bool:
        return devices(self._sys) == () and not self._installed()

    def _nothing_there(self, now: Instant) -> Sequence[Observation]:
        """Say that there is no GPU, as long as that is so."""
        if not self._is_bare():
            raise SensorBlind(BlindReason.READ_FAILED, "a GPU has turned up, and is looked at next")
        return [GpuAbsent(NAME, now, None, Absence.NO_DEVICE, None)]

    def _states(self, round_: Round) -> Sequence[Observation]:
        at = round_.at
        found: list[Observation] = []
        if round_.driver is not None:
            found.append(GpuDriver(NAME, at, round_.driver))
        seen = {p.pid for sample in round_.samples for _, p in sample.processes or ()}
        self._origins = {pid: known for pid, known in self._origins.items() if pid in seen}
        for sample in round_.samples:
            processes = None
            if sample.processes is not None:
                processes = tuple(self._process(kind, process) for kind, process in sample.processes)
            found.append(GpuState(NAME, at, sample.facts, processes))
        found.extend(GpuAbsent(NAME, at, m.gpu, m.why, m.code) for m in round_.missing)
        if not round_.samples and not round_.missing:
            found.append(GpuAbsent(NAME, at, None, Absence.NO_DEVICE, None))
        return found

    def _process(self, kind: ProcessKind, process: RunningProcess) -> GpuProcess:
        now_s = self._monotonic()
        read_s, origin = self._origins.get(process.pid, (0.0, None))
        if origin is None or now_s - read_s > _ORIGIN_S:  # servers give themselves another name as they start
            origin = self._identifier.origin(pid=process.pid)
            self._origins[process.pid] = (now_s, origin)
        return GpuProcess(origin, kind, process.used_bytes, process.gpu_instance, process.compute_instance)

    def _xid(self, at: Instant, event: NvmlEvent) -> GpuXid:
        facts = XidFacts(
            pci=event.pci, number=event.data, source=XidSource.NVML, gpu_instance=event.gpu_instance
        )
        return GpuXid(NAME, at, Origin(), facts)
