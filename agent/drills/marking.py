"""The mark of a drill, written whole or not at all, in a folder that is root's alone."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
from pathlib import Path
from typing import Final

from agent.drills.stage import DrillError
from probes.host.drills import MARK, DrillMark

_LOCK: Final = "lock"


def make_folder(folder: Path) -> None:
    """Make the folder of the marks; raise DrillError where it is not ours alone."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o022 or folder.is_symlink():
        raise DrillError(f"{folder} could be written to by somebody else; remove it")


def take_lock(folder: Path) -> int:
    """Return the descriptor of the lock, held until its last copy is closed; raise while a drill has it."""
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise DrillError("another drill is on; wait for its end") from error
    return descriptor


def write(folder: Path, mark: DrillMark) -> None:
    """Announce the drill."""
    path = folder / MARK.name
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with open(fresh, "x", opener=lambda name, flags: os.open(name, flags, 0o644)) as file:
        os.fchmod(file.fileno(), 0o644)
        json.dump(dataclasses.asdict(mark), file)
    fresh.rename(path)


def remove(folder: Path) -> None:
    """Say that the drill is over."""
    (folder / MARK.name).unlink(missing_ok=True)
