"""Cgroups of services and containers that come and go (`cgroups.bpf.c`)."""

from __future__ import annotations

from collections.abc import Sequence

from probes.host.clock import at_boot_ns
from probes.host.identity import decode_name, place_of
from probes.kernel.handed import HandedProgram
from probes.kernel.handover import Handover
from probes.kernel.programs import Attachment, KernelProgram
from probes.observation import CgroupId, Instant, Observation, Origin, SensorName
from probes.observed.services import CgroupChanged

NAME = SensorName("kernel.cgroups")
PROGRAM = KernelProgram(
    sensor=NAME,
    stem="cgroups",
    attachments=(
        Attachment("cgroups_made", "cgroup:cgroup_mkdir"),
        Attachment("cgroups_removed", "cgroup:cgroup_rmdir"),
    ),
    maps=("cgroups_events", "cgroups_ledger"),
)


class CgroupsSensor:
    """Says which service or container got a cgroup, and which lost its own."""

    name = NAME
    period_s = 0.5

    def __init__(self, *, handover: Handover | None) -> None:
        self._program = HandedProgram(sensor=NAME, stem=PROGRAM.stem, handover=handover)

    def __repr__(self) -> str:
        return f"CgroupsSensor({self._program})"

    def open(self) -> None:
        """Take hold of the ring."""
        self._program.open()

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return what came and went since the last read."""
        found: list[Observation] = [
            CgroupChanged(
                sensor=NAME,
                at=at_boot_ns(event["time_ns"], now),
                origin=origin_of(CgroupId(event["cgroup_id"]), decode_name(event["path"])),
                made=bool(event["made"]),
            )
            for event in self._program.records()
        ]
        return found + list(self._program.losses(now))

    def waiting(self) -> bool:
        """Whether there are events."""
        return self._program.waiting()

    def settle(self) -> None:
        """Note how far the ring is judged and on disk."""
        self._program.settle()

    def wakeup_fd(self) -> int | None:
        """A storm wakes its reader before the ring is full."""
        return self._program.wakeup_fd()

    def close(self) -> None:
        """Let go of the ring."""
        self._program.close()


def origin_of(cgroup_id: CgroupId, path: str) -> Origin:
    """Return whose cgroup it is, by its path alone: a cgroup that is made has no process yet."""
    place = place_of(path)
    return Origin(cgroup_id=cgroup_id, cgroup_path=path, unit=place.unit, container_id=place.container_id)
