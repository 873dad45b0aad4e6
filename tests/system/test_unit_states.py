"""`host.units` on a booted systemd, as an unprivileged user: loops, start limits, and what is none."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.detectors.restart_loop import Config, RestartLoop
from agent.testing import SURROUNDINGS, present, seeing
from probes.host.bus import SystemBus
from probes.host.clock import now
from probes.host.units import STOPPED_S, UnitsSensor
from probes.observation import ManagerReloaded, Observation, UnitEnded, UnitResult, UnitsStanding, UnitStopped
from probes.sensor import SensorBlind
from tests.system import booted_host
from tests.system.booted_host import BootedHost

pytestmark = [pytest.mark.root, pytest.mark.systemd]

_NOBODY = 65534


@pytest.fixture(scope="module")
def host() -> Iterator[BootedHost]:
    """A host with a bus."""
    if reason := booted_host.why_not():
        pytest.skip(f"no host can be booted: {reason}")
    with BootedHost(name="nanobot-unit-states") as booted:
        booted.wait("the bus", lambda: booted.path("/run/dbus/system_bus_socket").exists())
        yield booted


@contextlib.contextmanager
def watching(host: BootedHost, *, monotonic: Callable[[], float] = time.monotonic) -> Iterator[UnitsSensor]:
    """Open the sensor on the host's bus as a user without any privilege."""
    # An ordinary user may not look through the host's first process, so the way there is gone before.
    with contextlib.chdir(host.path("/run")):
        sensor = UnitsSensor(
            bus=lambda: SystemBus(path="dbus/system_bus_socket"),
            booted=Path("systemd/system"),
            monotonic=monotonic,
        )
        os.seteuid(_NOBODY)
        try:
            sensor.open()
        finally:
            os.seteuid(0)
    with contextlib.closing(sensor):
        yield sensor


def until(
    sensor: UnitsSensor, enough: Callable[[list[Observation]], bool], within_s: float = 20
) -> list[Observation]:
    """Read until it is enough; return everything."""
    told: list[Observation] = []
    end = time.monotonic() + within_s
    while time.monotonic() < end and not enough(told):
        told += sensor.read(now())
        time.sleep(0.05)
    return told


def ends(told: list[Observation], unit: str) -> list[UnitEnded]:
    """Return how `unit` ended."""
    return [one for one in told if isinstance(one, UnitEnded) and one.origin.unit == unit]


def stops(told: list[Observation]) -> list[str]:
    """Return the units that were stopped, reset or removed."""
    return sorted(one.origin.unit or "" for one in told if isinstance(one, UnitStopped))


def judged(told: list[Observation]) -> list[str]:
    """Return the units that are judged to loop."""
    detector = RestartLoop.build(Config(), SURROUNDINGS)
    detector.observe(seeing(0, "host.units"))
    return sorted({found.subject.name for found in present(detector, *told) if found.subject})


def test_a_service_that_cannot_start_loops_to_its_start_limit(host: BootedHost) -> None:
    """Each life is told with its length and status, then that the manager gave it up."""
    with watching(host) as sensor:
        host.write(
            "/etc/systemd/system/loop.service",
            "[Unit]\nStartLimitBurst=4\nStartLimitIntervalSec=60\n"
            "[Service]\nExecStart=/bin/sh -c 'exit 3'\nRestart=always\nRestartSec=200ms\n",
        )
        host.run("systemctl", "daemon-reload")
        host.run("systemctl", "start", "loop.service")
        told = until(
            sensor,
            lambda told: any(e.result is UnitResult.START_LIMIT_HIT for e in ends(told, "loop.service")),
        )
    lives = ends(told, "loop.service")
    assert [(one.result, one.restarts) for one in lives] == [
        *[(UnitResult.EXIT_CODE, number) for number in range(4)],
        (UnitResult.START_LIMIT_HIT, lives[-1].restarts),
    ]
    assert all(one.exit_status == 3 for one in lives[:4])
    assert all(0 <= (one.lived_s or 0) < 5 for one in lives[:4])
    assert judged(told) == ["loop.service"]
    with watching(host) as sensor:  # an agent that begins afterwards is told too
        assert [one.result for one in ends(list(sensor.read(now())), "loop.service")] == [
            UnitResult.START_LIMIT_HIT
        ]
    host.run("systemctl", "reset-failed")


