"""The parts of a development run as processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from dev.processes import Part, Processes, confined

SLEEPER = "import time; print('started', flush=True); time.sleep(600)"
TELLER = """
import signal, sys, time
def end(*_):
    print({name!r}, file=open({told!r}, "a"), flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("started", flush=True)
time.sleep(600)
"""
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]); {SLEEPER}"


def part(tmp_path: Path, name: str, code: str) -> Part:
    return Part(name=name, command=[sys.executable, "-c", code], log=tmp_path / f"{name}.log")


def until_started(log: Path, times: int = 1) -> None:
    deadline = time.monotonic() + 20
    while log.read_text().count("started") < times:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_ends_parts_last_started_first(tmp_path: Path) -> None:
    """Whoever depends on another part is gone before it."""
    told = tmp_path / "told"
    with Processes() as processes:
        running = [
            processes.start(part(tmp_path, name, TELLER.format(told=str(told), name=name)))
            for name in ("first", "second", "third")
        ]
        for one in running:
            until_started(one.part.log)
    assert told.read_text().split() == ["third", "second", "first"]
    assert [one.status for one in running] == [0, 0, 0]


def test_takes_along_what_a_part_started(tmp_path: Path) -> None:
    """A part's own children do not outlive it."""
    with Processes() as processes:
        running = processes.start(part(tmp_path, "parent", PARENT))
        until_started(running.part.log, times=2)
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    assert len(children) == 1
    deadline = time.monotonic() + 5
    while not gone(int(children[0])) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert gone(int(children[0])) or "Z" in Path(f"/proc/{children[0]}/stat").read_text()


def test_insists_when_a_part_does_not_end(tmp_path: Path) -> None:
    """A part that ignores SIGTERM is killed at the deadline."""
    processes = Processes()
    running = processes.start(part(tmp_path, "stubborn", STUBBORN))
    until_started(running.part.log)
    running.stop(deadline=time.monotonic() + 0.2)
    assert running.status == -signal.SIGKILL


def test_reports_status_and_last_words_of_a_part_that_failed(tmp_path: Path) -> None:
    """What a person needs to see why a part is gone."""
    with Processes() as processes:
        running = processes.start(part(tmp_path, "broken", "print('one'); print('two'); raise SystemExit(3)"))
        deadline = time.monotonic() + 20
        while running.status is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert (running.status, running.last_words(1)) == (3, "two")


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
def test_root_gives_each_part_only_its_capabilities(tmp_path: Path) -> None:
    """The kernel's own account of the process, not our intention, is what is shown."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    loader = Part(
        name="loader",
        command=["/bin/sleep", "60"],
        log=tmp_path / "l.log",
        capabilities=("bpf", "perfmon"),
    )
    agent = Part(name="agent", command=["/bin/sleep", "60"], log=tmp_path / "a.log", user="nobody")
    with Processes() as processes:
        shown = []
        for one in (loader, agent):
            running = processes.start(one)
            deadline = time.monotonic() + 5
            while Path(f"/proc/{running.pid}/comm").read_text() != "sleep\n" and time.monotonic() < deadline:
                time.sleep(0.01)
            shown.append(running.privilege())
    assert shown == ["uid 0, capabilities c000000000", "uid 65534, capabilities none"]


def test_dies_with_the_run_and_gains_nothing_by_executing(tmp_path: Path) -> None:
    """Also a run that is killed leaves nothing behind."""
    words = confined(part(tmp_path, "any", SLEEPER))
    if sys.platform == "linux" and words:
        assert words[:4] == ["setpriv", "--no-new-privs", "--pdeathsig", "TERM"]
    else:
        assert words == []
