"""Who works on which GPU, as the driver last listed it, and whether that list is whole.

Nobody is absent from a list that could not be read: one GPU whose processes are not told, or that does not
answer, makes the absence of everybody unknown. A host that has no GPU at all has a whole list with nobody on
it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from agent.subjects import subject_of
from escalation.model import Subject, SubjectKind
from probes.gpu.facts import Absence, GpuIdentity
from probes.observation import GpuAbsent, GpuState, Instant

FRESH_S: Final = 15.0
"""An older list is none: NVML is read once a second."""

_GPUS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class _List:
    """What one GPU's list said. `pids` is None where it was not told."""

    at: Instant
    pids: frozenset[int] | None
    subjects: frozenset[Subject | None] = frozenset()


class GpuLists:
    """The lists of all GPUs of this host."""

    def __init__(self) -> None:
        self._lists: dict[GpuIdentity, _List] = {}
        self._empty_at: Instant | None = None

    def __repr__(self) -> str:
        return f"GpuLists({len(self._lists)} GPUs)"

    def take(self, told: GpuState | GpuAbsent) -> None:
        """Take what is told of one GPU, or that none can be read."""
        if isinstance(told, GpuState):
            self._empty_at = None
            self._keep(told.facts.gpu, _list(told))
        elif told.gpu is not None:
            self._keep(told.gpu, _List(told.at, None))
        else:
            self._lists.clear()
            self._empty_at = told.at if told.why is Absence.NO_DEVICE else None

    def forget(self) -> None:
        """Know nothing any more."""
        self._lists.clear()
        self._empty_at = None

    def lists(self, subject: Subject, pids: Collection[int], now: Instant) -> bool | None:
        """Return whether any GPU lists any of a server's processes; None where that is not known."""
        fresh = [known for known in self._lists.values() if now.since_s(known.at) <= FRESH_S]
        named = subject if _is_its_own(subject) else None
        for known in fresh:
            if named in known.subjects or (known.pids and not known.pids.isdisjoint(pids)):
                return True
        if self._empty_at is not None:
            return False
        whole = bool(fresh) and len(fresh) == len(self._lists) and all(k.pids is not None for k in fresh)
        return False if whole else None

    def _keep(self, gpu: GpuIdentity, known: _List) -> None:
        """Keep a GPU's list in place of its last one, under whatever name that was."""
        if gpu not in self._lists:
            for other in [each for each in self._lists if each.is_same(gpu)]:
                del self._lists[other]
        self._lists[gpu] = known
        while len(self._lists) > _GPUS_MAX:
            del self._lists[next(iter(self._lists))]


def _is_its_own(subject: Subject) -> bool:
    """Return whether everything in it is one server's: a session or a process's name may be shared."""
    if subject.kind is SubjectKind.UNIT:
        return subject.name.endswith(".service") and not subject.name.startswith("user@")
    return subject.kind is SubjectKind.CONTAINER


def _list(told: GpuState) -> _List:
    if told.processes is None:
        return _List(told.at, None)
    origins = [process.origin for process in told.processes]
    return _List(
        told.at,
        frozenset(origin.pid for origin in origins if origin.pid is not None),
        frozenset(subject_of(origin) for origin in origins),
    )
