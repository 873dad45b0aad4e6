"""The systemd journal as a source of lines; the only import of systemd-python's reader.

Only entries that may matter are asked for: the kernel's, the service manager's, those of container engines
and of programs by the names that model servers run under, and of units that the configuration names. So
whatever else a host logs costs no reading. Reading begins with what is written from now on.

`systemd.journal.Reader` fetches and converts all thirty fields of an entry, some forty microseconds; here the
two or three that matter are fetched with the methods of the class beneath it, two microseconds.

The fields whose names begin with an underscore are the journal's own word. `CONTAINER_ID_FULL` is what a
container engine says of whose output it passes on, so it is believed of such an engine alone
(systemd.journal-fields(7); Docker's and Podman's `journald` log drivers).
"""

from __future__ import annotations

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

ENTRIES_PER_ROUND: Final = 1000
BEHIND_NS: Final = 30_000_000_000
"""When the reader is further behind than this, it goes on with the newest entry and counts a loss."""

FOLDERS: Final = (Path("/run/log/journal"), Path("/var/log/journal"))

ENGINES: Final = ("conmon", "dockerd")
PROGRAMS: Final = (
    *("VLLM::EngineCor", "VLLM::Worker", "VLLM::Worker_TP", "gcs_server", "gunicorn", "llama-server"),
    *("litellm", "mpirun", "nvidia-containe", "nvidia-ctk", "ollama", "postgres", "pt_main_thread", "python"),
    *("python3", "python3.10", "python3.11", "python3.12", "python3.13", "ray", "raylet", "speaches"),
    *("trtllm-serve", "uvicorn", "vllm", "whisper"),
)
"""Names of processes (the kernel keeps 15 bytes of one) whose lines are read."""

_CONTAINER: Final = re.compile(rb"[0-9a-f]{64}")
_LOCAL_ONLY: Final = 1  # SD_JOURNAL_LOCAL_ONLY


class Journal:
    """Entries of the journal since it was opened. Opened, read and closed by one thread."""

    def __init__(
        self,
        *,
        units: Sequence[str] = (),
        folder: Path | None = None,
        folders: Sequence[Path] = FOLDERS,
    ) -> None:
        """`folder` is read instead of the host's own journal."""
        self._units = tuple(units)
        self._folder = folder
        self._folders = tuple(folders)
        self._reader: Any = None
        self._poll: select.poll | None = None

    def __repr__(self) -> str:
        where = self._folder or "the host's"
        return f"Journal({where}, {'open' if self._reader is not None else 'closed'})"

    def open(self) -> None:
        """Go to the end of the journal; raise SensorBlind."""
        try:
            from systemd._reader import _Reader  # noqa: PLC0415 -- third party, and not on every host
        except ImportError as error:
            raise SensorBlind(BlindReason.NO_LIBRARY, f"import systemd-python: {error}") from error
        if self._folder is None:
            _readable(self._folders)
        try:
            reader = (
                _Reader(_LOCAL_ONLY) if self._folder is None else _Reader(0, str(self._folder), None, None)
            )
            reader.data_threshold = 2 * LINE_MAX
            for index, match in enumerate(self._matches()):
                if index:
                    reader.add_disjunction()
                reader.add_match(match)
            reader.seek_tail()
            reader._previous()  # noqa: SLF001 -- the end is behind the last entry only after this step
            self._poll = select.poll()
            self._poll.register(reader.fileno(), reader.get_events())
        except OSError as error:
            raise SensorBlind(BlindReason.READ_FAILED, f"open the journal: {error}") from error
        self._reader = reader

    def wait(self, stop: int) -> None:
        """Wait until something is written to the journal, or the descriptor `stop` becomes readable."""
        assert self._poll is not None
        self._poll.register(stop, select.POLLIN)
        timeout = self._reader.get_timeout_ms()
        self._poll.poll(None if timeout < 0 else timeout)

    def read(self, tally: Tally, now_unix_ns: int) -> bool:
        """Count what was written, up to a bound; return whether there is more. Raise SensorBlind."""
        reader = self._reader
        try:
            reader.process()
            for _ in range(ENTRIES_PER_ROUND):
                if not reader._next():  # noqa: SLF001
                    return False
                self._take(tally)
            if now_unix_ns - reader._get_realtime() * 1000 > BEHIND_NS:  # noqa: SLF001
                reader.seek_tail()
                reader._previous()  # noqa: SLF001
                tally.lose()
        except OSError as error:
            raise SensorBlind(BlindReason.READ_FAILED, f"read the journal: {error}") from error
        return True

    def close(self) -> None:
        """Let go of the journal's files."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _matches(self) -> list[str]:
        names = sorted({"systemd", *ENGINES, *PROGRAMS})
        return [
            "_TRANSPORT=kernel",
            *(f"_COMM={name}" for name in names),
            *(f"_SYSTEMD_UNIT={unit}" for unit in self._units),
        ]

    def _take(self, tally: Tally) -> None:
        text = self._field("MESSAGE")[:LINE_MAX].decode(errors="replace")
        source = self._source()
        said = tally.match(text, source)
        if said is not None:
            writer = self._writer() if source is not LineSource.KERNEL else Writer()
            tally.add(said, writer, self._reader._get_realtime() * 1000)  # noqa: SLF001

    def _source(self) -> LineSource:
        if self._field("_TRANSPORT") == b"kernel":
            return LineSource.KERNEL
        return LineSource.MANAGER if self._field("_PID") == b"1" else LineSource.PROGRAM

    def _writer(self) -> Writer:
        pid, name = self._field("_PID"), self._field("_COMM").decode(errors="replace")
        if name in ENGINES:
            container = self._field("CONTAINER_ID_FULL")
            return Writer(container_id=container.decode()) if _CONTAINER.fullmatch(container) else Writer()
        if pid == b"1":
            unit = self._field("UNIT").decode(errors="replace")
            return Writer(cgroup_path=f"/system.slice/{unit}") if unit else Writer()
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


def _readable(folders: Sequence[Path]) -> None:
    """Raise SensorBlind where there is no journal of the system, or where we may not read it."""
    found = False
    for folder in folders:
        found = found or folder.is_dir()
        try:
            journals = [path for path in folder.glob("*/system.journal") if os.access(path, os.R_OK)]
        except OSError:
            continue
        if journals:
            return
    if found:
        raise SensorBlind(BlindReason.NO_PRIVILEGE, "the journal is for the group systemd-journal")
    raise SensorBlind(BlindReason.UNSUPPORTED_PLATFORM, "this host keeps no journal")
