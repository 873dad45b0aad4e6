"""The NVIDIA driver's tracepoint, without an NVIDIA driver.

No machine without the driver can raise it. What it is made of can be had, though: `sched:sched_process_exec`
has a record of the same shape (a text by reference, then a number), and a description that calls it
`nvidia:nvidia_dev_xid` makes the loader attach the real program to it. Running a program whose path is a PCI
address is then an Xid of that GPU, whose number is the process's.
"""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from probes import registry
from probes.gpu.facts import XidSource
from probes.observation import BlindReason, GpuXid
from probes.sensor import SensorBlind
from tests.kernel.conftest import BOUNDED, LoadRun, Watch, run_loader

pytestmark = [pytest.mark.root, pytest.mark.ebpf]

_LEND = """
set -e
shopt -s nullglob
mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
events=/sys/kernel/tracing/events
for format in $events/{block,cgroup,ext4,oom,sched,signal,sock,syscalls,vmscan}/*/format; do
    folder=${format%/format}
    made=$1/events/${folder#$events/}
    mkdir -p "$made"
    cat "$folder/id" > "$made/id"
    cat "$format" > "$made/format"
done
lent=$1/events/sched/sched_process_exec
mkdir -p "$1/events/nvidia/nvidia_dev_xid"
cp "$lent/id" "$1/events/nvidia/nvidia_dev_xid/id"
sed -e 's/ filename;/ dev;/' -e 's/pid_t pid;/u32 error_code;/' "$lent/format" \\
    > "$1/events/nvidia/nvidia_dev_xid/format"
mount --bind "$1" /sys/kernel/tracing
shift
exec "$@"
"""
_RUN = "import os, sys; os.chdir(sys.argv[1]); os.execv(sys.argv[2], ['an Xid'])"


@pytest.fixture(scope="module")
def lent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadRun]:
    """All programs, on a kernel that seems to have the driver's tracepoint."""
    folder = tmp_path_factory.mktemp("tracefs")
    prefix = ["unshare", "--mount", "bash", "-c", _LEND, "bash", str(folder), *BOUNDED]
    run = run_loader(tmp_path_factory.mktemp("loader"), prefix=prefix)
    yield run
    run.handover.close()


@pytest.fixture
def watching(lent: LoadRun) -> Iterator[Watch]:
    """The sensor on it."""
    spec = next(s for s in registry.SENSORS if s.name == "kernel.xid")
    sensor = spec.build(registry.surroundings(lent.handover))
    sensor.open()
    watch = Watch(sensor)
    watch.drop()
    yield watch
    sensor.close()


def _run(folder: Path, name: str) -> int:
    """Run a program that is called so; return its process number."""
    program = folder / name
    if not program.exists():
        program.symlink_to("/bin/true")
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", _RUN, str(folder), name]) as process:
        assert process.wait(20) == 0
        return process.pid


def test_everything_else_is_attached_beside_it(lent: LoadRun) -> None:
    """The program compiles with the others against the made-up description."""
    assert lent.status == 0, lent.said
    blind = {entry.sensor: entry.blind for entry in lent.handover.manifest.sensors if entry.blind is not None}
    assert {sensor: told.reason for sensor, told in blind.items()} == {"kernel.scope": BlindReason.DISABLED}


def test_counts_a_prime_number_of_xids(watching: Watch, tmp_path: Path) -> None:
    """Thirteen on one GPU, with their numbers in order, and one on another."""
    numbers = [_run(tmp_path, "000f:01:00.0") for _ in range(13)]
    other = _run(tmp_path, "0000:43:00.0")
    seen = [o for o in watching.during(0.3) if isinstance(o, GpuXid)]
    mine = [o for o in seen if o.facts.pci == "000f:01:00.0"]
    assert [o.facts.number for o in mine] == numbers
    assert [o.facts.number for o in seen if o.facts.pci == "0000:43:00.0"] == [other]
    assert {o.facts.source for o in mine} == {XidSource.TRACEPOINT}
    assert [o.at.boot_ns for o in mine] == sorted(o.at.boot_ns for o in mine)
    assert {o.origin.pid for o in mine} == {None}


def test_a_device_that_is_no_address_is_not_known(watching: Watch, tmp_path: Path) -> None:
    """A longer text is cut in the kernel, and whatever it says is no GPU."""
    numbers = {_run(tmp_path, "x" * 200), _run(tmp_path, "\N{SNOWMAN}")}
    seen = [o for o in watching.during(0.3) if isinstance(o, GpuXid) and o.facts.number in numbers]
    assert {(o.facts.pci, o.facts.number) for o in seen} == {(None, number) for number in numbers}


def test_an_xid_wakes_its_reader(watching: Watch, tmp_path: Path) -> None:
    """It is rare and grave: nobody waits for the timer."""
    fd = watching.sensor.wakeup_fd()
    assert fd is not None
    watching.drop()
    _run(tmp_path, "000f:01:00.0")
    assert select.select([fd], [], [], 5)[0] == [fd]
    assert watching.sensor.waiting()


def test_without_the_driver_it_is_blind_and_says_whose_it_is(loaded: LoadRun) -> None:
    """Nothing else is blind for it."""
    if Path("/sys/module/nvidia").exists():
        pytest.skip("needs a machine without the NVIDIA driver")
    spec = next(s for s in registry.SENSORS if s.name == "kernel.xid")
    with pytest.raises(SensorBlind) as caught:
        spec.build(registry.surroundings(loaded.handover)).open()
    assert caught.value.blind.reason is BlindReason.NO_KERNEL_SUPPORT
    assert "nvidia:nvidia_dev_xid" in caught.value.blind.detail
