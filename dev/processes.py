"""The parts of a run as processes: started with the least privilege, ended in reverse order, none left."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

STOP_S = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One program of the run: what to execute, as whom, with which capabilities at most, logging where."""

    name: str
    command: Sequence[str]
    log: Path
    user: str | None = None
    capabilities: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


class Running:
    """A started part."""

    def __init__(self, part: Part, process: subprocess.Popen[bytes]) -> None:
        self.part = part
        self._process = process

    def __repr__(self) -> str:
        return f"Running({self.part.name!r}, pid={self._process.pid}, status={self.status})"

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Return the exit status, None while it runs."""
        return self._process.poll()

    def privilege(self) -> str:
        """Say as whom the process runs and with which capabilities, as the kernel tells it."""
        try:
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        except OSError:
            return ""
        found = dict(line.split(":", 1) for line in lines if ":" in line)
        return f"uid {found['Uid'].split()[0]}, capabilities {found['CapEff'].strip().lstrip('0') or 'none'}"

    def last_words(self, lines: int = 5) -> str:
        """Return the end of its log."""
        try:
            return "\n".join(self.part.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    def stop(self, *, deadline: float) -> None:
        """Ask it to end, insist at `deadline` (monotonic seconds), and take its whole process group along."""
        if self.status is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=max(0.1, deadline - time.monotonic()))
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


class Processes:
    """Start parts in order; on exit end them in reverse order within one bounded time."""

    def __init__(self) -> None:
        self.running: list[Running] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        deadline = time.monotonic() + STOP_S
        while self.running:
            self.running.pop().stop(deadline=deadline)

    def start(self, part: Part) -> Running:
        """Start `part` in a process group of its own, so that a Ctrl-C on the terminal reaches only us."""
        part.log.parent.mkdir(parents=True, exist_ok=True)
        with part.log.open("ab") as log:
            process = subprocess.Popen(
                [*confined(part), *part.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**_plain_environment(), **part.environment},
                cwd="/",
            )
        running = Running(part, process)
        self.running.append(running)
        return running


def confined(part: Part) -> list[str]:
    """Return what to put before a command so that it holds `part.capabilities` at most and dies with us."""
    if sys.platform != "linux" or shutil.which("setpriv") is None:
        return []
    words = ["setpriv", "--no-new-privs", "--pdeathsig", "TERM"]
    if os.geteuid() == 0:
        allowed = "".join(f",+{name}" for name in part.capabilities)
        words += ["--inh-caps=-all", f"--bounding-set=-all{allowed}"]
        if part.user is not None:
            words += [f"--reuid={part.user}", f"--regid={_group_of(part.user)}", "--clear-groups"]
    return [*words, "--"]


def _group_of(user: str) -> str:
    import pwd  # noqa: PLC0415 - absent on platforms where this is never reached

    return str(pwd.getpwnam(user).pw_gid)


def _plain_environment() -> dict[str, str]:
    """Return an environment without the caller's secrets, editors and interpreter settings."""
    kept = ("PATH", "LANG", "LC_ALL", "TERM", "TZ", "NANOBOT_FAILPOINT", "BCC_KERNEL_SOURCE")
    return {name: os.environ[name] for name in kept if name in os.environ}
