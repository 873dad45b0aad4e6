"""What a drill leaves behind, taken away by its id alone: the one way in which every drill ends.

It is done by the drill's keeper (`keeper.py`) when the drill ends in whichever way, and by the next drill
where even the keeper was killed. Doing it again changes nothing. Nothing is touched that does not bear an id.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

from agent.drills.stage import COMMAND_S, Theatre

ID: Final = re.compile(r"nanobot-drill-[0-9a-f]{8}")
_TRIES: Final = 100
_PAUSE_S: Final = 0.05


def known(theatre: Theatre) -> list[str]:
    """Return the ids of all drills of which anything is left."""
    places = [theatre.folder, *theatre.trees()]
    names = {entry.name for place in places if place.is_dir() for entry in place.iterdir()}
    return sorted(name for name in names if ID.fullmatch(name))


def clear(name: str, theatre: Theatre) -> list[str]:
    """Take away all that drill `name` has made; return what could not be."""
    if not ID.fullmatch(name):
        return [f"{name!r} is no drill"]
    if theatre.systemd:
        unit = f"{name}.service"
        for verb in ("stop", "reset-failed"):
            _run("systemctl", verb, unit)
    left = [str(group) for tree in theatre.trees() if not _emptied(group := tree / name)]
    scratch = theatre.folder / name
    for mount in reversed(_mounts_below(scratch)):
        _run("umount", mount)
    if mounted := _mounts_below(scratch):
        return [*left, *mounted]
    shutil.rmtree(scratch, ignore_errors=True)
    return [*left, str(scratch)] if scratch.exists() else left


def _emptied(group: Path) -> bool:
    """Kill what runs in a control group, and remove it."""
    for _ in range(_TRIES):
        if not group.exists():
            return True
        with contextlib.suppress(OSError):
            for pid in (group / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            group.rmdir()
            return True
        time.sleep(_PAUSE_S)  # a process that was killed takes a moment to be gone
    return False


def _mounts_below(folder: Path) -> list[str]:
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        where = line.split()[4]
        if where.startswith(f"{folder}/"):
            found.append(where)
    return found


def _run(*command: str) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired, OSError):
        subprocess.run(command, check=False, capture_output=True, timeout=COMMAND_S)
