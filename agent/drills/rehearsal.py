"""One drill from announcement to verdict: announce it, be seen, make the fault, be told of it, take it away.

The agent is asked through its status file alone, as anybody on the host can; what it says counts only when it
names this drill. The fault is made when the agent has seen the announcement and not before, so that no case
of it is ever taken for a real one. It is taken away by the keeper, which outlives this process.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from agent.drill_log import LINGER_S
from agent.drills import marking, remains
from agent.drills.registry import Belongings, Drill
from agent.drills.stage import PYTHON, DrillError, Stage, Theatre
from agent.process import statusfile
from agent.process.statusfile import DrillStatus, RaisedStatus, Status
from escalation.model import FaultClass
from probes.host import clock
from probes.host.drills import NAME as SENSOR, DrillMark

LONGEST_S: Final = 300
SEEN_WITHIN_S: Final = 30.0
_CLEARS_WITHIN_S: Final = LINGER_S + 30.0
_LOOK_EVERY_S: Final = 0.2
_MADE_EVERY_S: Final = 1.0
"""How often it is asked whether the fault could be made: with systemd that takes a process."""
_ENDS_WITHIN_S: Final = 60.0
_STALE_AFTER: Final = 3

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a drill has shown; seconds are counted from the fault, and from its removal."""

    fault_class: FaultClass
    raised_s: float | None
    subject: str = ""
    others: tuple[str, ...] = ()
    cleared_s: float | None = None
    by_itself: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """Runs drills on this host. `status` is the agent's status file; `say` is told of each step."""

    theatre: Theatre
    status: Path
    say: Callable[[str], object] = lambda _: None

    def run(self, drill: Drill, seconds: int) -> Verdict:
        """Make the fault and see what becomes of it; raise DrillError where it cannot be made or proven."""
        self._check_agent(drill)
        marking.make_folder(self.theatre.folder)
        lock = marking.take_lock(self.theatre.folder)
        try:
            self._clear_remains()
            name = f"nanobot-drill-{secrets.token_hex(4)}"
            stage = Stage(id=name, seconds=seconds + int(2 * SEEN_WITHIN_S), theatre=self.theatre)
            if lacking := drill.needs(stage):
                raise DrillError(f"no drill of {drill.fault_class.value} here: {lacking}")
            raised_s, raised, others = self._play(drill, stage, seconds, lock)
        finally:
            os.close(lock)
        ended = clock.now().boot_ns
        self.say("The fault is removed.")
        cleared = self._until_cleared(name, raised)
        return Verdict(
            fault_class=drill.fault_class,
            raised_s=raised_s,
            subject=raised.subject if raised else "",
            others=others,
            cleared_s=max(0.0, (cleared.cleared_boot_ns - ended) / 1e9)
            if cleared is not None and cleared.cleared_boot_ns is not None
            else None,
            by_itself=cleared is not None and cleared.by_itself,
        )

    def _play(
        self, drill: Drill, stage: Stage, seconds: int, lock: int
    ) -> tuple[float | None, RaisedStatus | None, tuple[str, ...]]:
        with self._kept(stage, lock):
            own = drill.prepare(stage)
            marking.write(self.theatre.folder, _mark(drill, stage, own))
            self.say(f"Announced as {stage.id}; waiting until the agent has seen it.")
            if self._wait(lambda: self._drill(stage.id) is not None, SEEN_WITHIN_S) is None:
                raise DrillError(f"the agent has not seen the announcement after {SEEN_WITHIN_S:.0f} s")
            self.say(f"Making the fault: {drill.about}.")
            began = clock.now().boot_ns
            drill.make(stage, own)
            raised = self._until_raised(drill, stage, seconds)
            shown = self._drill(stage.id)
            others = tuple(
                f"{case.fault_class} on {case.subject}"
                for case in (shown.raised if shown else ())
                if case.fault_class != drill.fault_class.value
            )
        raised_s = max(0.0, (raised.opened_boot_ns - began) / 1e9) if raised is not None else None
        return raised_s, raised, others

    @contextlib.contextmanager
    def _kept(self, stage: Stage, lock: int) -> Iterator[None]:
        """Have a keeper take everything away at the end, in whichever way it comes."""
        stage.scratch.mkdir(mode=0o700)
        keeper = subprocess.Popen(
            [
                *(
                    *PYTHON,
                    "agent.drills.keeper",
                    stage.id,
                    str(stage.seconds),
                    self.theatre.folder,
                    self.theatre.mounts,
                ),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=(lock,),
        )
        try:
            yield
        finally:
            try:
                _, said = keeper.communicate(timeout=_ENDS_WITHIN_S)
            except subprocess.TimeoutExpired as error:
                raise DrillError(f"the remains of {stage.id} are still being taken away") from error
            stage.reap()
        if keeper.returncode:
            raise DrillError(said.decode(errors="replace").strip() or "the keeper of the drill failed")

    def _clear_remains(self) -> None:
        for name in remains.known(self.theatre):
            self.say(f"Taking away what {name} left behind.")
            if left := remains.clear(name, self.theatre):
                raise DrillError(f"{name} left behind what cannot be removed: {', '.join(left)}")
        marking.remove(self.theatre.folder)

    def _check_agent(self, drill: Drill) -> None:
        status = statusfile.read(self.status)
        if status is None:
            raise DrillError(f"the agent does not run: {self.status} cannot be read")
        age_s = time.time() - status.written_unix_s
        if age_s > _STALE_AFTER * status.next_write_s + 10:
            raise DrillError(f"the agent has said nothing for {age_s:.0f} s; ask nanobot-agent doctor")
        known = {sensor.name: sensor.reason for sensor in status.sensors}
        for sensor in (SENSOR, *drill.sensors):
            if sensor not in known:
                raise DrillError(f"the agent has no sensor {sensor}: it is older than this command")
            if known[sensor] is not None:
                raise DrillError(f"the agent cannot see it: {sensor} is blind ({known[sensor]})")

    def _until_raised(self, drill: Drill, stage: Stage, seconds: int) -> RaisedStatus | None:
        """Wait for the alarm, but not for one of a fault that could not be made."""
        until = time.monotonic() + seconds
        while True:
            left_s = max(0.0, until - time.monotonic())
            look_s = min(left_s, _MADE_EVERY_S)
            if raised := self._wait(lambda: self._raised(stage.id, drill.fault_class), look_s):
                return raised
            if why := stage.unmade():
                raise DrillError(f"{why}; this says nothing about the alarm")
            if look_s == left_s:
                return None

    def _until_cleared(self, name: str, raised: RaisedStatus | None) -> RaisedStatus | None:
        if raised is None:
            return None
        self.say("Waiting until the case is closed.")
        return self._wait(lambda: self._cleared(name, raised), _CLEARS_WITHIN_S)

    def _status(self) -> Status | None:
        return statusfile.read(self.status)

    def _drill(self, name: str) -> DrillStatus | None:
        status = self._status()
        shown = status.drill if status is not None else None
        return shown if shown is not None and shown.id == name else None

    def _raised(self, name: str, fault_class: FaultClass) -> RaisedStatus | None:
        shown = self._drill(name)
        cases = shown.raised if shown is not None else ()
        return next((case for case in cases if case.fault_class == fault_class.value), None)

    def _cleared(self, name: str, raised: RaisedStatus) -> RaisedStatus | None:
        shown = self._drill(name)
        for case in shown.raised if shown is not None else ():
            if case.case_id == raised.case_id and case.cleared_boot_ns is not None:
                return case
        return None

    def _wait(self, look: Callable[[], T | None], within_s: float) -> T | None:
        until = time.monotonic() + within_s
        while True:
            if found := look():
                return found
            if time.monotonic() >= until:
                return None
            time.sleep(_LOOK_EVERY_S)


def _mark(drill: Drill, stage: Stage, own: Belongings) -> DrillMark:
    return DrillMark(
        id=stage.id,
        fault_class=drill.fault_class.value,
        deadline_boot_ns=clock.now().boot_ns + stage.seconds * 1_000_000_000,
        units=stage.units(),
        cgroups=stage.cgroups(),
        mounts=own.mounts,
        ports=own.ports,
    )
