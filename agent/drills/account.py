"""What `nanobot-agent drill` prints: the list of drills, each step of one, and its verdict."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from agent.drills.registry import DRILLS, WITHOUT, drill_of
from agent.drills.rehearsal import LONGEST_S, Rehearsal, Verdict
from agent.drills.stage import DrillError, this_host
from agent.process import statusfile
from escalation.inert import guarded


def listing() -> str:
    """Return every fault class: what its drill does, or why it has none."""
    width = max(len(fault_class.value) for fault_class in (*WITHOUT, *(d.fault_class for d in DRILLS)))
    lines = ["Drills:"]
    lines += [f"  {drill.fault_class.value:<{width}}  {drill.about}" for drill in DRILLS]
    lines += ["", "No drill:"]
    lines += [f"  {fault_class.value:<{width}}  {why}" for fault_class, why in WITHOUT.items()]
    return "\n".join(lines)


def drilled(fault: str, seconds: int, *, folder: Path) -> int:
    """Run the drill of `fault`; return 0 when the alarm was raised and closed again, 1 otherwise."""
    try:
        drill = drill_of(fault)
        _allow(seconds)
        rehearsal = Rehearsal(theatre=this_host(), status=folder / statusfile.NAME, say=_say)
        verdict = rehearsal.run(drill, seconds)
    except (DrillError, OSError) as error:
        print(f"nanobot-agent: {error}", file=sys.stderr)  # noqa: T201  # a command's own answer
        return 1
    except KeyboardInterrupt:
        print("nanobot-agent: broken off; what the drill had made is removed", file=sys.stderr)  # noqa: T201
        return 1
    _say(told(verdict, seconds))
    return 0 if verdict.raised_s is not None and verdict.cleared_s is not None else 1


def _allow(seconds: int) -> None:
    if not 1 <= seconds <= LONGEST_S:
        raise DrillError(f"--seconds has to be between 1 and {LONGEST_S}")
    if os.geteuid() != 0:
        raise DrillError("only root can make a drill")


def told(verdict: Verdict, seconds: int) -> str:
    """Return the verdict in words, host text inert."""
    if verdict.raised_s is None:
        lines = [f"NOT raised: no {verdict.fault_class.value} within {seconds} s."]
    else:
        alarm = f"{verdict.fault_class.value} on {guarded(verdict.subject)}"
        lines = [f"Alarm raised after {verdict.raised_s:.1f} s: {alarm}."]
    lines += [f"Also raised, as a drill: {guarded(other)}." for other in verdict.others]
    if verdict.raised_s is not None:
        if verdict.cleared_s is None:
            lines.append("NOT closed: the case still stands open.")
        elif verdict.by_itself:
            lines.append(f"It cleared by itself {verdict.cleared_s:.1f} s after the fault was removed.")
        else:
            lines.append(f"It was closed as a drill {verdict.cleared_s:.0f} s after the fault was removed.")
    return "\n".join(lines)


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  # a command's own answer
