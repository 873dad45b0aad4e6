"""Followed files as a source of lines: from their end on, through rotation and truncation.

Only regular files are read, opened so that a pipe in a file's place cannot hold the reader up. A file that is
not there yet is read from its beginning when it appears; one that was renamed away is read to its end before
its successor is begun. Of a line only its first `LINE_MAX` bytes are looked at. A file that cannot be
followed is tried again at each glance and named meanwhile; when there is no other, the source is blind.
"""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Callable, Sequence
from typing import Final

from probes.logs.pattern import LINE_MAX, LineSource
from probes.logs.tally import Tally, Writer
from probes.observation import BlindReason
from probes.sensor import SensorBlind

GLANCE_MS: Final = 1000
BYTES_PER_ROUND: Final = 1 << 18
BEHIND_BYTES: Final = 8 << 20
"""When a file has grown by more than this since it was read, reading goes on near its end, with a loss."""

_CHUNK: Final = 1 << 16
_NOBODY: Final = Writer()


class FileRefused(Exception):
    """A file is there and cannot be followed; the message says which and why."""


class FollowedFile:
    """One file, followed by its path."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd: int | None = None
        self._inode: tuple[int, int] | None = None
        self._at = 0
        self._rest = b""
        self._skips_line = False

    @property
    def path(self) -> str:
        """The name by which it is followed."""
        return self._path

    @property
    def is_there(self) -> bool:
        """Whether it could be opened."""
        return self._fd is not None

    def __repr__(self) -> str:
        return (
            f"FollowedFile({self._path!r}, {'open' if self._fd is not None else 'not there'}, at {self._at})"
        )

    def begin(self) -> None:
        """Take the file as it is as read; raise FileRefused."""
        if self._open():
            assert self._fd is not None
            self._at = os.fstat(self._fd).st_size

    def read(self, tally: Tally, now_unix_ns: int) -> bool:
        """Count the lines that were added, up to a bound; return whether there is more. Raise FileRefused."""
        budget = BYTES_PER_ROUND
        while budget > 0:
            if self._fd is None and not self._open():
                return False
            taken = self._read_on(tally, now_unix_ns, budget)
            budget -= taken
            if taken == 0:
                if not self._replaced():
                    return False
                self._end(tally, now_unix_ns)
        return True

    def close(self) -> None:
        """Let go of the file."""
        if self._fd is not None:
            os.close(self._fd)
        self._fd, self._inode = None, None

    def _open(self) -> bool:
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            raise FileRefused(f"follow {self._path}: {error}") from error
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            raise FileRefused(f"follow {self._path}: not a regular file")
        self._fd, self._inode = fd, (found.st_dev, found.st_ino)
        self._at, self._rest, self._skips_line = 0, b"", False
        return True

    def _read_on(self, tally: Tally, now_unix_ns: int, budget: int) -> int:
        assert self._fd is not None
        size = os.fstat(self._fd).st_size
        if size < self._at:  # cut short: what is there now is new
            self._at, self._rest, self._skips_line = 0, b"", False
        elif size - self._at > BEHIND_BYTES:
            self._at = size - BYTES_PER_ROUND
            self._rest, self._skips_line = b"", True
            tally.lose()
        data = os.pread(self._fd, min(_CHUNK, budget), self._at)
        self._at += len(data)
        self._lines(data, tally, now_unix_ns)
        return len(data)

    def _lines(self, data: bytes, tally: Tally, now_unix_ns: int) -> None:
        *whole, rest = data.split(b"\n")
        for line in whole:
            if not self._skips_line:
                _take((self._rest + line)[:LINE_MAX], tally, now_unix_ns)
            self._rest, self._skips_line = b"", False
        if not self._skips_line:
            self._rest += rest
            if len(self._rest) >= LINE_MAX:  # its beginning is all that is looked at
                _take(self._rest[:LINE_MAX], tally, now_unix_ns)
                self._rest, self._skips_line = b"", True

    def _replaced(self) -> bool:
        """Whether the path names another file now; one that is gone may only be between two names."""
        try:
            found = os.stat(self._path)  # noqa: PTH116 -- hot path, no Path objects
        except OSError:
            return False
        return (found.st_dev, found.st_ino) != self._inode

    def _end(self, tally: Tally, now_unix_ns: int) -> None:
        if self._rest and not self._skips_line:
            _take(self._rest, tally, now_unix_ns)
        self.close()


class Files:
    """All files of the configuration as one source."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._files = tuple(FollowedFile(path) for path in paths)
        self._left_out: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Files({len(self._files)}, left_out={len(self._left_out)})"

    def open(self) -> None:
        """Go to the end of each file; raise SensorBlind where every one is refused."""
        self._each(FollowedFile.begin)

    @property
    def left_out(self) -> str:
        """Which files are not followed, and why."""
        return "; ".join(self._left_out)

    @property
    def changed(self) -> bool:
        """Never asked of a disk on the agent's own thread: one of a dead server would hold it up."""
        return False

    def wait(self, wake: int) -> None:
        """Wait for the next glance, or for the descriptor `wake`."""
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        poll.poll(GLANCE_MS)

    def read(self, tally: Tally, now_unix_ns: int) -> bool:
        """Count what was added to all of them; return whether there is more."""
        more: list[bool] = []
        self._each(lambda file: more.append(file.read(tally, now_unix_ns)))
        return any(more)

    def close(self) -> None:
        """Let go of all of them."""
        for file in self._files:
            file.close()

    def _each(self, do: Callable[[FollowedFile], None]) -> None:
        """Do it for all, whatever one of them says; raise SensorBlind where every one is refused."""
        refused: dict[str, str] = {}
        for file in self._files:
            try:
                do(file)
            except FileRefused as error:
                refused[file.path] = str(error)
            except OSError as error:
                refused[file.path] = f"read {file.path}: {error.strerror}"
        absent = (file.path for file in self._files if not file.is_there and file.path not in refused)
        self._left_out = (*refused.values(), *(f"{path} is not there" for path in absent))
        if refused and len(refused) == len(self._files):
            raise SensorBlind(BlindReason.NO_PRIVILEGE, self._left_out[0])


def _take(line: bytes, tally: Tally, now_unix_ns: int) -> None:
    said = tally.match(line.decode(errors="replace"), LineSource.PROGRAM)
    if said is not None:
        tally.add(said, _NOBODY, now_unix_ns)
