"""What the real agent builds its sensors from: one set of readers for each of its two threads."""

from __future__ import annotations

from agent.command import _sensors
from probes.observation import SensorName
from probes.settings import SensorSettings


def test_who_serves_is_known_to_all_who_are_read_on_that_thread() -> None:
    """What `host.servers` finds is what the others look at more closely."""
    build = _sensors(None, SensorSettings())
    boards = {
        id(getattr(build[SensorName(name)](), "_known"))  # noqa: B009 -- it is nobody's business otherwise
        for name in ("host.servers", "host.pressure", "host.processes", "kernel.run_delay")
    }
    assert len(boards) == 1


def test_the_two_threads_share_no_memory_of_cgroups() -> None:
    """It is not made for two threads."""
    build = _sensors(None, SensorSettings())
    slow, quick = build[SensorName("host.servers")](), build[SensorName("kernel.descriptors")]()
    assert getattr(slow, "_identifier") is not getattr(quick, "_identifier")  # noqa: B009 -- the same
