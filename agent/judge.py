"""Judgement as one pure step: observations and time go in, report bodies, notes and losses come out.

A detector that raises is a defect of ours; it costs that detector's word on that observation, is counted,
and leaves the other detectors alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.cases import CaseBook, Changes
from agent.detector import Asking, Detector, ProcessKey, Remembering, Tick, World
from agent.finding import Finding, Hysteresis, Place, absent
from escalation.model import FaultClass, Reason, ReasonCode
from probes.observation import DrillBegan, DrillEnded, Instant, Observation


@dataclass(frozen=True, slots=True)
class Questions:
    """What the next tick wants to know about the host."""

    places: frozenset[Place]
    processes: frozenset[ProcessKey]


class Judge:
    """Runs every detector and keeps the case book. Owned by one task."""

    def __init__(
        self,
        *,
        detectors: Sequence[Detector],
        book: CaseBook,
        failed: Callable[[str, Exception], None],
    ) -> None:
        self._detectors = tuple(detectors)
        self._asking = _asking(detectors)
        self._failed = failed
        self.book = book
        self.errors: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"Judge({len(self._detectors)} detectors, {self.book!r})"

    def retune(self, detectors: Sequence[Detector], observations: Sequence[Observation]) -> None:
        """Go on with newly configured detectors, told by `observations` what each sensor's sight is."""
        memory = self.memory()
        self._detectors = tuple(detectors)
        self._asking = _asking(detectors)
        self.book.retune(hysteresis_of(detectors))
        self.recall(memory)
        self._judged(observations)

    def memory(self) -> dict[str, bytes]:
        """Return what the detectors that learn have learnt, by their names and keys."""
        kept: dict[str, bytes] = {}
        for detector in self._detectors:
            if isinstance(detector, Remembering):
                try:
                    kept |= {f"{detector.NAME}/{key}": raw for key, raw in detector.memory().items()}
                except Exception as error:  # noqa: BLE001  # one detector must not take the others down
                    self._count(detector, error)
        return kept

    def recall(self, memory: Mapping[str, bytes]) -> int:
        """Give each detector what it had learnt; return how many entries could not be read."""
        unreadable = 0
        for detector in self._detectors:
            prefix = f"{detector.NAME}/"
            own = {key.removeprefix(prefix): raw for key, raw in memory.items() if key.startswith(prefix)}
            if own and isinstance(detector, Remembering):
                try:
                    unreadable += detector.recall(own)
                except Exception as error:  # noqa: BLE001  # the same
                    self._count(detector, error)
        return unreadable

    def observe(self, observations: Sequence[Observation], now: Instant) -> Changes:
        """Judge `observations` in order."""
        return self.book.judge(self._judged(observations), now)

    def tick(self, now: Instant, world: World) -> Changes:
        """Let each detector judge the time that has passed."""
        found: list[Finding] = []
        for detector in self._detectors:
            faults = [note.fault_class for note in detector.FAULTS]
            tick = Tick(now=now, open_cases=self.book.open_cases(faults), world=world)
            try:
                found.extend(detector.tick(tick))
            except Exception as error:  # noqa: BLE001  # one detector must not take the others down
                self._count(detector, error)
        found.extend(self._unjudged(now))
        return self.book.judge(found, now)

    def _unjudged(self, now: Instant) -> list[Finding]:
        """Return the end of cases whose detector is switched off: nobody else would clear them."""
        judged = {note.fault_class for detector in self._detectors for note in detector.FAULTS}
        unjudged = self.book.open_cases(set(FaultClass) - judged)
        return [
            absent(case.fault_class, case.subject, now, Reason(ReasonCode.NOT_WATCHED, count=1))
            for case in unjudged
        ]

    def questions(self) -> Questions:
        """Return what the detectors want to know at the next tick."""
        places = {case.place for case in self.book.open_cases(FaultClass) if case.place is not None}
        processes = {key for detector in self._asking for key in detector.watching()}
        return Questions(frozenset(places), frozenset(processes))

    def _judged(self, observations: Sequence[Observation]) -> list[Finding]:
        found: list[Finding] = []
        for observation in observations:
            if isinstance(observation, DrillBegan | DrillEnded):
                self.book.drills.told(observation)
                continue
            for detector in self._detectors:
                try:
                    found.extend(detector.observe(observation))
                except Exception as error:  # noqa: BLE001  # one detector must not take the others down
                    self._count(detector, error)
        return found

    def _count(self, detector: Detector, error: Exception) -> None:
        self.errors[detector.NAME] += 1
        self._failed(detector.NAME, error)


def hysteresis_of(detectors: Sequence[Detector]) -> dict[FaultClass, Hysteresis]:
    """Return every fault class with its rule."""
    return {fault: rule for detector in detectors for fault, rule in detector.hysteresis.items()}


def _asking(detectors: Sequence[Detector]) -> tuple[Asking, ...]:
    return tuple(detector for detector in detectors if isinstance(detector, Asking))
