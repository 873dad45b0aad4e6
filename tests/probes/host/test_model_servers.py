"""Which model servers run: told by their command lines, on made-up and on real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from probes.host.cgroups import CgroupPaths
from probes.host.identity import Identifier
from probes.host.model_servers import ModelServer, Servers, looked_at, running
from probes.observation import Origin, ServerKind


def process(proc: Path, pid: int, name: str, *arguments: str) -> None:
    """Write what /proc says of one process."""
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    (folder / "comm").write_text(name + "\n")
    (folder / "cmdline").write_bytes(b"".join(a.encode() + b"\0" for a in arguments))
    (folder / "cgroup").write_text("0::/docker/x\n")
    (folder / "stat").write_text(f"{pid} ({name}) S " + " ".join(str(n) for n in range(1, 50)))


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("vllm", ("/usr/bin/python3", "/usr/local/bin/vllm", "serve", "m", "--port", "8123"), 8123),
        ("vllm", ("/usr/bin/python3", "/usr/local/bin/vllm", "serve", "m", "--port=8124"), 8124),
        ("python3", ("python3", "-m", "vllm.entrypoints.openai.api_server"), 8000),
        ("vllm", ("vllm", "serve", "m", "--port", "99999"), 8000),
        ("vllm", ("vllm", "serve", "m", "--port"), 8000),
        ("ollama", ("/usr/bin/ollama", "serve"), 11434),
        ("litellm", ("litellm", "--config", "f", "--port", "4001"), 4001),
        ("llama-server", ("/usr/bin/llama-server", "-m", "f"), 8080),
        ("trtllm-serve", ("trtllm-serve", "m", "--port", "8355"), 8355),
    ],
)
def test_finds_a_server_and_its_port(
    tmp_path: Path, name: str, arguments: tuple[str, ...], expected: int
) -> None:
    """The port option wins; without one, or with nonsense in it, the kind's own default stands."""
    process(tmp_path, 7, name, *arguments)
    assert [server.port for server in running(tmp_path)] == [expected]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("VLLM::EngineCor", ("VLLM::EngineCore",)),
        ("ray::IDLE", ("ray::IDLE",)),
        ("llama-server", ("/usr/lib/ollama/llama-server", "--port", "40001")),
        ("ollama", ("/usr/bin/ollama", "runner", "--port", "40001")),
        ("postgres", ("postgres",)),
        ("vim", ("vim", "vllm.py")),
        ("bash", ()),
    ],
)
def test_workers_and_others_serve_nobody(tmp_path: Path, name: str, arguments: tuple[str, ...]) -> None:
    """What only works for a server, or is none, is no suggestion."""
    process(tmp_path, 7, name, *arguments)
    assert running(tmp_path) == ()


@pytest.mark.parametrize("name", ["gcs_server", "raylet"])
def test_a_clusters_own_processes_are_companions(tmp_path: Path, name: str) -> None:
    """They run no model themselves, and what does needs them; the workers of the cluster are none."""
    process(tmp_path, 7, name, f"/venv/ray/core/src/ray/{name}/{name}", "--log_dir=/tmp/ray")
    process(tmp_path, 8, "ray::Worker", "ray::Worker")
    assert running(tmp_path) == ()
    assert looked_at(tmp_path, 7, companions=True) == ModelServer(ServerKind.RAY, 7, 6379)
    assert looked_at(tmp_path, 8, companions=True) is None


def test_a_process_that_has_ended_is_no_server(tmp_path: Path) -> None:
    """Until its parent asks how, it keeps its name, and has no command line any more."""
    process(tmp_path, 7, "vllm")
    process(tmp_path, 8, "raylet")
    assert running(tmp_path) == ()
    assert [looked_at(tmp_path, pid, companions=True) for pid in (7, 8)] == [None, None]


def test_a_system_without_proc_has_no_servers(tmp_path: Path) -> None:
    """macOS has none, and nothing fails."""
    assert running(tmp_path / "none") == ()


def test_sees_a_real_process() -> None:
    """A process of this machine that was started like vLLM is found by its pid."""
    code = "import time; time.sleep(60)"
    with subprocess.Popen(
        ["python3", "-c", code, "serve", "--port", "8765"],
        executable=sys.executable,
        env={**os.environ, "PYTHONNOUSERSITE": "1"},
    ) as plain:
        try:
            assert plain.pid not in {server.pid for server in running()}
        finally:
            plain.kill()
    named = subprocess.Popen(["vllm", "-c", code, "--port", "8765"], executable=sys.executable)
    try:
        deadline = time.monotonic() + 10
        while not Path(f"/proc/{named.pid}/cmdline").read_bytes().startswith(b"vllm"):
            assert time.monotonic() < deadline
        assert ModelServer(ServerKind.VLLM, named.pid, 8765) in running()
    finally:
        named.kill()
        named.wait()


def servers(tmp_path: Path, *pids: int) -> tuple[Servers, int]:
    """Return the servers of a made-up cgroup that holds `pids`, and its id."""
    root = tmp_path / "cgroup"
    folder = root / "docker" / ("a" * 64)
    folder.mkdir(parents=True)
    (folder / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
    paths = CgroupPaths(root=root, monotonic=lambda: 0.0)
    found = Servers(
        identifier=Identifier(cgroups=paths, proc=tmp_path / "proc"), root=root, monotonic=lambda: 0.0
    )
    return found, folder.stat().st_ino


def test_the_server_of_a_container_stands_out(tmp_path: Path) -> None:
    """Among a shell, a server and its workers the server's own kind is told, with the oldest process."""
    process(tmp_path / "proc", 10, "sh", "sh", "-c", "run")
    process(tmp_path / "proc", 11, "vllm", "vllm", "serve", "m")
    process(tmp_path / "proc", 12, "VLLM::EngineCor", "VLLM::EngineCore")
    found, cgroup_id = servers(tmp_path, 10, 11, 12)
    origin = found.origin(cgroup_id)
    assert (origin.server, origin.pid, origin.container_id) == (ServerKind.VLLM, 11, "a" * 64)


def test_two_kinds_in_one_cgroup_are_nobody(tmp_path: Path) -> None:
    """Where it cannot be told which of them served, no process is named and no kind."""
    process(tmp_path / "proc", 11, "vllm", "vllm", "serve", "m")
    process(tmp_path / "proc", 12, "ollama", "ollama", "serve")
    found, cgroup_id = servers(tmp_path, 11, 12)
    origin = found.origin(cgroup_id)
    assert (origin.server, origin.pid, origin.container_id) == (ServerKind.OTHER, None, "a" * 64)


def test_a_lone_process_is_named(tmp_path: Path) -> None:
    """One process in the cgroup is who served, whatever it is."""
    process(tmp_path / "proc", 11, "node", "node", "server.js")
    found, cgroup_id = servers(tmp_path, 11)
    assert found.origin(cgroup_id).process_name == "node"


def test_an_unknown_cgroup_is_unknown(tmp_path: Path) -> None:
    """No id, and an id that is not there, name nobody."""
    found, _ = servers(tmp_path)
    assert found.origin(0) == Origin()
    assert found.origin(987_654_321_987).pid is None
