"""The systemd journal as a source of lines; the only import of systemd-python's reader.

Only the files that are written to now are read: the system's, and one for each user, because journald keeps
apart what a regular account writes, a service of the system with `User=` among it (journald.conf(5),
SplitMode=). A reader of the whole folder, with matches for the programs that are wanted, maps 2 MB of every
archived file: 25 MB with a dozen of them (measured, systemd 252). So an entry is chosen by its own fields,
two microseconds for one that is not wanted, and the file is opened anew after `ENTRIES_MAPPED` entries,
because pages that were read stay mapped. Whether anything was written is told by the file's time of change,
which journald sets a quarter of a second after an entry at the latest (it truncates the file to the size that
it has). Reading begins with what is written from now on; when journald rotates the file, the old one is read
to its end.

`systemd.journal.Reader` fetches and converts all thirty fields of an entry, some forty microseconds; here the
two or three that matter are fetched with the methods of the class beneath it.

The fields whose names begin with an underscore are the journal's own word. `CONTAINER_ID_FULL` is what a
container engine says of whose output it passes on, so it is believed of such an engine alone
(systemd.journal-fields(7); Docker's and Podman's `journald` log drivers).
"""

from __future__ import annotations

import contextlib
import os
import re
import select
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from probes.logs.pattern import LINE_MAX, LineSource
from probes.logs.tally import Tally, Writer
from probes.observation import BlindReason
from probes.sensor import SensorBlind

GLANCE_MS: Final = 60_000
ENTRIES_PER_ROUND: Final = 1000
ENTRIES_MAPPED: Final = 4000
BEHIND_NS: Final = 30_000_000_000
"""When the reader is further behind than this, it goes on with the newest entry and counts a loss."""

FOLDERS: Final = (Path("/run/log/journal"), Path("/var/log/journal"))
MACHINE_ID: Final = Path("/etc/machine-id")
USERS_MAX: Final = 8
"""So many users' journals are read; of more that are found together, those that were written to last."""

ENGINES: Final = ("conmon", "dockerd")
PROGRAMS: Final = (
    *(
        "VLLM::",
        "gcs_server",
        "gunicorn",
        "litellm",
        "llama-server",
        "mpirun",
        "nvidia-",
        "ollama",
        "postgres",
    ),
    *("pt_main_thread", "python", "ray", "speaches", "trtllm-", "uvicorn", "vllm", "whisper", *ENGINES),
)
"""How the names of processes begin whose lines are read; the kernel keeps 15 bytes of one."""

_OF_A_USER: Final = re.compile(r"user-[0-9]{1,10}\.journal")
_UNITS: Final = ("_SYSTEMD_UNIT", "_SYSTEMD_USER_UNIT")
_CONTAINER: Final = re.compile(rb"[0-9a-f]{64}")
_NOBODY: Final = Writer()
_PROGRAMS: Final = tuple(name.encode() for name in PROGRAMS)


