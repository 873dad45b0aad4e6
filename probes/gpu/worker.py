"""The threads that call NVML: one samples when asked, one waits for events; neither can hold up the agent.

A call on a sick GPU may never come back. Nothing can end the thread that made it, so it is given up: it
stays in the process, counted among its threads, and whoever needs NVML next starts another one. A call that
does come back after all keeps the library initialised for `LINGER_S`, so that its successor finds the driver
awake, and then ends. The rejected alternative is a helper process. It could be killed, though not while it is
stuck in the kernel, which is where these calls get stuck, and it costs every healthy host the memory of an
interpreter.

Sampling is asked for, not timed: an agent that reads nothing makes no calls. Events are kept in a bounded
queue; what does not fit is counted.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from probes.gpu.driver import Versions
from probes.gpu.facts import Absence, DriverFacts
from probes.gpu.nvml import BindingMissing
from probes.gpu.protocol import ABSENCES, XID_EVENT, Nvml, NvmlCode, NvmlError, NvmlEvent
from probes.gpu.sampler import GpuMissing, GpuSample, Sampler
from probes.observation import Instant

CALL_S: Final = 5.0
START_S: Final = 30.0
RETRY_S: Final = 30.0
LINGER_S: Final = 60.0
STUCK_MAX: Final = 3
_WAIT_MS: Final = 2000
EVENTS_S: Final = CALL_S + _WAIT_MS / 1000
_QUEUE: Final = 256
_STUCK: Final = "nvml-given-up"
_REFUSED: Final = frozenset({Absence.NO_PERMISSION, Absence.BLOCKED})
"""What says something about whoever asks, and nothing about a GPU: if it is all there is, nobody can see."""


@dataclass(frozen=True, slots=True)
class Connection:
    """NVML as it was found: calls for the sampling thread, for the waiting one, the library's file now."""

    nvml: Nvml
    waiting: Nvml
    on_disk: Callable[[], Path | None]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why nothing can be read, with the NVML code if there was one."""

    why: Absence
    code: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class Round:
    """Everything that one sampling found."""

    at: Instant
    samples: tuple[GpuSample, ...]
    missing: tuple[GpuMissing, ...]
    driver: DriverFacts | None


def stuck() -> int:
    """Return how many threads of this process were given up and have not come back."""
    return sum(thread.name == _STUCK for thread in threading.enumerate())


class _Calls(Protocol):
    @property
    def calling(self) -> tuple[str, float] | None: ...


def _late(calls: _Calls | None, now_s: float, allowed_s: float) -> str | None:
    """Return the name of the call that is under way for longer than it may."""
    calling = calls.calling if calls is not None else None
    return calling[0] if calling is not None and now_s - calling[1] > allowed_s else None


class Events:
    """The thread that waits for events of one set of GPUs."""

    def __init__(
        self,
        *,
        nvml: Nvml,
        clock: Callable[[], Instant],
        hurry: Callable[[], None],
        ring: Callable[[], None],
    ) -> None:
        self._nvml = nvml
        self._clock = clock
        self._hurry = hurry
        self._ring = ring
        self._told: deque[tuple[Instant, NvmlEvent]] = deque(maxlen=_QUEUE)
        self._lost = 0
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._set: Any = None
        self._refused: dict[int, int] = {}
        self._indices: tuple[int, ...] = ()
        self._failing: int | None = None
        self.thread = threading.Thread(target=self._run, name="nvml-events", daemon=True)

    @property
    def calling(self) -> tuple[str, float] | None:
        """The call under way."""
        return self._nvml.calling

    @property
    def unheard(self) -> dict[int, int]:
        """The GPUs (by index) whose events are not told now, and the codes; a failing wait is deaf to all."""
        failing = self._failing
        return self._refused if failing is None else dict.fromkeys(self._indices, failing) | self._refused

    def take(self) -> tuple[list[tuple[Instant, NvmlEvent]], int]:
        """Return the Xids since the last time, and how many did not fit."""
        with self._lock:
            told, lost = list(self._told), self._lost
            self._told.clear()
            self._lost = 0
        return told, lost

    def watch(self, handles: Iterable[tuple[int, Any]]) -> None:
        """Register, on the sampling thread, and begin to wait."""
        indexed = list(handles)
        self._indices = tuple(index for index, _ in indexed)
        self._nvml.start()
        try:
            self._set, refused = self._nvml.watch([handle for _, handle in indexed])
        except NvmlError as error:
            self._refused = dict.fromkeys(self._indices, error.code)
            self._nvml.stop()
            return
        self._refused = {self._indices[position]: code for position, code in refused.items()}
        self.thread.start()

    def end(self) -> None:
        """Ask the thread to end; it does within its timeout."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                event = self._nvml.wait(self._set, _WAIT_MS)
            except NvmlError as error:  # a lost GPU answers at once, again and again; the sampler tells of it
                self._failing = error.code
                self._hurry()
                self._ended.wait(CALL_S)
                continue
            self._failing = None
            if event is None:
                continue
            if event.kind == XID_EVENT:
                with self._lock:
                    self._lost += len(self._told) == self._told.maxlen
                    self._told.append((self._clock(), event))
                self._ring()
            self._hurry()
        with contextlib.suppress(NvmlError):
            self._nvml.unwatch(self._set)
            self._nvml.stop()


