"""What is known of a drill: a fault that root makes on purpose on this host, to see whether it is noticed."""

from __future__ import annotations

from dataclasses import dataclass

from probes.origin import Instant, SensorName


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillBegan:
    """A drill was announced: a fault of `fault_class` will be made, in what is listed here and nowhere else.

    Units by name, control groups and mounts by path, processes and listening ports by number.
    """

    sensor: SensorName
    at: Instant
    id: str
    fault_class: str
    units: tuple[str, ...] = ()
    cgroups: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    pids: tuple[int, ...] = ()
    ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillEnded:
    """The drill `id` is over: what it made has been removed, or its time is up."""

    sensor: SensorName
    at: Instant
    id: str
