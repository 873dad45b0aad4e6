"""Opens of NVIDIA device nodes, on real eBPF and real device nodes of major 195."""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probes import registry
from probes.host.clock import now
from probes.observation import DeviceOpens, NvidiaDevice, Observation
from tests.kernel.conftest import Cgroups, LoadRun, Watch

pytestmark = [pytest.mark.root, pytest.mark.ebpf]

_OPEN = """
import os
for _ in range({times}):
    try:
        os.close(os.open({path!r}, os.O_RDWR))
    except OSError:
        pass
"""


@pytest.fixture
def node() -> Iterator[Callable[..., Path]]:
    """Make NVIDIA-named nodes in /dev that this machine does not have."""
    made: list[Path] = []

    def make(name: str, *, major: int = 1, minor: int = 3, mode: int = 0o666) -> Path:
        path = Path("/dev") / name
        if path.exists():
            pytest.skip(f"{path} exists on this machine: no dummy can stand in its place")
        os.mknod(path, stat.S_IFCHR, os.makedev(major, minor))
        made.append(path)
        path.chmod(mode)
        return path

    yield make
    for path in made:
        path.unlink(missing_ok=True)


def _of(found: list[Observation], group: Cgroups) -> list[DeviceOpens]:
    return [o for o in found if isinstance(o, DeviceOpens) and o.origin.cgroup_id == group.id]


def _counted(found: list[Observation], group: Cgroups) -> dict[tuple[NvidiaDevice, int | None, int], int]:
    totals: dict[tuple[NvidiaDevice, int | None, int], int] = {}
    for o in _of(found, group):
        key = (o.device, o.minor, o.errno)
        totals[key] = totals.get(key, 0) + o.count
    return totals


def test_counts_a_prime_number_of_missing_nodes(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups]
) -> None:
    """9973 failed opens are counted exactly, though the ring hears of them once a second."""
    watching, group = watch("kernel.device_open"), cgroups()
    group.python(_OPEN.format(times=9973, path="/dev/nvidia77"))
    found = watching.during(0.6)
    assert _counted(found, group) == {(NvidiaDevice.GPU, 77, errno.ENOENT): 9973}
    assert {o.origin.cgroup_path for o in _of(found, group)} == {group.name}
    assert {o.prior_successes for o in _of(found, group)} == {0}


@pytest.mark.parametrize(
    ("name", "device", "minor"),
    [
        ("nvidiactl", NvidiaDevice.CONTROL, None),
        ("nvidia0", NvidiaDevice.GPU, 0),
        ("nvidia17", NvidiaDevice.GPU, 17),
        ("nvidia255", NvidiaDevice.GPU, 255),
        ("nvidia256", NvidiaDevice.OTHER, None),
        ("nvidia-uvm", NvidiaDevice.UVM, None),
        ("nvidia-uvm-tools", NvidiaDevice.UVM_TOOLS, None),
        ("nvidia-modeset", NvidiaDevice.MODESET, None),
        ("nvidia-caps/nvidia-cap1", NvidiaDevice.OTHER, None),
        ("nvidiactlx", NvidiaDevice.OTHER, None),
        ("nvidia0x", NvidiaDevice.OTHER, None),
    ],
)
def test_tells_the_nodes_apart(
    watch: Callable[[str], Watch],
    cgroups: Callable[..., Cgroups],
    name: str,
    device: NvidiaDevice,
    minor: int | None,
) -> None:
    """Every node that the driver makes has its own kind; a name that only begins so is another."""
    path = f"/dev/{name}"
    if Path(path).exists():
        pytest.skip(f"{path} exists on this machine")
    watching, group = watch("kernel.device_open"), cgroups()
    group.python(_OPEN.format(times=3, path=path))
    totals = _counted(watching.during(0.2), group)
    assert set(totals) <= {(device, minor, errno.ENOENT), (device, minor, errno.ENOTDIR)}
    assert sum(totals.values()) == 3


def test_counts_a_revoked_device_after_its_successes(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups], node: Callable[..., Path]
) -> None:
    """A cgroup that used the device and then loses it: EPERM, with the successes before it remembered."""
    # The null driver's node under an NVIDIA name: there is no driver for major 195 here, and the device
    # cgroup decides before any driver is asked.
    path = node("nvidia3")
    watching, group = watch("kernel.device_open"), cgroups("devices")
    group.python(_OPEN.format(times=5, path=str(path)))
    before = watching.during(0.3)
    (group.folders["devices"] / "devices.deny").write_text("c 1:3 rwm")
    group.python(_OPEN.format(times=11, path=str(path)))
    after = watching.during(0.3)
    assert _counted(before, group) == {(NvidiaDevice.GPU, 3, 0): 5}
    assert _counted(after, group) == {(NvidiaDevice.GPU, 3, errno.EPERM): 11}
    assert _of(before, group)[0].prior_successes == 0
    assert {o.prior_successes for o in _of(after, group)} == {5}


