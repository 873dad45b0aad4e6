"""Carriers and RDMA counters: a made-up sysfs with the files of a ConnectX-7 (mlx5), and bytes that are no
numbers.

No RDMA device is at hand; the tree is shaped as the kernel documents it
(Documentation/ABI/stable/sysfs-class-infiniband). The carrier of a real pair of interfaces is in
tests/kernel/test_carrier.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from agent.testing import at
from probes.host.links import COUNTERS, LinksSensor
from probes.observation import BlindReason, InterfaceLink, RdmaPort
from probes.sensor import SensorBlind


class Tree:
    """A sysfs with one interface on one RDMA device of one port."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.net = root / "class/net/enp1s0f0np0"
        self.port = root / "class/infiniband/rocep1s0f0/ports/1"
        for folder in (self.net / "device", self.port / "counters", self.port / "hw_counters"):
            folder.mkdir(parents=True)
        (root / "class/infiniband/rocep1s0f0/device/net/enp1s0f0np0").mkdir(parents=True)
        (root / "class/net/veth0a1b").mkdir()
        self.interface(state="up", changes=3)
        (self.port / "state").write_text("4: ACTIVE\n")
        for counter in COUNTERS:
            (self.port / counter).write_text("17\n")

    def interface(self, *, state: str, changes: int, flags: str = "0x1003") -> None:
        """Let the interface be so."""
        carrier = "1" if state == "up" else "0"
        for name, text in (("carrier", carrier), ("carrier_changes", str(changes)), ("flags", flags)):
            (self.net / name).write_text(text + "\n")

    def sensor(self) -> LinksSensor:
        """Return a sensor of this tree, opened, after its first read."""
        sensor = LinksSensor(sys_=self.root)
        sensor.open()
        sensor.read(at(0))
        return sensor


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """One interface, one RDMA port."""
    return Tree(tmp_path)


def test_the_first_read_tells_what_there_is(tree: Tree) -> None:
    """Every link of hardware once, with no rise; a container's pair not."""
    sensor = LinksSensor(sys_=tree.root)
    sensor.open()
    link, port = sensor.read(at(0))
    assert isinstance(link, InterfaceLink)
    assert isinstance(port, RdmaPort)
    assert (link.interface, link.up, link.enabled, link.changes) == ("enp1s0f0np0", True, True, 0)
    assert (port.device, port.port, port.active, port.interface) == ("rocep1s0f0", 1, True, "enp1s0f0np0")
    assert port.rises == ()


def test_a_steady_link_falls_silent(tree: Tree) -> None:
    """After a quarter of an hour without a change there is nothing to say."""
    sensor = tree.sensor()
    assert len(sensor.read(at(890))) == 2
    assert sensor.read(at(910)) == []


def test_counters_are_told_by_their_rise(tree: Tree) -> None:
    """What rose since the last read, by its name; what stood still is left out."""
    sensor = tree.sensor()
    (tree.port / "hw_counters/local_ack_timeout_err").write_text("24\n")
    (tree.port / "counters/link_downed").write_text("18\n")
    ports = [o for o in sensor.read(at(10)) if isinstance(o, RdmaPort)]
    assert [p.rises for p in ports] == [(("link_downed", 1), ("local_ack_timeout_err", 7))]
    assert [p.window_s for p in ports] == [10.0]


def test_a_counter_that_was_reset_has_not_risen(tree: Tree) -> None:
    """A driver that is loaded anew begins at 0, which is no rise; the next one is counted from there."""
    sensor = tree.sensor()
    counter = tree.port / "counters/symbol_error"
    counter.write_text("2\n")
    sensor.read(at(10))
    counter.write_text("5\n")
    ports = [o for o in sensor.read(at(20)) if isinstance(o, RdmaPort)]
    assert [p.rises for p in ports] == [(("symbol_error", 3),)]


def test_a_lost_carrier_is_told_with_its_changes(tree: Tree) -> None:
    """Down, and how often it went up and down in between; then up again."""
    sensor = tree.sensor()
    tree.interface(state="down", changes=6)
    links = [o for o in sensor.read(at(10)) if isinstance(o, InterfaceLink)]
    assert [(o.up, o.enabled, o.changes) for o in links] == [(False, True, 3)]
    tree.interface(state="up", changes=7)
    links = [o for o in sensor.read(at(20)) if isinstance(o, InterfaceLink)]
    assert [(o.up, o.changes) for o in links] == [(True, 1)]


def test_an_interface_that_was_switched_off_says_so(tree: Tree) -> None:
    """An operator's `ip link set down` is told apart from a pulled cable."""
    sensor = tree.sensor()
    tree.interface(state="down", changes=4, flags="0x1002")
    links = [o for o in sensor.read(at(10)) if isinstance(o, InterfaceLink)]
    assert [(o.up, o.enabled) for o in links] == [(False, False)]


def test_what_is_removed_is_told_no_more(tree: Tree) -> None:
    """A device that is unplugged between two reads gives nothing, and no error."""
    sensor = tree.sensor()
    for file in tree.net.iterdir():
        if file.is_file():
            file.unlink()
    (tree.port / "state").unlink()
    assert sensor.read(at(10)) == []


def test_a_system_without_sysfs_is_blind(tmp_path: Path) -> None:
    """macOS has none."""
    with pytest.raises(SensorBlind) as caught:
        LinksSensor(sys_=tmp_path).open()
    assert caught.value.blind.reason is BlindReason.UNSUPPORTED_PLATFORM


def test_this_machine_can_be_read() -> None:
    """The real sysfs gives no error, whatever hardware there is."""
    sensor = LinksSensor()
    sensor.open()
    assert all(isinstance(o, InterfaceLink | RdmaPort) for o in sensor.read(at(0)))
    sensor.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(text=st.binary(max_size=80), file=st.sampled_from(["state", *COUNTERS]))
def test_files_that_hold_something_else_break_nothing(tree: Tree, text: bytes, file: str) -> None:
    """A counter that is no number is no counter."""
    sensor = tree.sensor()
    (tree.port / file).write_bytes(text)
    (tree.net / "carrier_changes").write_bytes(text)
    (tree.net / "flags").write_bytes(text)
    for told in sensor.read(at(10)):
        assert isinstance(told, InterfaceLink | RdmaPort)
        if isinstance(told, RdmaPort):
            assert all(rise > 0 for _, rise in told.rises)