class JournalFile:
    """One journal file by its path, followed through rotation."""

    def __init__(self, path: Path, units: frozenset[bytes]) -> None:
        self._path = str(path)
        self._units = units
        self._reader: Any = None
        self._inode: tuple[int, int] | None = None
        self._changed_ns = 0
        self._mapped = 0

    def __repr__(self) -> str:
        return f"JournalFile({self._path!r}, {'open' if self._reader is not None else 'closed'})"

    @property
    def path(self) -> str:
        """The name by which it is followed."""
        return self._path

    def begin(self, *, history: bool = False) -> bool:
        """Open the file, where there is one, and go to its end but for its history; raise OSError."""
        if not self._open():
            return False
        if not history:
            self._to_end()
        return True

    @property
    def changed(self) -> bool:
        """Whether the file is another one, or was written to, since all of it was read."""
        try:
            found = self._look()
        except OSError:
            return True  # the read says what it is
        return found is not None and found != (self._inode, self._changed_ns)

    def read(self, tally: Tally, now_unix_ns: int) -> bool:
        """Count what was written, up to a bound; return whether there is more. Raise OSError."""
        if self._reader is None and not self._open():
            return False
        found = self._look()
        if found is not None and found == (self._inode, self._changed_ns):
            return False
        if self._drain(tally, now_unix_ns):
            return True
        if found is None or found[0] == self._inode:
            self._changed_ns = found[1] if found is not None else 0
            return False
        if self._drain(tally, now_unix_ns):  # what was written between the last entry and the rotation
            return True
        self.close()
        return self._open()

    def close(self) -> None:
        """Let go of the file."""
        if self._reader is not None:
            self._reader.close()
        self._reader, self._inode, self._changed_ns = None, None, 0

    def _look(self) -> tuple[tuple[int, int], int] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116 -- hot path, no Path objects
        except FileNotFoundError:
            return None  # between two names
        return (found.st_dev, found.st_ino), found.st_ctime_ns

    def _open(self) -> bool:
        from systemd._reader import _Reader  # noqa: PLC0415 -- third party, and not on every host

        found = self._look()
        if found is None:
            return False
        self._reader = _Reader(0, None, [self._path], None)
        self._reader.data_threshold = 2 * LINE_MAX
        self._inode, self._mapped = found[0], 0
        return True

    def _to_end(self) -> None:
        self._reader.seek_tail()
        self._reader._previous()  # noqa: SLF001 -- the end is behind the last entry only after this step

    def _drain(self, tally: Tally, now_unix_ns: int) -> bool:
        for _ in range(ENTRIES_PER_ROUND):
            if not self._reader._next():  # noqa: SLF001
                return False
            self._take(tally)
        self._mapped += ENTRIES_PER_ROUND
        if now_unix_ns - self._reader._get_realtime() * 1000 > BEHIND_NS:  # noqa: SLF001
            tally.lose()
            self._to_end()
        elif self._mapped >= ENTRIES_MAPPED:
            self._unmap()
        return True

    def _unmap(self) -> None:
        """Open the file anew at the same entry, so that what was read is not kept in memory."""
        cursor, inode, changed_ns = self._reader._get_cursor(), self._inode, self._changed_ns  # noqa: SLF001
        found = self._look()
        if found is None or found[0] != inode:
            return  # it was rotated away: no longer to be opened by this name, and soon at its end
        self.close()
        if self._open():
            self._reader.seek_cursor(cursor)
            self._reader._next()  # noqa: SLF001 -- lands on the entry itself
            self._changed_ns = changed_ns

    def _take(self, tally: Tally) -> None:
        source = self._source()
        if source is None:
            return
        said = tally.match(self._field("MESSAGE")[:LINE_MAX].decode(errors="replace"), source)
        if said is not None:
            writer = self._writer() if source is not LineSource.KERNEL else _NOBODY
            tally.add(said, writer, self._reader._get_realtime() * 1000)  # noqa: SLF001

    def _source(self) -> LineSource | None:
        """Return whose line this is, None where it is nobody's that matters."""
        if self._field("_TRANSPORT") == b"kernel":
            return LineSource.KERNEL
        if self._field("_COMM").startswith(_PROGRAMS):
            return LineSource.PROGRAM
        if self._field("_PID") == b"1":
            return LineSource.MANAGER
        if self._units and not self._units.isdisjoint(map(self._field, _UNITS)):
            return LineSource.PROGRAM
        return None

    def _writer(self) -> Writer:
        pid, name = self._field("_PID"), self._field("_COMM").decode(errors="replace")
        if name in ENGINES:
            container = self._field("CONTAINER_ID_FULL")
            return Writer(container_id=container.decode()) if _CONTAINER.fullmatch(container) else _NOBODY
        if pid == b"1":
            unit = self._field("UNIT").decode(errors="replace")
            return Writer(cgroup_path=f"/system.slice/{unit}") if unit else _NOBODY
        path = self._field("_SYSTEMD_CGROUP").decode(errors="replace")
        return Writer(
            pid=int(pid) if pid.isdigit() and len(pid) < 11 else None,
            name=name or None,
            cgroup_path=path if path.startswith("/") else None,
        )

    def _field(self, name: str) -> bytes:
        try:
            value = self._reader._get(name)  # noqa: SLF001
        except (KeyError, OSError):
            return b""  # absent, or of an entry that was rotated away
        return value if isinstance(value, bytes) else b""


