"""One agent to a handover socket: a second one would take the loader's descriptors and the status file away.

The claim is a lock on a file beside the socket, which the kernel lets go of with the process (flock(2)). It
does not lie beside the spool, whose disk may hang; the spool has a lock of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


class AlreadyClaimed(Exception):
    """Another agent runs here; the message says what to do."""


@contextlib.contextmanager
def claimed(socket: Path) -> Iterator[None]:
    """Hold the claim to `socket`; raise AlreadyClaimed where another process does.

    A folder in which no lock can be made holds up nobody: whoever listens there says what is wrong with it.
    """
    path = socket.with_name(f"{socket.name}.lock")
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            held.callback(os.close, descriptor)
            _lock(descriptor, path)
        yield


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise AlreadyClaimed(f"another agent runs here: it holds {path}; stop it first") from error
