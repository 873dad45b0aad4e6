"""Whom other sensors are told of: model servers with their processes, companions with their main one."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.host.cgroups import CgroupPaths
from probes.host.identity import Identifier
from probes.host.known_servers import KnownServers
from probes.host.model_servers import looked_at
from probes.host.servers import ServersSensor
from probes.observation import ServerKind
from probes.testing import instant


class Host:
    """A made-up /proc, and what a sensor posts of it."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.at_s, self.known = folder, 0.0, KnownServers()
        (folder / "self").mkdir()
        (folder / "self/stat").touch()
        self.process(1, "init")
        self.sensor = ServersSensor(
            identifier=Identifier(cgroups=CgroupPaths(root=None, monotonic=lambda: 0.0), proc=folder),
            root=None,
            known=self.known,
            proc=folder,
            monotonic=lambda: self.at_s,
        )

    def process(self, pid: int, *command: str, parent: int = 1, start: int = 100) -> None:
        """Start a process."""
        folder = self.proc / str(pid)
        folder.mkdir(exist_ok=True)
        (folder / "comm").write_text(command[0].rpartition("/")[2][:15] + "\n")
        (folder / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in command))
        (folder / "cgroup").write_text("0::/\n")
        (folder / "stat").write_text(f"{pid} (x) S {parent} {'0 ' * 17}{start} {'0 ' * 20}\n")

    def looks(self) -> list[tuple[int | None, int, tuple[int, ...], bool]]:
        """Let a search pass; return pid, port, processes and whether it is a companion."""
        self.at_s += 15.0
        self.sensor.read(instant(self.at_s))
        return [(one.origin.pid, one.port, one.pids, one.companion) for one in self.known()]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host on which nothing runs."""
    made = Host(tmp_path)
    made.sensor.open()
    return made


def test_a_server_comes_with_its_processes_and_companions_alone(host: Host) -> None:
    """A gateway and a database are looked after too, by their main process; backends work for it."""
    host.process(20, "vllm", "serve", "m", "--port", "8123")
    host.process(21, "VLLM::EngineCore", parent=20)
    host.process(30, "litellm", "--port", "4001")
    host.process(40, "/usr/lib/postgresql/15/bin/postgres", "-D", "/data")
    host.process(41, "postgres: walwriter", parent=40)
    host.looks()
    assert host.looks() == [
        (20, 8123, (20, 21), False),
        (30, 4001, (30,), True),
        (40, 5432, (40,), True),
    ]


def test_a_companion_is_kept_while_it_lives(host: Host) -> None:
    """It is not looked at again and again; another process of its number is another."""
    host.process(30, "litellm")
    assert [host.looks() for _ in range(6)] == [[(30, 4000, (30,), True)]] * 6
    host.process(30, "bash", start=900)
    assert host.looks() == []


def test_nobody_is_known_after_the_end(host: Host) -> None:
    """Who was told of the servers of a closed sensor would be told of the dead."""
    host.process(30, "litellm")
    host.looks()
    host.sensor.close()
    assert host.known() == ()


def test_companions_are_no_model_servers(host: Host) -> None:
    """Who suggests ports to watch does not suggest a database."""
    host.process(40, "postgres", "-D", "/data")
    assert looked_at(host.proc, 40) is None
    found = looked_at(host.proc, 40, companions=True)
    assert found is not None
    assert found.kind is ServerKind.POSTGRESQL


def test_companions_are_bounded(host: Host) -> None:
    """A host may run any number of databases."""
    for number in range(60):
        host.process(100 + number, "litellm")
    assert len(host.looks()) == 16
