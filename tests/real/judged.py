"""A host whose sensors are real and read by hand, with every detector behind them and a clock to move on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import pytest

from agent.cases import CaseBook
from agent.detector import World
from agent.detectors.registry import DETECTORS
from agent.judge import Judge, hysteresis_of
from agent.testing import HOST, KERNEL_BOOT, SURROUNDINGS
from escalation.model import CasePhase, CaseReport, FaultClass, Subject
from probes.host import clock
from probes.observation import Gap, Instant, LogLine, Observation, Seeing
from probes.sensor import Sensor

_PATIENCE_S = 40.0


class JudgedHost:
    """Real sensors, opened; what they say is judged, and what was reported is kept."""

    def __init__(self, sensors: Sequence[Sensor]) -> None:
        self.reports: list[CaseReport] = []
        self.lines: list[LogLine] = []
        self._shift_s = 0.0
        detectors = [kind.build(kind.SETTINGS(), SURROUNDINGS) for kind in DETECTORS]
        book = CaseBook(agent_id=HOST, kernel_boot_id=KERNEL_BOOT, hysteresis=hysteresis_of(detectors))
        self._judge = Judge(
            detectors=detectors, book=book, failed=lambda name, error: pytest.fail(f"{name}: {error!r}")
        )
        self._sensors = tuple(sensors)
        for sensor in self._sensors:
            sensor.open()
            self.take([Gap(sensor.name, self.now(), Seeing())])

    def now(self) -> Instant:
        """Return the moment on the clock that was moved on."""
        moment, shift_ns = clock.now(), int(self._shift_s * 1e9)
        return Instant(moment.boot_ns + shift_ns, moment.unix_ns + shift_ns)

    def later(self, seconds: float) -> None:
        """Let time pass in which nothing happens and everything is seen, and look."""
        self._shift_s += seconds
        self.look()

    def look(self) -> None:
        """Read each sensor once, and let the detectors know that time has passed."""
        for sensor in self._sensors:
            self.take(sensor.read(self.now()))
        self.reports.extend(self._judge.tick(self.now(), World()).bodies)

    def until(self, wanted: Callable[[], bool]) -> None:
        """Look until something is so; other processes need their moment."""
        end = time.monotonic() + _PATIENCE_S
        while not wanted():
            assert time.monotonic() < end, (self.reports, self.lines[-8:])
            self.look()
            time.sleep(0.1)

    def take(self, observations: Sequence[Observation]) -> None:
        """Judge what was observed."""
        self.lines.extend(seen for seen in observations if isinstance(seen, LogLine))
        self.reports.extend(self._judge.observe(observations, self.now()).bodies)

    def wrote(self, pattern: str) -> bool:
        """Whether a line of this pattern was seen."""
        return any(line.pattern == pattern for line in self.lines)

    def of(self, fault: FaultClass, *, subject: Subject | None = None) -> list[CaseReport]:
        """Return what was reported of a fault, in order."""
        return [
            report
            for report in self.reports
            if report.fault_class is fault and (subject is None or report.subject == subject)
        ]

    def phases(self, fault: FaultClass, subject: Subject) -> list[CasePhase]:
        """Return the phases of a case, repeats left out."""
        found: list[CasePhase] = []
        for report in self.of(fault, subject=subject):
            if not found or found[-1] is not report.phase:
                found.append(report.phase)
        return found

    def close(self) -> None:
        """Let go of the sensors."""
        for sensor in self._sensors:
            sensor.close()