def test_counts_a_denied_node_of_the_drivers_major(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups], node: Callable[..., Path]
) -> None:
    """A node of major 195: ENXIO without a driver, EPERM once the cgroup is denied it."""
    path = node("nvidiactl", major=195, minor=255)
    watching, group = watch("kernel.device_open"), cgroups("devices")
    group.python(_OPEN.format(times=2, path=str(path)))
    (group.folders["devices"] / "devices.deny").write_text("c 195:* rwm")
    group.python(_OPEN.format(times=13, path=str(path)))
    found = watching.during(0.3)
    assert _counted(found, group) == {
        (NvidiaDevice.CONTROL, None, errno.ENXIO): 2,
        (NvidiaDevice.CONTROL, None, errno.EPERM): 13,
    }
    assert {o.prior_successes for o in _of(found, group)} == {0}


def test_tells_file_modes_from_device_cgroups(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups], node: Callable[..., Path]
) -> None:
    """Another user's node is EACCES."""
    path = node("nvidia4", mode=0o600)
    watching, group = watch("kernel.device_open"), cgroups()
    group.python("import os; os.setuid(65534)\n" + _OPEN.format(times=7, path=str(path)))
    assert _counted(watching.during(0.3), group) == {(NvidiaDevice.GPU, 4, errno.EACCES): 7}


@pytest.mark.parametrize("call", ["open", "openat", "openat2"])
def test_sees_every_way_to_open(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups], call: str
) -> None:
    """open, openat and openat2 are all counted."""
    numbers = {"open": 2, "openat": 257, "openat2": 437}
    if os.uname().machine != "x86_64":
        pytest.skip("the numbers of the system calls in this test are of x86-64")
    arguments = {"open": "p, 0, 0", "openat": "-100, p, 0, 0", "openat2": "-100, p, b'\\0' * 24, 24"}[call]
    code = (
        "import ctypes; p = b'/dev/nvidia-uvm'; f = ctypes.CDLL(None).syscall;"
        f"[f({numbers[call]}, {arguments}) for _ in range(17)]"
    )
    watching, group = watch("kernel.device_open"), cgroups()
    group.python(code)
    assert _counted(watching.during(0.3), group) == {(NvidiaDevice.UVM, None, errno.ENOENT): 17}


@pytest.mark.parametrize(
    "path", ["/dev/null", "/dev/nvi", "/dev/nvme0", "/dev/nvidi", "/tmp/dev/nvidia0", ""]
)
def test_stays_quiet_for_other_paths(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups], path: str
) -> None:
    """A path that is no NVIDIA node is not counted."""
    watching, group = watch("kernel.device_open"), cgroups()
    group.python(_OPEN.format(times=50, path=path))
    assert _of(watching.during(0.2), group) == []


def test_wakes_its_reader_for_a_refusal(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups]
) -> None:
    """A refused open makes the wakeup descriptor readable; nobody waits for the timer."""
    watching, group = watch("kernel.device_open"), cgroups()
    descriptor = watching.sensor.wakeup_fd()
    assert descriptor is not None
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    group.python(_OPEN.format(times=1, path="/dev/nvidia88"))
    assert poller.poll(2000) != []
    assert sum(o.count for o in _of(list(watching.sensor.read(now())), group)) == 1


def test_a_successor_reports_only_the_rest(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups], loaded: LoadRun
) -> None:
    """What one reader reported its successor does not repeat; what happened between them is not lost."""
    build = next(s.build for s in registry.SENSORS if s.name == "kernel.device_open")
    group = cgroups()
    first = watch("kernel.device_open")
    group.python(_OPEN.format(times=19, path="/dev/nvidia91"))
    assert _counted(first.during(0.3), group) == {(NvidiaDevice.GPU, 91, errno.ENOENT): 19}
    first.sensor.settle()
    first.sensor.close()
    group.python(_OPEN.format(times=23, path="/dev/nvidia91"))
    successor = build(registry.surroundings(loaded.handover))
    successor.open()
    try:
        assert _counted(list(successor.read(now())), group) == {(NvidiaDevice.GPU, 91, errno.ENOENT): 23}
    finally:
        successor.close()
