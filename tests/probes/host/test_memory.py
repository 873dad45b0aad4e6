"""The memory controller's files as second witness, on made-up hierarchies."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, strategies as st

from probes.host.cgroups import CgroupMounts
from probes.host.memory import UNWITNESSED, MemoryFiles, MemoryWitness
from probes.observation import OomScope


def _v2(root: Path, path: str, *, limit: str, oom: int, kills: int) -> None:
    folder = root / path.lstrip("/")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.events.local").write_text(f"low 0\nhigh 0\nmax 9\noom {oom}\noom_kill {kills}\n")


def _v1(root: Path, path: str, *, limit: int, failcnt: int, kills: int) -> None:
    folder = root / path.lstrip("/")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory.failcnt").write_text(f"{failcnt}\n")
    (folder / "memory.oom_control").write_text(f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n")


_V1_NO_LIMIT = 9223372036854771712


def test_a_cgroup_that_met_its_limit_is_the_scope(tmp_path: Path) -> None:
    """v2: the limit, and the cgroup's own kills."""
    _v2(tmp_path, "/a", limit="1048576", oom=2, kills=3)
    files = MemoryFiles(mounts=CgroupMounts(tmp_path))
    assert files.witness(("/a",)) == MemoryWitness(OomScope.CGROUP, 1048576, 3)


def test_a_limit_above_counts(tmp_path: Path) -> None:
    """The slice ran out, not the service in it."""
    _v2(tmp_path, "/slice", limit="4096", oom=1, kills=0)
    _v2(tmp_path, "/slice/a", limit="max", oom=0, kills=1)
    files = MemoryFiles(mounts=CgroupMounts(tmp_path))
    assert files.witness(("/slice/a",)) == MemoryWitness(OomScope.CGROUP, 4096, 1)


def test_a_kill_without_a_met_limit_is_the_host_s(tmp_path: Path) -> None:
    """The counter of kills rises for a host-wide OOM too."""
    _v2(tmp_path, "/a", limit="1048576", oom=0, kills=1)
    files = MemoryFiles(mounts=CgroupMounts(tmp_path))
    assert files.witness(("/a",)) == MemoryWitness(OomScope.HOST, None, 1)


def test_v1_finds_the_cgroup_whose_counter_rose(tmp_path: Path) -> None:
    """On a hybrid host the event's path leads elsewhere."""
    _v1(tmp_path, "/docker/x", limit=4096, failcnt=7, kills=4)
    _v1(tmp_path, "/docker/y", limit=_V1_NO_LIMIT, failcnt=0, kills=0)
    files = MemoryFiles(mounts=CgroupMounts(Path("/nowhere"), (("memory", tmp_path),)))
    files.look()
    _v1(tmp_path, "/docker/x", limit=4096, failcnt=9, kills=5)
    assert files.witness(("/user.slice",)) == MemoryWitness(OomScope.CGROUP, 4096, 5)


def test_v1_knows_a_limit_that_was_met_together_with_swap(tmp_path: Path) -> None:
    """Where both have one limit, nothing counts a refusal; what was used at most says it."""
    _v1(tmp_path, "/docker/x", limit=4096, failcnt=0, kills=1)
    (tmp_path / "docker/x/memory.max_usage_in_bytes").write_text("4096\n")
    files = MemoryFiles(mounts=CgroupMounts(Path("/nowhere"), (("memory", tmp_path),)))
    assert files.witness(("/docker/x",)) == MemoryWitness(OomScope.CGROUP, 4096, 1)
    (tmp_path / "docker/x/memory.max_usage_in_bytes").write_text("4095\n")
    assert files.witness(("/docker/x",)) == MemoryWitness(OomScope.HOST, None, 1)


def test_two_counters_that_rose_witness_nothing_alone(tmp_path: Path) -> None:
    """Unknown is better than a guess."""
    files = MemoryFiles(mounts=CgroupMounts(tmp_path))
    _v2(tmp_path, "/a", limit="1", oom=1, kills=1)
    _v2(tmp_path, "/b", limit="1", oom=1, kills=1)
    assert files.witness(("/gone",)) == UNWITNESSED


def test_a_vanished_cgroup_witnesses_nothing(tmp_path: Path) -> None:
    """Nothing readable is unknown, neither the host's nor a cgroup's."""
    assert MemoryFiles(mounts=CgroupMounts(tmp_path)).witness(("/gone",)) == UNWITNESSED
    assert MemoryFiles(mounts=CgroupMounts(None)).witness(("/a",)) == UNWITNESSED


@given(
    st.dictionaries(
        st.sampled_from(["memory.max", "memory.events.local", "memory.events"]), st.binary(max_size=60)
    )
)
def test_any_content_is_read_or_unknown(tmp_path_factory: object, files: dict[str, bytes]) -> None:
    """No content of these files raises."""
    root: Path = tmp_path_factory.mktemp("cg")  # type: ignore[attr-defined]
    (root / "a").mkdir()
    for name, content in files.items():
        (root / "a" / name).write_bytes(content)
    assert isinstance(MemoryFiles(mounts=CgroupMounts(root)).witness(("/a",)), MemoryWitness)
