"""A PostgreSQL cluster of our own in a temporary folder, on a Unix socket, for tests and measurements.

It runs as `nobody` when we are root, because the server refuses root. It does not wait for the disk
(fsync=off) unless told to: a killed server loses nothing by that, only a machine without power does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

NOBODY = 65534
_UNPACKED = Path(__file__).resolve().parent.parent / ".venv/postgresql"


@cache
def programs() -> Path | None:
    """Return the folder of the server's programs; None when they are not here or nobody may run them."""
    for root in (Path("/usr/lib/postgresql"), _UNPACKED / "usr/lib/postgresql"):
        if found := sorted(root.glob("*/bin/initdb")):
            folder = found[-1].parent
            if os.geteuid() or all(each.stat().st_mode & 0o001 for each in (folder, *folder.parents)):
                return folder
    return None


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster in `folder`, whose socket is there too."""

    folder: Path
    programs: Path
    fsync: bool = False

    def info(self, database: str) -> str:
        """Return how to connect to `database`."""
        return f"postgresql:///{database}?host={self.folder}&user=admin"

    def create(self, database: str) -> str:
        """Make an empty database, and return how to connect to it."""
        self._run("psql", "-q", "-h", self.folder, "-U", "admin", "-d", "postgres", "-c",
                  f"CREATE DATABASE {database} TEMPLATE template0 STRATEGY file_copy")  # fmt: skip
        return self.info(database)

    def make(self) -> None:
        """Make the cluster's files."""
        self._run("initdb", "-D", self.folder / "data", "-A", "trust", "-U", "admin", "-E", "UTF8",
                  "--no-sync", "--no-locale")  # fmt: skip

    def start(self) -> None:
        """Start the server, and return once it answers."""
        options = (
            f"-k {self.folder} -c listen_addresses= -c fsync={'on' if self.fsync else 'off'} "
            "-c max_connections=60 -c shared_buffers=64MB"
        )
        self._run("pg_ctl", "-D", self.folder / "data", "-w", "-s", "-l", self.folder / "log", "-o", options,
                  "start")  # fmt: skip

    def stop(self, mode: str = "immediate") -> None:
        """Stop the server as `pg_ctl stop -m MODE` does."""
        self._run("pg_ctl", "-D", self.folder / "data", "-w", "-s", "-m", mode, "stop")

    def kill(self) -> None:
        """Kill the first process of the server with SIGKILL; the others end by themselves."""
        os.kill(self.pid(), signal.SIGKILL)

    def pid(self) -> int:
        """Return the first process of the server."""
        return int((self.folder / "data/postmaster.pid").read_text().partition("\n")[0])

    def _run(self, program: str, *arguments: str | Path) -> None:
        drop = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
        environment = {**os.environ, "LC_ALL": "C"}
        if libraries := ":".join(str(each) for each in _UNPACKED.glob("usr/lib/*-linux-gnu")):
            environment["LD_LIBRARY_PATH"] = libraries
        command = [*(drop if os.geteuid() == 0 else []), self.programs / program, *arguments]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=60, cwd=self.folder, env=environment
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr.strip()}")


@contextmanager
def cluster(*, fsync: bool = False, parent: Path | None = None) -> Iterator[Cluster]:
    """Run a new cluster while inside; `programs` has to find its programs."""
    found = programs()
    if found is None:
        raise RuntimeError("PostgreSQL is not here (dev/setup.sh tests)")
    folder = Path(tempfile.mkdtemp(prefix="nanobot-pg-", dir=parent))  # pytest's own are for root alone
    folder.chmod(0o711)
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    made = Cluster(folder, found, fsync)
    try:
        made.make()
        made.start()
        yield made
    finally:
        with contextlib.suppress(RuntimeError):
            made.stop()
        shutil.rmtree(folder, ignore_errors=True)
