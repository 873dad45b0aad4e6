"""Builders for what the sensors say of waiting: pressure, quotas, queues, stuck processes."""

from __future__ import annotations

from agent.testing import at, origin
from probes.observation import (
    BacklogState,
    CgroupPressure,
    Condition,
    DescriptorsRefused,
    DescriptorUser,
    DirectReclaims,
    Neighbour,
    Origin,
    PressureState,
    ProcessCondition,
    RunDelay,
    SensorName,
    TaskHung,
)


def pressure(
    seconds: float,
    *,
    cpu: float | None = 0.0,
    io: float | None = 0.0,
    memory: float | None = 0.0,
    memory_minute: float | None = None,
    swapped: int = 0,
    stalls: int = 0,
) -> PressureState:
    """Return how a host waits, the same over ten seconds and a minute unless told otherwise."""
    return PressureState(
        sensor=SensorName("host.pressure"),
        at=at(seconds),
        window_s=5.0,
        cpu_some_avg10=cpu,
        cpu_some_avg60=cpu,
        io_full_avg10=io,
        io_full_avg60=io,
        memory_some_avg10=memory,
        memory_full_avg10=memory,
        memory_full_avg60=memory if memory_minute is None else memory_minute,
        major_faults=0,
        refaulted_pages=0,
        swapped_in_pages=swapped,
        swapped_out_pages=0,
        allocation_stalls=stalls,
    )


def group_pressure(
    seconds: float,
    *,
    quota: float | None = 2.0,
    periods: int = 50,
    throttled: int = 0,
    up_s: float | None = 1000.0,
    memory: float | None = None,
    where: Origin | None = None,
) -> CgroupPressure:
    """Return a look at a server's group with a quota of two cores that is not met, unless told otherwise."""
    return CgroupPressure(
        sensor=SensorName("host.pressure"),
        at=at(seconds),
        origin=where or origin(),
        up_s=up_s,
        window_s=5.0,
        quota_cores=quota,
        periods=periods,
        throttled_periods=throttled,
        throttled_s=throttled * 0.05,
        memory_some_avg10=memory,
        memory_full_avg10=memory,
    )


def reclaims(
    seconds: float,
    count: int,
    *,
    full: float | None = 0.0,
    full_minute: float | None = None,
    where: Origin | None = None,
) -> DirectReclaims:
    """Return what a group at its limit reclaimed in five seconds."""
    return DirectReclaims(
        sensor=SensorName("kernel.reclaim"),
        at=at(seconds),
        origin=where or origin(pid=None, server=origin().server),
        window_s=5.0,
        count=count,
        by_limit=count,
        memory_full_avg10=full,
        memory_full_avg60=full if full_minute is None else full_minute,
    )


def delay(
    seconds: float,
    p99_s: float | None,
    *,
    waited_s: float = 1.0,
    host: float | None = 60.0,
    neighbours: tuple[tuple[str, float, float], ...] = (("/system.slice/backup.service", 3.0, 2.5),),
    threads: int = 40,
    where: Origin | None = None,
) -> RunDelay:
    """Return five seconds of a server's waits, with a neighbour that has grown, unless told otherwise."""
    return RunDelay(
        sensor=SensorName("kernel.run_delay"),
        at=at(seconds),
        origin=where or origin(),
        window_s=5.0,
        threads=threads,
        waits=0 if p99_s is None else 500,
        waited_s=waited_s,
        p99_s=p99_s,
        cpu_some_avg10=host,
        neighbours=tuple(
            Neighbour(cgroup_path=path, cores=cores, grown_cores=grown) for path, cores, grown in neighbours
        ),
    )


def refused(
    seconds: float,
    count: int = 10,
    *,
    call: DescriptorUser = DescriptorUser.ACCEPT,
    host_wide: bool = False,
    limit: int | None = 1024,
    where: Origin | None = None,
) -> DescriptorsRefused:
    """Return calls that found no descriptor."""
    return DescriptorsRefused(
        sensor=SensorName("kernel.descriptors"),
        at=at(seconds),
        origin=where or origin(),
        call=call,
        host_wide=host_wide,
        count=count,
        limit=limit,
    )


def condition(
    seconds: float, how: Condition, lasted_s: float = 30.0, *, where: Origin | None = None
) -> ProcessCondition:
    """Return how a process stands that did not get on."""
    return ProcessCondition(
        sensor=SensorName("host.processes"),
        at=at(seconds),
        origin=where or origin(),
        condition=how,
        lasted_s=lasted_s,
        used_cpu_s=0.0,
    )


def hung(seconds: float, *, where: Origin | None = None) -> TaskHung:
    """Return the word of the kernel's watchdog."""
    return TaskHung(sensor=SensorName("kernel.task_hang"), at=at(seconds), origin=where or origin())


def queue(
    seconds: float,
    waiting: int,
    lasted_s: float,
    *,
    stopped: int | None = 0,
    used_s: float | None = 0.0,
    processes: int | None = 1,
    closed: bool = False,
    where: Origin | None = None,
) -> BacklogState:
    """Return connections that wait at port 8000 of a server."""
    return BacklogState(
        sensor=SensorName("host.processes"),
        at=at(seconds),
        origin=where or origin(),
        address="0.0.0.0",  # noqa: S104 -- what a server listens on, not what we do
        port=8000,
        backlog=waiting,
        limit=128,
        lasted_s=lasted_s,
        processes=processes,
        stopped=stopped,
        used_cpu_s=used_s,
        closed=closed,
    )