def test_services_in_a_loop_that_are_stopped_reset_or_removed_are_told(host: BootedHost) -> None:
    """Each of them is inactive and stays so, whatever its last result says; one that goes on is not told."""
    names = ("stopped.service", "reset.service", "removed.service", "goes-on.service")
    ahead = [0.0]
    with watching(host, monotonic=lambda: time.monotonic() + ahead[0]) as sensor:
        for name in names:
            given_up = name in {"reset.service", "removed.service"}
            limit = "StartLimitBurst=3\nStartLimitIntervalSec=60" if given_up else "StartLimitIntervalSec=0"
            pause = "100ms" if given_up else "1s"
            host.write(
                f"/etc/systemd/system/{name}",
                f"[Unit]\n{limit}\n[Service]\nExecStart=/bin/false\nRestart=always\nRestartSec={pause}\n",
            )
        host.run("systemctl", "daemon-reload")
        host.run("systemctl", "start", "--no-block", *names)
        told = until(sensor, lambda told: all(len(ends(told, name)) > 2 for name in names))
        host.run("systemctl", "stop", "stopped.service")
        host.run("systemctl", "reset-failed", "reset.service")
        host.path("/etc/systemd/system/removed.service").unlink()
        host.run("systemctl", "daemon-reload")
        host.run("systemctl", "reset-failed", "removed.service")
        assert stops(until(sensor, lambda told: bool(ends(told, "goes-on.service")))) == []
        told = []
        while len(stops(told)) < 3 and ahead[0] < 100 * STOPPED_S:
            told += sensor.read(now())
            ahead[0] += STOPPED_S / 10
            time.sleep(0.05)
    with watching(host, monotonic=lambda: time.monotonic() + ahead[0]) as newcomer:
        looked = list(newcomer.read(now()))
        ahead[0] += STOPPED_S
        looked += newcomer.read(now())
    host.run("systemctl", "stop", "goes-on.service")
    assert stops(told) == ["removed.service", "reset.service", "stopped.service"]
    (standing,) = [one.units for one in looked if isinstance(one, UnitsStanding)]
    assert [name for name in names if name in standing] == ["goes-on.service"]


def test_a_deployment_a_timers_job_and_a_crash_are_no_loop(host: BootedHost) -> None:
    """Two restarts with a reload between, a job that fails each time, a crash that is restarted once."""
    for name, lines in (
        ("served.service", "ExecStart=/bin/sleep 600\n"),
        ("job.service", "Type=oneshot\nExecStart=/bin/false\n"),
        ("crash.service", "ExecStart=/bin/sleep 600\nRestart=on-failure\nRestartSec=100ms\n"),
    ):
        host.write(f"/etc/systemd/system/{name}", f"[Service]\n{lines}")
    host.run("systemctl", "daemon-reload")
    with watching(host) as sensor:
        host.run("systemctl", "start", "served.service", "crash.service")
        host.run("systemctl", "restart", "served.service")
        host.run("systemctl", "daemon-reload")
        host.run("systemctl", "restart", "served.service")
        for _ in range(5):
            host.run("systemctl", "start", "job.service", check=False)
        host.run("systemctl", "kill", "--signal=SEGV", "crash.service")
        told = until(sensor, lambda told: bool(ends(told, "crash.service")))
    assert len(ends(told, "job.service")) == 5
    assert [one.result for one in ends(told, "crash.service")] in (
        [UnitResult.SIGNAL],
        [UnitResult.CORE_DUMP],
    )
    assert any(isinstance(one, ManagerReloaded) for one in told)
    assert judged(told) == []


def test_follows_a_manager_that_is_executed_again(host: BootedHost) -> None:
    """A re-execution gives the manager another name on the bus; what ends afterwards is told."""
    host.write("/etc/systemd/system/short.service", "[Service]\nExecStart=/bin/false\n")
    host.run("systemctl", "daemon-reload")
    with watching(host) as sensor:
        host.run("systemctl", "daemon-reexec")
        host.wait("the manager", lambda: host.run("systemctl", "is-system-running", check=False).output != "")
        host.run("systemctl", "start", "short.service")
        told = until(sensor, lambda told: bool(ends(told, "short.service")))
    assert len(ends(told, "short.service")) == 1


def test_an_idle_manager_says_nothing(host: BootedHost) -> None:
    """No signals while nothing happens: an idle host costs nothing."""
    with watching(host) as sensor:
        quiet = sensor.read(now())
        time.sleep(1)
        assert [*quiet, *sensor.read(now())] == []


def test_a_bus_that_goes_away_blinds_and_is_found_again(host: BootedHost) -> None:
    """Blind with a reason; a sensor that is opened again sees."""
    with watching(host) as sensor:
        host.run("systemctl", "restart", "dbus.service", check=False)
        with pytest.raises(SensorBlind):
            until(sensor, lambda _: False, within_s=10)
    host.wait(
        "the bus", lambda: host.run("systemctl", "is-active", "dbus.service").output.strip() == "active"
    )
    with watching(host) as sensor:
        assert list(sensor.read(now())) == []
