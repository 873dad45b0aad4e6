"""What is known of each GPU of the host: its last state, since when it is missing, who worked on it.

GPUs are named by their PCI address, one without an address by its uuid, one without either by its index.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from agent.subjects import cut
from escalation.model import GpuEvidence
from escalation.wire.limits import TEXT_BYTES
from probes.gpu.facts import Absence, GpuIdentity, ProcessKind
from probes.gpu.protocol import UNSUPPORTED, NvmlCode
from probes.observation import GpuAbsent, GpuState, Instant, Origin

GPUS_MAX: Final = 64
UNNAMED: Final = "unknown"
"""The name of a GPU that nobody named."""

_NO_SUCH_WORD: Final = UNSUPPORTED | {NvmlCode.INVALID_ARGUMENT}
"""The codes for a field that this GPU, this library or an older driver does not know."""

_LEFT: Final = 16
_NAME: Final = TEXT_BYTES["GpuEvidence.gpu"]
_UINT32: Final = 2**32 - 1


@dataclass(slots=True)
class KnownGpu:
    """One GPU. `absent_since` is set while it cannot be read; `left` are the processes that went last."""

    name: str
    index: int | None = None
    state: GpuState | None = None
    absent: GpuAbsent | None = None
    absent_since: Instant | None = None
    left: deque[tuple[Instant, Origin]] = field(default_factory=lambda: deque(maxlen=_LEFT))

    @property
    def recovery_action(self) -> int | None:
        """What the driver advises; None where it does not say."""
        return None if self.state is None else self.state.facts.recovery_action

    @property
    def advises_nothing(self) -> bool:
        """Whether the driver is known to advise nothing, or has no such word for this GPU."""
        return self.recovery_action == 0 or (
            self.recovery_action is None and self._code("recovery_action") in _NO_SUCH_WORD
        )

    @property
    def tells_xids(self) -> bool:
        """Whether NVML tells of this GPU's Xids."""
        return self.state is not None and self._code("xids") is None

    @property
    def rows_are_fine(self) -> bool:
        """Whether no row of its memory waits to be remapped or could not be; a GPU that has none is fine."""
        return self.state is not None and not (
            self.state.facts.remap_pending or self.state.facts.remap_failed
        )

    def answers(self, now: Instant, *, fresh_s: float) -> bool:
        """Whether the GPU could be read within the last `fresh_s` seconds, and still can."""
        return self.state is not None and self.absent is None and now.since_s(self.state.at) <= fresh_s

    def workers(self, gpu_instance: int | None) -> Sequence[Origin] | None:
        """Return the processes that compute on it, or on one slice of it; None where that is not known."""
        if self.state is None or self.state.processes is None:
            return None
        return [
            each.origin
            for each in self.state.processes
            if each.kind is ProcessKind.COMPUTE and gpu_instance in {None, each.gpu_instance}
        ]

    def evidence(self) -> GpuEvidence:
        """Return how it is, for a report."""
        facts = None if self.state is None else self.state.facts
        absent = self.absent
        code = 0 if absent is None or absent.code is None else absent.code
        live = facts if absent is None else None
        reasons = None if live is None else live.clock_reasons
        return GpuEvidence(
            gpu=self.name,
            name=cut((facts.name if facts is not None else None) or "", TEXT_BYTES["GpuEvidence.name"]),
            sm_mhz=None if live is None else live.sm_clock_mhz,
            usual_mhz=None,
            busy_percent=None if live is None else live.utilisation_percent,
            watts=None if live is None else live.power_w,
            event_reasons=None if reasons is None else reasons & (2**63 - 1),
            nvml_code=min(max(code, 0), _UINT32),
            recovery_action=None if live is None else live.recovery_action,
        )

    def _code(self, fact: str) -> int | None:
        if self.state is None:
            return None
        return next((each.code for each in self.state.facts.unread if each.fact == fact), None)


