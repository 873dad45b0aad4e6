"""Direct reclaim by control group, on real eBPF: a group at its limit that reads more files than fit."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from probes.host.clock import now
from probes.observation import DirectReclaims, Observation
from tests.kernel.conftest import Cgroups, Watch

pytestmark = [pytest.mark.root, pytest.mark.ebpf]

_MIB = 1 << 20


def reclaims(found: Sequence[Observation], group: Cgroups) -> list[DirectReclaims]:
    """Return what was told of a group."""
    return [o for o in found if isinstance(o, DirectReclaims) and o.origin.cgroup_id == group.id]


@pytest.fixture
def large_file(tmp_path: Path) -> Path:
    """A file of 48 MiB, out of the page cache of the group that will read it."""
    path = tmp_path / "weights"
    with path.open("wb") as file:
        file.write(b"\1" * (48 * _MIB))
        os.fsync(file.fileno())  # what is not on the disk cannot be dropped
    return path


def test_a_group_at_its_limit_is_named_and_followed(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups], large_file: Path
) -> None:
    """Files beyond the limit: it reclaims its own, none of the host's; then it is told with no count."""
    watching, group = watch("kernel.reclaim"), cgroups("memory")
    (group.folders["memory"] / "memory.limit_in_bytes").write_text(str(16 * _MIB))
    done = group.python(
        f"import os\nfd = os.open({str(large_file)!r}, os.O_RDONLY)\n"
        "os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)\nwhile os.read(fd, 1 << 20): pass\n"
    )
    assert done.returncode == 0, done.stderr
    told = reclaims(watching.until(lambda found: bool(reclaims(found, group))), group)
    assert told[0].count > 0
    assert told[0].count == told[0].by_limit
    assert told[0].origin.cgroup_path == group.name
    assert told[0].memory_full_avg10 is not None
    (later,) = reclaims(watching.sensor.read(now()), group)
    assert (later.count, later.by_limit) == (0, 0)


def test_reading_without_a_limit_stays_quiet(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups], large_file: Path
) -> None:
    """Page cache that fills while there is room makes nobody wait."""
    watching, group = watch("kernel.reclaim"), cgroups("memory")
    assert group.python(f"open({str(large_file)!r}, 'rb').read()").returncode == 0
    assert reclaims(watching.during(0.3), group) == []
