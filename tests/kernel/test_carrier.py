"""The carrier of a real pair of interfaces, lost and found."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from probes.host.clock import now
from probes.host.links import LinksSensor
from probes.observation import InterfaceLink
from tests.kernel.two_hosts import TwoHosts

pytestmark = [pytest.mark.root]


@pytest.fixture
def sysfs(hosts: TwoHosts) -> Iterator[Path]:
    """The sysfs of the host here."""
    with hosts.sysfs_here() as folder:
        yield folder


def _told(sensor: LinksSensor) -> list[tuple[bool | None, bool, int]]:
    read = sensor.read(now())
    return [
        (o.up, o.enabled, o.changes) for o in read if isinstance(o, InterfaceLink) and o.interface == "cable"
    ]


def test_a_carrier_that_the_other_side_takes_away(hosts: TwoHosts, sysfs: Path) -> None:
    """The other end goes down and comes back: one change each, on an interface that nobody switched off."""
    sensor = LinksSensor(sys_=sysfs, counts=lambda folder: folder.endswith("/cable"))
    sensor.open()
    assert _told(sensor) == [(True, True, 0)]
    subprocess.run(["ip", "-n", hosts.there, "link", "set", "cable", "down"], check=True, timeout=20)
    assert _told(sensor) == [(False, True, 1)]
    subprocess.run(["ip", "-n", hosts.there, "link", "set", "cable", "up"], check=True, timeout=20)
    assert _told(sensor) == [(True, True, 1)]


def test_an_interface_that_is_switched_off_here(hosts: TwoHosts, sysfs: Path) -> None:
    """What an operator does on this host is told as switched off."""
    sensor = LinksSensor(sys_=sysfs, counts=lambda folder: folder.endswith("/cable"))
    sensor.open()
    sensor.read(now())
    hosts.ip("link", "set", "cable", "down")
    assert [(up, enabled) for up, enabled, _ in _told(sensor)] == [(False, False)]
