"""Processes that the kernel's out-of-memory killer chose (`oom_kill.bpf.c`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from probes.host.clock import at_boot_ns
from probes.host.identity import Identifier
from probes.host.memory import MemoryFiles
from probes.kernel.handed import HandedProgram
from probes.kernel.handover import Handover
from probes.kernel.programs import Attachment, KernelProgram
from probes.observation import CgroupId, Instant, Observation, OomKill, SensorName

NAME = SensorName("kernel.oom_kill")
PROGRAM = KernelProgram(
    sensor=NAME,
    stem="oom_kill",
    attachments=(
        Attachment("oom_kill_mark_victim", "oom:mark_victim"),
        Attachment("oom_kill_deliver", "signal:signal_deliver"),
    ),
    maps=("oom_kill_events", "oom_kill_ledger"),
)
_NOT_SAID = (1 << 64) - 1


class OomKillSensor:
    """Says who was killed for want of memory, with what the cgroup's own files say of it."""

    name = NAME
    period_s = 0.25

    def __init__(self, *, handover: Handover | None, identifier: Identifier, memory: MemoryFiles) -> None:
        self._program = HandedProgram(sensor=NAME, stem=PROGRAM.stem, handover=handover)
        self._identifier = identifier
        self._memory = memory

    def __repr__(self) -> str:
        return f"OomKillSensor({self._program}, {self._memory})"

    def open(self) -> None:
        """Take hold of the ring and note the kill counters as they stand."""
        self._program.open()
        self._memory.look()

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return the kills since the last read."""
        self._identifier.keep_warm()
        found: list[Observation] = [self._observation(event, now) for event in self._program.records()]
        return found + list(self._program.losses(now))

    def waiting(self) -> bool:
        """Whether there are events."""
        return self._program.waiting()

    def settle(self) -> None:
        """Note how far the ring is judged and on disk."""
        self._program.settle()

    def wakeup_fd(self) -> int | None:
        """Every kill is told at once."""
        return self._program.wakeup_fd()

    def close(self) -> None:
        """Let go of the ring."""
        self._program.close()

    def _observation(self, event: dict[str, Any], now: Instant) -> OomKill:
        origin = self._identifier.origin(
            pid=event["pid"],
            cgroup_id=CgroupId(event["cgroup_id"]),
            process_name=event["process"],
            at_boot_ns=event["time_ns"],
        )
        in_memory_hierarchy = self._identifier.memory_paths(event["pid"]).get("memory")
        paths = tuple(p for p in (in_memory_hierarchy, origin.cgroup_path) if p)
        witness = self._memory.witness(paths)
        kib = event["anon_rss_kib"]
        return OomKill(
            sensor=NAME,
            at=at_boot_ns(event["time_ns"], now),
            origin=origin,
            scope=witness.scope,
            anon_rss_bytes=None if kib == _NOT_SAID else kib * 1024,
            limit_bytes=witness.limit_bytes,
            kills_in_cgroup=witness.kills_in_cgroup,
        )
