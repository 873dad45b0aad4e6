"""Who a process is, from hostile and friendly /proc text."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from probes.host.cgroups import CgroupPaths
from probes.host.identity import Identifier, Place, decode_name, paths_of, place_of, server_kind
from probes.observation import CgroupId, Origin, ServerKind

_ID = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("path", "unit", "container"),
    [
        ("/system.slice/vllm.service", "vllm.service", None),
        ("/system.slice/vllm.service/payload", "vllm.service", None),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/ollama.service", "ollama.service", None),
        ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope", None),
        (f"/system.slice/docker-{_ID}.scope", None, _ID),
        (f"/docker/{_ID}", None, _ID),
        (f"/docker/{_ID}/system.slice/inner.service", None, _ID),
        (f"/machine.slice/libpod-{_ID}.scope/container", None, _ID),
        (f"/machine.slice/libpod-conmon-{_ID}.scope", f"libpod-conmon-{_ID}.scope", None),
        (f"/kubepods.slice/kubepods-burstable.slice/cri-containerd-{_ID}.scope", None, _ID),
        (f"/kubepods/burstable/pod7f/{_ID}", None, _ID),
        (f"/system.slice/containerd.service/kubepods-pod7.slice:cri-containerd:{_ID}", None, _ID),
        (f"/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{_ID}.scope", None, _ID),
        (f"/docker/{_ID[:-1]}", None, None),
        ("/", None, None),
        ("", None, None),
    ],
)
def test_reads_unit_and_container_from_a_cgroup_path(
    path: str, unit: str | None, container: str | None
) -> None:
    """Both ways to name docker, containerd, podman and Kubernetes cgroups; else the innermost unit."""
    assert place_of(path) == Place(unit, container)


@given(st.text(max_size=300))
def test_any_cgroup_path_is_read_or_left(path: str) -> None:
    """No path does more than to say nothing."""
    place = place_of(path)
    assert place.container_id is None or len(place.container_id) == 64


def test_reads_hybrid_cgroup_files() -> None:
    """The v2 path is told apart from v1's, and systemd's own comes first among these."""
    text = "4:memory:/docker/x\n2:name=systemd:/system.slice/a.service\n0::/two\nbroken\n9:cpu:relative\n"
    assert paths_of(text) == ("/two", ("/system.slice/a.service", "/docker/x"))
    assert paths_of("") == (None, ())


@pytest.mark.parametrize(
    ("name", "arguments", "kind"),
    [
        ("VLLM::EngineCore", ["VLLM::EngineCore_0"], ServerKind.VLLM),
        ("vllm", ["/usr/bin/python3", "/opt/vllm/bin/vllm", "serve", "m"], ServerKind.VLLM),
        ("python3", ["python3", "-m", "vllm.entrypoints.openai.api_server"], ServerKind.VLLM),
        ("trtllm-serve", ["/usr/bin/python3", "/usr/local/bin/trtllm-serve", "m"], ServerKind.TENSORRT_LLM),
        ("ollama", ["/usr/bin/ollama", "serve"], ServerKind.OLLAMA),
        ("ollama_llama_se", ["/tmp/runners/cuda_v11/ollama_llama_server"], ServerKind.OLLAMA),
        ("llama-server", ["/usr/lib/ollama/llama-server", "--model", "x"], ServerKind.OLLAMA),
        ("llama-server", ["/usr/local/bin/llama-server", "-m", "/ollama/x"], ServerKind.LLAMA_CPP),
        ("litellm", ["/usr/bin/python3", "/usr/bin/litellm", "--config", "c"], ServerKind.LITELLM),
        ("uvicorn", ["/usr/bin/python3", "/usr/bin/uvicorn", "open_webui.main:app"], ServerKind.OPEN_WEBUI),
        ("uvicorn", ["uvicorn", "--factory", "speaches.main:create_app"], ServerKind.WHISPER),
        ("raylet", ["/x/raylet"], ServerKind.RAY),
        ("ray::Worker.run", ["ray::Worker.run"], ServerKind.RAY),
        ("gcs_server", ["/x/gcs_server"], ServerKind.RAY),
        ("postgres", ["postgres: checkpointer"], ServerKind.POSTGRESQL),
        ("cat", ["cat", "/var/log/vllm"], ServerKind.OTHER),
        ("vi", ["vi", "ollama"], ServerKind.OTHER),
        ("", [], ServerKind.OTHER),
    ],
)
def test_recognises_model_servers(name: str, arguments: list[str], kind: ServerKind) -> None:
    """By what it calls itself or what its interpreter runs; an argument alone makes no server."""
    assert server_kind(name, arguments) is kind


@given(st.binary(max_size=16))
def test_any_process_name_becomes_text(raw: bytes) -> None:
    """Names are bytes that the process chose."""
    name = decode_name(raw)
    assert "\0" not in name
    name.encode()


def _process(proc: Path, pid: int, *, comm: bytes, start: int, cgroup: str = "0::/a.service\n") -> None:
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    tail = b"S " + b"0 " * 18 + str(start).encode() + b" 0 0\n"
    (folder / "stat").write_bytes(str(pid).encode() + b" (" + comm + b") " + tail)
    (folder / "comm").write_bytes(comm + b"\n")
    (folder / "cgroup").write_text(cgroup)
    (folder / "cmdline").write_bytes(b"/usr/bin/ollama\0serve\0--token\0secret\0")


def _identifier(tmp_path: Path) -> Identifier:
    return Identifier(cgroups=CgroupPaths(root=None, monotonic=lambda: 0.0), proc=tmp_path)


@pytest.mark.parametrize("comm", [b"ollama", b"a) S 1 (b", b"x\ny", b") 1 2 3", b"\xff\xfe(", b""])
def test_a_hostile_name_does_not_move_the_start_time(tmp_path: Path, comm: bytes) -> None:
    """The start time is found behind the last bracket, whatever the name holds."""
    _process(tmp_path, 7, comm=comm, start=4711)
    origin = _identifier(tmp_path).origin(pid=7)
    assert (origin.start_ticks, origin.unit) == (4711, "a.service")
    assert origin.process_name == comm.decode(errors="replace")


def test_no_argument_leaves(tmp_path: Path) -> None:
    """The command line is used to recognise the server and shows up nowhere."""
    _process(tmp_path, 7, comm=b"ollama", start=1)
    origin = _identifier(tmp_path).origin(pid=7)
    assert origin.server is ServerKind.OLLAMA
    assert "secret" not in repr(origin)


@pytest.mark.parametrize(("state", "stuck"), [("D", False), ("S", True)])
def test_a_command_line_that_never_comes_names_no_server_and_holds_up_nobody(
    tmp_path: Path, state: str, stuck: bool
) -> None:
    """A process that is stuck with the lock of its memory in hand is known by the rest, and asked once."""
    _process(tmp_path, 7, comm=b"python3", start=1)
    stat = tmp_path / "7/stat"
    stat.write_text(stat.read_text().replace(") S ", f") {state} "))
    asked, let_go = [], threading.Event()

    def read(path: str) -> bytes:
        asked.append(path)
        assert let_go.wait(30)
        return b"python3\0-m\0vllm\0"

    paths = CgroupPaths(root=None, monotonic=lambda: 0.0)
    identifier = Identifier(cgroups=paths, proc=tmp_path, read=read)
    for _ in range(3):
        origin = identifier.origin(pid=7, stuck=stuck)
        assert (origin.server, origin.unit, origin.start_ticks) == (ServerKind.OTHER, "a.service", 1)
    assert asked == [f"{tmp_path}/7/cmdline"]
    let_go.set()
    while identifier.origin(pid=7, stuck=stuck).server is not ServerKind.VLLM:
        pass


def test_a_later_process_with_the_same_number_is_not_taken_for_it(tmp_path: Path) -> None:
    """A process that began after the event is somebody else; what the event said remains."""
    ticks = os.sysconf("SC_CLK_TCK")
    _process(tmp_path, 7, comm=b"innocent", start=100 * ticks)
    identifier = _identifier(tmp_path)
    later = identifier.origin(pid=7, process_name=b"victim\0", at_boot_ns=50 * 10**9)
    same = identifier.origin(pid=7, process_name=b"victim\0", at_boot_ns=150 * 10**9)
    assert (later.process_name, later.start_ticks, later.unit) == ("victim", None, None)
    assert (same.process_name, same.start_ticks, same.unit) == ("victim", 100 * ticks, "a.service")


def test_the_dead_are_known_by_their_cgroup(tmp_path: Path) -> None:
    """A process that is gone still has the unit of the cgroup that the event named."""
    (tmp_path / "cg/system.slice/gone.service").mkdir(parents=True)
    inode = (tmp_path / "cg/system.slice/gone.service").stat().st_ino
    identifier = Identifier(
        cgroups=CgroupPaths(root=tmp_path / "cg", monotonic=lambda: 0.0), proc=tmp_path / "proc"
    )
    origin = identifier.origin(pid=99, cgroup_id=CgroupId(inode))
    assert (origin.unit, origin.cgroup_path, origin.start_ticks) == (
        "gone.service",
        "/system.slice/gone.service",
        None,
    )


@given(files=st.dictionaries(st.sampled_from(["stat", "comm", "cgroup", "cmdline"]), st.binary(max_size=200)))
def test_any_proc_text_gives_an_origin(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    """Half a file, no file, any bytes: an Origin comes out."""
    proc = tmp_path_factory.mktemp("proc")
    (proc / "5").mkdir()
    for name, content in files.items():
        (proc / "5" / name).write_bytes(content)
    assert isinstance(_identifier(proc).origin(pid=5, at_boot_ns=10**18), Origin)


@pytest.mark.skipif(sys.platform != "linux", reason="reads this process's own /proc")
def test_knows_this_process() -> None:
    """The real thing, without any privilege."""
    origin = Identifier(cgroups=CgroupPaths(root=None, monotonic=lambda: 0.0)).origin(pid=os.getpid())
    assert origin.start_ticks is not None
    assert origin.process_name
