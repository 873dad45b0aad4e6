"""A filesystem of the drill's own, filled to its last block: 16 MiB in a file that lies in memory."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from agent.drills.stage import COMMAND_S, DrillError, Stage

SIZE_BYTES: Final = 16 << 20
_LARGE_BYTES: Final = 256 << 10
_BLOCK_BYTES: Final = 1024
_REFUSALS: Final = 3
_TOOLS: Final = ("mkfs.ext4", "mount", "umount")


def lacking(_: Stage) -> str | None:
    """Return which tool is missing."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    return f"it needs {', '.join(missing)}" if missing else None


def make(stage: Stage, point: Path) -> None:
    """Make it, mount it at `point`, fill it, and go on until writes were refused."""
    image = stage.scratch / "disk.img"
    with image.open("xb") as file:
        file.truncate(SIZE_BYTES)
    point.mkdir(parents=True)
    # Nothing kept for root: what is full for root is full for everybody.
    _run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
    _run("mount", "-o", "loop,nosuid,nodev,noexec", str(image), str(point))
    fill(point)


def fill(point: Path) -> None:
    """Take the space block by block until it is refused, and once more, and again."""
    if sys.platform != "linux":
        raise DrillError("drills need Linux")
    descriptor = os.open(point / "filler", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        at, step, refused = 0, _LARGE_BYTES, 0
        while refused < _REFUSALS and at <= SIZE_BYTES:
            try:
                os.posix_fallocate(descriptor, at, step)
                at += step
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                step, refused = _BLOCK_BYTES, refused + 1
    finally:
        os.close(descriptor)


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=COMMAND_S)
    if done.returncode != 0:
        raise DrillError(f"{command[0]} failed: {done.stderr.strip()}")
