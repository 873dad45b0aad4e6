"""`make run` for real: up, answering, a fault in the queue, and gone without a trace."""

from __future__ import annotations

import json
import os
import pwd
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.system import private_clone

FIRST_PORT = 21000 + os.getpid() % 2000 * 4  # two runs of the tests on one machine do not meet
FAULT_PORT = FIRST_PORT + 3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform != "linux", reason="Linux"),
]


class Run:
    """A development run in `clone`, as the user `uid`."""

    def __init__(self, clone: Path, *, uid: int) -> None:
        self.clone = clone
        self._prefix = [] if uid == os.geteuid() else _as_user(uid)
        self._said = ""
        self._process = subprocess.Popen(
            [*self._prefix, str(clone / ".venv/bin/python"), "-m", "dev.up", "--plain",
             "--first-port", str(FIRST_PORT)],
            cwd=clone, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def until(self, pattern: str, *, within_s: float = 60.0) -> str:
        """Read what the run says until a line matches `pattern`, and return the line."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + within_s
        while not (found := re.search(rf"^.*{pattern}.*$", self._said, re.MULTILINE)):
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self._process.stdout.fileno(), 65536).decode() if ready else ""
            assert chunk, f"no line {pattern!r} in:\n{self._said}"
            self._said += chunk
        return found.group()

    def ctl(self, *words: str) -> list[dict[str, Any]]:
        """Return what the clone's own nanobotctl says, with no options but --json."""
        done = subprocess.run(
            [*self._prefix, str(self.clone / ".venv/bin/nanobotctl"), *words, "--json"],
            check=False, capture_output=True, text=True, cwd="/", timeout=30,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert isinstance(answer, list)
        return answer

    def descendants(self) -> list[int]:
        """Return the processes that the run has started."""
        found = []
        waiting = [self._process.pid]
        while waiting:
            pid = waiting.pop()
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            found += [int(child) for child in children]
            waiting += [int(child) for child in children]
        return found

    def interrupt(self) -> tuple[int, float]:
        """Press Ctrl-C; return the exit status and the seconds that the end took."""
        started = time.monotonic()
        self._process.send_signal(signal.SIGINT)
        rest, _ = self._process.communicate(timeout=30)
        self._said += rest.decode()
        return self._process.returncode, time.monotonic() - started

    def close(self) -> None:
        """End the run if it is still there."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    @property
    def said(self) -> str:
        """Return all that the run has printed."""
        return self._said


@contextmanager
def running(uid: int) -> Iterator[Run]:
    folder = Path(tempfile.mkdtemp(prefix="nanobot-clone-"))
    try:
        run = Run(private_clone.make(folder, uid=uid), uid=uid)
        try:
            yield run
        finally:
            run.close()
    finally:
        link = folder / "home/host-nanobot/.run"
        if link.is_symlink():
            shutil.rmtree(link.resolve(), ignore_errors=True)
        shutil.rmtree(folder)


def _as_user(uid: int) -> list[str]:
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _mounted() -> list[str]:
    return sorted(line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines())


def _a_careless_server() -> socket.socket:
    """Listen on every interface."""
    return socket.create_server(("0.0.0.0", FAULT_PORT))


def _is_told_of_it(run: Run) -> None:
    run.until(rf"exposure\.off_mesh_listener.*:{FAULT_PORT}")
    entries = run.ctl("queue")
    ours = [entry for entry in entries if entry["subject"]["name"].find(f":{FAULT_PORT}") >= 0]
    assert [entry["fault_class"] for entry in ours] == ["exposure.off_mesh_listener"]


def _ends_without_a_trace(run: Run, mounts: list[str]) -> None:
    started = run.descendants()
    assert len(started) >= 2
    status, took_s = run.interrupt()
    assert status == 0, run.said
    assert took_s < 10
    assert [pid for pid in started if _alive(pid)] == []
    assert _mounted() == mounts
    assert not (run.clone / ".venv/etc/nanobot/ctl.toml").exists()
    for port in range(FIRST_PORT, FIRST_PORT + 3):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.root
@pytest.mark.ebpf
def test_root_in_a_private_home_gets_every_sensor_and_an_agent_without_capabilities() -> None:
    """The agent really drops, although no other user may enter the clone; Ctrl-C leaves nothing."""
    mounts = _mounted()
    with running(0) as run:
        run.until(r"up: http://127\.0\.0\.1:")
        assert run.ctl("queue") is not None
        run.until(r"^agent: running \(uid 65534, capabilities none\)")
        run.until(r"^orchestrator: running \(uid 1, capabilities none\)")
        run.until(r"^loader: done")
        for sensor in ("device_open", "fatal_signal", "listener", "oom_kill"):
            run.until(rf"sensor kernel\.{sensor}: seeing")
        with _a_careless_server():
            _is_told_of_it(run)
        _ends_without_a_trace(run, mounts)


@pytest.mark.root
def test_an_ordinary_user_gets_what_is_left_and_is_told_what_is_not() -> None:
    """Without privilege the kernel sensors are blind, with the reason; the host's own table still sees."""
    mounts = _mounted()
    with _a_careless_server(), running(pwd.getpwnam("nobody").pw_uid) as run:
        run.until(r"up: http://127\.0\.0\.1:")
        run.until(r"no kernel sensors: not root")
        run.until(r"sensor kernel\.device_open: blind: ")
        run.until(r"sensor host\.listeners: seeing")
        _is_told_of_it(run)
        _ends_without_a_trace(run, mounts)


def test_a_port_that_is_taken_is_named() -> None:
    """The run does not start half, and says which port and what to do."""
    with socket.create_server(("127.0.0.1", FIRST_PORT + 2)):
        done = subprocess.run(
            [sys.executable, "-m", "dev.up", "--plain", "--first-port", str(FIRST_PORT)],
            check=False, capture_output=True, text=True, cwd=private_clone.CHECKOUT, timeout=60,
        )  # fmt: skip
    assert done.returncode == 1
    assert f"port {FIRST_PORT + 2} on 127.0.0.1 is taken" in done.stderr
