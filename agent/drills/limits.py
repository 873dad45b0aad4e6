"""Whether the limit of a drill's memory holds: read back from the control group that its process is in.

That a limit was asked for proves nothing. A service manager without the memory controller, as in a container
whose control groups are read-only, takes the setting (systemd.resource-control(5)) and says nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_FILES: Final = {"cgroup": "memory.limit_in_bytes", "cgroup2": "memory.max"}
_OWN: Final = "nanobot-drill-"


def holds(limit_bytes: int) -> bool:
    """Return whether the calling process is in a drill's own control group that has this very limit."""
    try:
        file = limit_file(Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text())
        return file is not None and file.read_text().strip() == str(limit_bytes)
    except OSError:
        return False


def limit_file(groups: str, mounts: str) -> Path | None:
    """Return the file with the memory limit of a process, by its cgroups(7) and proc_pid_mountinfo(5) texts.

    None where the memory controller does not see it in a group of a drill: in another one it would not be the
    drill alone that is killed.
    """
    paths = {names: path for _, names, path in (line.split(":", 2) for line in groups.splitlines())}
    first = [names for names in paths if "memory" in names.split(",")]
    version, own = ("cgroup", paths[first[0]]) if first else ("cgroup2", paths.get("", ""))
    if _OWN not in own:
        return None
    for line in mounts.splitlines():
        place, _, filesystem = line.partition(" - ")
        kind, _, options = filesystem.split(" ", 2)
        if kind == version and (kind == "cgroup2" or "memory" in options.split(",")):
            root, point = place.split(" ")[3:5]
            return Path(point) / os.path.relpath(own, root) / _FILES[kind]
    return None
