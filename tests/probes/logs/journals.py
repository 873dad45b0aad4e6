"""Journal files made by systemd itself: the tests write export format, systemd-journal-remote stores it."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Final

REMOTE: Final = Path("/lib/systemd/systemd-journal-remote")
BOOT: Final = "0123456789abcdef0123456789abcdef"


class HostJournal:
    """The journal of a host: one file that grows by whole entries and is rotated as journald does it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "journal"
        self.machine_id = folder / "machine-id"
        self.machine_id.write_text("m\n")
        (self.folder / "m").mkdir(parents=True)
        self.file = self.folder / "m/system.journal"
        self._serial = 0
        self.write({"MESSAGE": "the journal begins", "_TRANSPORT": "kernel"})

    def write(self, *entries: dict[str, str | bytes], user: int | None = None) -> None:
        """Append entries, a microsecond apart; those of a regular account go to its own file."""
        exported = b"".join(self._exported(entry) for entry in entries)
        file = self.file if user is None else self.of_user(user)
        subprocess.run([REMOTE, "-o", file, "-"], input=exported, check=True, capture_output=True, timeout=30)

    def of_user(self, uid: int) -> Path:
        """Return the file of a regular account."""
        return self.file.with_name(f"user-{uid}.journal")

    def rotate(self) -> None:
        """Rename the file; the next entry begins a new one."""
        self.file.rename(self.file.with_name(f"system@{self._serial:032x}-0-0.journal"))

    def _exported(self, entry: dict[str, str | bytes]) -> bytes:
        self._serial += 1
        lines = [
            f"__REALTIME_TIMESTAMP={time.time_ns() // 1000 + self._serial}".encode(),
            f"__MONOTONIC_TIMESTAMP={self._serial}".encode(),
            f"_BOOT_ID={BOOT}".encode(),
        ]
        for name, value in entry.items():
            raw = value if isinstance(value, bytes) else value.encode()
            if b"\n" in raw:  # the binary form of the format: the name, the size, the bytes
                lines.append(name.encode() + b"\n" + len(raw).to_bytes(8, "little") + raw)
            else:
                lines.append(name.encode() + b"=" + raw)
        return b"\n".join(lines) + b"\n\n"


def kernel(text: str) -> dict[str, str | bytes]:
    """Return a line of the kernel."""
    return {"MESSAGE": text, "_TRANSPORT": "kernel", "SYSLOG_IDENTIFIER": "kernel"}


def program(
    text: str, *, name: str = "vllm", unit: str = "vllm.service", pid: int = 4194000
) -> dict[str, str | bytes]:
    """Return a line that a service wrote to its output."""
    return {
        "MESSAGE": text,
        "_TRANSPORT": "stdout",
        "_PID": str(pid),
        "_COMM": name,
        "_SYSTEMD_CGROUP": f"/system.slice/{unit}",
        "_SYSTEMD_UNIT": unit,
    }