class GpuTable:
    """The GPUs, at most `GPUS_MAX`; the one that was heard of longest ago is forgotten first."""

    def __init__(self) -> None:
        self._gpus: dict[str, KnownGpu] = {}

    def __repr__(self) -> str:
        missing = sum(gpu.absent is not None for gpu in self)
        return f"GpuTable(gpus={len(self._gpus)}, missing={missing})"

    def __iter__(self) -> Iterator[KnownGpu]:
        return iter(self._gpus.values())

    def __len__(self) -> int:
        return len(self._gpus)

    def get(self, name: str) -> KnownGpu | None:
        """Return the GPU of this name, or the one that had only an index when it was named so."""
        known = self._gpus.get(name)
        return known or next(
            (gpu for gpu in self if gpu.index is not None and _by_index(gpu.index) == name), None
        )

    def take_state(self, state: GpuState) -> KnownGpu:
        """Take note that a GPU could be read."""
        gpu = self._gpu(state.facts.gpu)
        before, gpu.state = gpu.state, state
        gpu.absent = gpu.absent_since = None
        if before is not None and before.processes is not None and state.processes is not None:
            stay = {each.origin.pid for each in state.processes}
            gpu.left.extend(
                (state.at, each.origin) for each in before.processes if each.origin.pid not in stay
            )
        return gpu

    def take_absent(self, absent: GpuAbsent) -> Sequence[KnownGpu]:
        """Take note that a GPU, or every GPU, could not be read; return which."""
        known = list(self) if absent.gpu is None else [self._gpu(absent.gpu)]
        missing = known or [self.named(None)]
        for gpu in missing:
            if gpu.absent is None or _sort_of(gpu.absent) is not _sort_of(absent):
                gpu.absent_since = absent.at
            gpu.absent = absent
        return missing

    def named(self, pci: str | None) -> KnownGpu:
        """Return the GPU at this address; without one, the only GPU of the host, or a nameless one."""
        if pci is not None:
            return self._kept(cut(pci, _NAME))
        known = list(self.identified())
        return known[0] if len(known) == 1 else self._kept(UNNAMED)

    def named_so(self, name: str) -> KnownGpu:
        """Return the GPU of this name, known or not."""
        return self.get(name) or KnownGpu(name)

    def identified(self) -> Iterator[KnownGpu]:
        """Yield the GPUs that have a name of their own."""
        return (gpu for gpu in self if gpu.name != UNNAMED)

    def lost_at_once(self, within_s: float) -> bool:
        """Whether there are several GPUs, and all were lost within so many seconds of each other."""
        known = list(self.identified())
        since = [
            gpu.absent_since.boot_ns
            for gpu in known
            if gpu.absent is not None and gpu.absent_since is not None and is_lost(gpu.absent)
        ]
        return len(since) == len(known) > 1 and max(since) - min(since) <= within_s * 1e9

    def _gpu(self, identity: GpuIdentity) -> KnownGpu:
        name = identity.pci or identity.uuid
        if name is None:
            known = next((gpu for gpu in self if gpu.index == identity.index), None)
            if known is not None:
                return known
            name = _by_index(identity.index)
        gpu = self._kept(cut(name, _NAME))
        if gpu.index != identity.index:
            for other in [each for each in self if each.index == identity.index and each is not gpu]:
                other.index = None
                if other.name == _by_index(identity.index):
                    del self._gpus[other.name]  # it has a name now
            gpu.index = identity.index
        return gpu

    def _kept(self, name: str) -> KnownGpu:
        gpu = self._gpus.pop(name, None) or KnownGpu(name)
        self._gpus[name] = gpu
        while len(self._gpus) > GPUS_MAX:
            del self._gpus[next(iter(self._gpus))]
        return gpu


def _by_index(index: int) -> str:
    return f"index {index}"


def is_lost(absent: GpuAbsent) -> bool:
    """Whether the driver has lost the GPU."""
    return absent.why in {Absence.LOST, Absence.GONE}


def is_mute(absent: GpuAbsent) -> bool:
    """Whether nothing of this one GPU can be read, with a code that says no more than that, such as 999."""
    return absent.gpu is not None and absent.why is Absence.UNKNOWN


def _sort_of(absent: GpuAbsent) -> Absence:
    """Return why it is absent; lost, not listed and mute are one sort, between which NVML may change."""
    return Absence.LOST if is_lost(absent) or is_mute(absent) else absent.why