class Journal:
    """The journal of the running system, in memory and on disk. Opened, read and closed by one thread."""

    def __init__(
        self,
        *,
        units: Sequence[str] = (),
        folders: Sequence[Path] = FOLDERS,
        machine_id: Path = MACHINE_ID,
    ) -> None:
        """`units` are read whatever their programs are called."""
        self._units = frozenset(unit.encode() for unit in units)
        self._folders = tuple(folders)
        self._machine_id = machine_id
        self._files: tuple[JournalFile, ...] = ()
        self._of_users: tuple[JournalFile, ...] = ()
        self._at: tuple[Path, ...] = ()
        self._left_out = 0

    def __repr__(self) -> str:
        return f"Journal({[*self._files, *self._of_users]})"

    def open(self) -> None:
        """Go to the end of the journal; raise SensorBlind."""
        try:
            import systemd._reader  # noqa: F401, PLC0415
        except ImportError as error:
            raise SensorBlind(BlindReason.NO_LIBRARY, f"import systemd-python: {error}") from error
        try:
            machine = self._machine_id.read_text().strip()[:64]
        except OSError:
            machine = ""
        if not machine or not any(folder.is_dir() for folder in self._folders):
            raise SensorBlind(BlindReason.UNSUPPORTED_PLATFORM, "this host keeps no journal")
        self._at = tuple(folder / machine for folder in self._folders)
        self._files = tuple(JournalFile(folder / "system.journal", self._units) for folder in self._at)
        try:
            begun = [file.begin() for file in self._files]
            if not any(begun):
                raise SensorBlind(BlindReason.NO_PRIVILEGE, "the journal is for the group systemd-journal")
            self._look_for_users(history=False)
        except PermissionError as error:
            raise SensorBlind(BlindReason.NO_PRIVILEGE, f"open the journal: {error}") from error
        except OSError as error:
            raise SensorBlind(BlindReason.READ_FAILED, f"open the journal: {error}") from error

    @property
    def left_out(self) -> str:
        """How many users' journals are not read."""
        return f"{self._left_out} journals of users are not read" if self._left_out else ""

    @property
    def changed(self) -> bool:
        """Whether anything was written since all of it was read."""
        return any(file.changed for file in (*self._files, *self._of_users))

    def wait(self, wake: int) -> None:
        """Wait for the descriptor `wake`; now and then look without it."""
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        poll.poll(GLANCE_MS)

    def read(self, tally: Tally, now_unix_ns: int) -> bool:
        """Count what was written, up to a bound; return whether there is more. Raise SensorBlind."""
        more = False
        try:
            self._look_for_users(history=True)
            for file in (*self._files, *self._of_users):
                more |= file.read(tally, now_unix_ns)
        except OSError as error:
            raise SensorBlind(BlindReason.READ_FAILED, f"read the journal: {error}") from error
        return more

    def close(self) -> None:
        """Let go of the journal's files."""
        for file in (*self._files, *self._of_users):
            file.close()

    def _look_for_users(self, *, history: bool) -> None:
        """Take journals of users that are new; of those that come later, what is in them is new as well."""
        known = {file.path for file in self._of_users}
        fresh: list[tuple[int, str]] = []
        for folder in self._at:
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                fresh += [
                    (entry.stat().st_mtime_ns, entry.path)
                    for entry in entries
                    if _OF_A_USER.fullmatch(entry.name) and entry.path not in known
                ]
        taken: list[JournalFile] = []
        for _, path in sorted(fresh, reverse=True)[: USERS_MAX - len(known)]:
            file = JournalFile(Path(path), self._units)
            with contextlib.suppress(OSError):  # not for us, or only being made: seen again the next time
                if file.begin(history=history):
                    taken.append(file)
        self._of_users = (*self._of_users, *taken)
        self._left_out = len(fresh) - len(taken)
