"""`host.manager` on a booted systemd: what a reload leaves behind, and what leaves nothing."""

from __future__ import annotations

import pytest

from probes.host.clock import now
from probes.host.manager import ManagerSensor
from tests.system import booted_host


@pytest.mark.root
@pytest.mark.systemd
def test_a_reload_is_told_and_other_work_of_the_manager_is_not() -> None:
    """A daemon-reload and a re-execution are told once each; starting units is nothing."""
    if reason := booted_host.why_not():
        pytest.skip(f"no host can be booted: {reason}")
    with booted_host.BootedHost(name="nanobot-manager") as host:
        for marks in (("systemd-units-load", "generator"), ("generator",)):
            sensor = ManagerSensor(folder=host.path("/run/systemd"), marks=marks)
            sensor.open()
            assert list(sensor.read(now())) == []
            for command in ("daemon-reload", "daemon-reexec"):
                before = now()
                host.run("systemctl", command)
                host.wait("the mark", sensor.waiting)
                (told,) = sensor.read(now())
                assert before.unix_ns - 100_000_000 <= told.at.unix_ns <= now().unix_ns
                assert list(sensor.read(now())) == []
            host.shell("systemctl restart systemd-tmpfiles-clean; systemd-run --wait true")
            assert list(sensor.read(now())) == []
