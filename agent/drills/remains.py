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
    """Return the ids of all drills of which anything is left: its folder is made first and goes last.

    That folder does not outlive a boot; the place where its disk was mounted does.
    """
    places = [place for place in (theatre.folder, theatre.mounts) if place.is_dir()]
    names = {entry.name for place in places for entry in place.iterdir()}
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
    point, scratch = theatre.mounts / name, theatre.folder / name
    if _is_mounted(point):
        _run("umount", str(point))
        if _is_mounted(point):
            return [*left, str(point)]
    with contextlib.suppress(OSError):  # the second one only when no other drill has its disk there
        point.rmdir()
        theatre.mounts.rmdir()
    if left:
        return left
    shutil.rmtree(scratch, ignore_errors=True)
    return [str(folder) for folder in (point, scratch) if folder.exists()]


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


def _is_mounted(point: Path) -> bool:
    table = Path("/proc/self/mountinfo").read_text().splitlines()
    return str(point) in {line.split()[4] for line in table}


def _run(*command: str) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired, OSError):
        subprocess.run(command, check=False, capture_output=True, timeout=COMMAND_S)