class Worker:
    """The thread that samples, with the thread for events that belongs to it."""

    def __init__(
        self,
        *,
        connect: Callable[[], Connection],
        versions: Versions,
        held: Callable[[], Sequence[str]],
        clock: Callable[[], Instant],
        ring: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ring = ring
        self._connect = connect
        self._versions = versions
        self._held = held
        self._clock = clock
        self._monotonic = monotonic
        self._began_s = monotonic()
        self._nvml: Nvml | None = None
        self._events: Events | None = None
        self._asked = threading.Event()
        self._answered = threading.Event()
        self._ended = threading.Event()
        self._given_up = threading.Event()
        self._round: Round | None = None
        self._sampling = False
        self.failure: Failure | None = None
        self.defect: Exception | None = None
        self._hurry = False
        self._thread = threading.Thread(target=self._run, name="nvml", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        state = "given up" if self._given_up.is_set() else "ended" if self._ended.is_set() else "running"
        return f"Worker({state}, calling={self._nvml and self._nvml.calling})"

    def ask(self) -> None:
        """Ask for one more round."""
        self._asked.set()

    def answered(self, timeout_s: float) -> bool:
        """Wait until there was a first round or a failure; return whether there was."""
        return self._answered.wait(timeout_s)

    def take(self) -> tuple[Round | None, list[tuple[Instant, NvmlEvent]], int]:
        """Return the last round if it is new, the Xids since, and how many of those were lost."""
        round_, self._round = self._round, None
        told, lost = self._events.take() if self._events is not None else ([], 0)
        return round_, told, lost

    def overdue(self) -> str | None:
        """Return the name of a call that has not come back in its time, or None."""
        now_s = self._monotonic()
        events = self._events
        if not self._answered.is_set() and now_s - self._began_s > START_S:
            calling = self._nvml.calling if self._nvml is not None else None
            return calling[0] if calling is not None else "loading the library"
        late = _late(self._nvml, now_s, CALL_S if self._sampling else START_S)
        return late or _late(events, now_s, EVENTS_S)

    def end(self) -> None:
        """End the threads; one that is stuck is given up. Calling it again does nothing."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._asked.set()
        events = self._events
        if events is not None:
            events.end()
            if _late(events, self._monotonic(), EVENTS_S):
                events.thread.name = _STUCK
        self._thread.join(0.2)
        if self._thread.is_alive():
            self._thread.name = _STUCK
            self._given_up.set()

    def _run(self) -> None:
        try:
            self._work()
        except NvmlError as error:
            self.failure = self._failure(error)
        except BindingMissing as error:
            self.failure = Failure(Absence.NO_BINDING, None, str(error))
        except Exception as error:  # noqa: BLE001  # whoever reads raises it again, where defects are counted
            self.defect = error
        finally:
            self._answered.set()
            self._leave()

    def _failure(self, error: NvmlError) -> Failure:
        """Say what an error means; a driver that is loaded, yet "not loaded", has its nodes out of reach."""
        why = ABSENCES.get(error.code, Absence.UNKNOWN)
        if why is Absence.NO_DRIVER and self._versions.module() is not None:
            return Failure(Absence.BLOCKED, error.code, f"{error}, but the driver is loaded")
        return Failure(why, error.code, str(error))

    def _work(self) -> None:
        connection = self._connect()
        self._nvml = connection.nvml
        connection.nvml.start()
        sampler = Sampler(nvml=connection.nvml)
        self._begin(sampler, connection)
        tried_s = self._monotonic()
        while not self._ended.is_set():
            if self._hurry:
                self._hurry = False
                sampler.hurry()
            now_s = self._monotonic()
            if self._events is not None:
                sampler.unwatched(self._events.unheard)
            samples, missing = sampler.sample(now_s)
            if not samples and missing and all(each.why in _REFUSED for each in missing):
                raise NvmlError("every GPU", missing[0].code or NvmlCode.NO_PERMISSION)
            driver = self._versions.look(connection.on_disk, now_s)
            untaken = self._round
            if driver is None and untaken is not None:
                driver = untaken.driver  # it is told once, and nobody has heard it yet
            self._round = Round(self._clock(), tuple(samples), tuple(missing), driver)
            self._answered.set()
            if (missing or not samples) and now_s - tried_s >= RETRY_S:
                self._again(sampler, connection)
                tried_s = now_s
            self._asked.wait()
            self._asked.clear()

    def _begin(self, sampler: Sampler, connection: Connection) -> None:
        sampler.discover(self._held())
        self._versions.loaded = connection.nvml.version_in_use()
        self._events = Events(
            nvml=connection.waiting, clock=self._clock, hurry=self._hurried, ring=self._ring
        )
        self._events.watch(sampler.handles)
        self._sampling = True

    def _again(self, sampler: Sampler, connection: Connection) -> None:
        """Initialise the library afresh, to see whether a GPU that is missing is back."""
        self._sampling = False
        if self._events is not None:
            self._events.end()
            if self._events.thread.is_alive():
                self._events.thread.join(_WAIT_MS / 1000 + CALL_S)
        connection.nvml.stop()
        connection.nvml.start()
        self._begin(sampler, connection)

    def _hurried(self) -> None:
        self._hurry = True

    def _leave(self) -> None:
        if self._events is not None:
            self._events.end()
        if self._nvml is None:
            return
        if self._given_up.is_set():
            threading.current_thread().name = "nvml-lingering"
            time.sleep(LINGER_S)
        with contextlib.suppress(NvmlError):
            self._nvml.stop()
