"""Ends a drill however it ends: its command is done, was killed, or its time is up.

`python -m agent.drills.keeper ID SECONDS FOLDER MOUNTS` waits until its standard input is closed, which the
kernel does for a process that dies, or until the time is up; then it takes away what the drill has made, and
the mark last. It is a process of its own, because the one that makes the fault may be the one that is killed.
Signals that end others only make it begin. Should it be killed as well, the next drill takes the remains
away, and what a drill has started ends by itself.
"""

from __future__ import annotations

import select
import signal
import sys
from pathlib import Path

from agent.drills import marking, remains
from agent.drills.stage import this_host


def main(arguments: list[str]) -> int:
    """Wait and clear; return 0 where nothing is left."""
    name, seconds = arguments[0], float(arguments[1])
    theatre = this_host(Path(arguments[2]), Path(arguments[3]))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _begin)
    try:
        select.select([sys.stdin.buffer], [], [], seconds)
    except InterruptedError:
        pass
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
    left = remains.clear(name, theatre)
    marking.remove(theatre.folder)
    for thing in left:
        print(f"could not be removed: {thing}", file=sys.stderr)  # noqa: T201  # a command's own answer
    return 1 if left else 0


def _begin(_number: int, _frame: object) -> None:
    raise InterruptedError


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
