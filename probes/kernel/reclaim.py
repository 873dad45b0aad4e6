"""Direct reclaim by control group (`reclaim.bpf.c`), with what the group's own pressure file says.

A group that had to reclaim is followed for `_FOLLOWED_S` after the last time, because that it stopped is news
as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from probes.host.identity import Identifier
from probes.kernel.handover import Handover
from probes.kernel.programs import Attachment, KernelProgram
from probes.kernel.tables import CountedTable
from probes.observation import CgroupId, DirectReclaims, Instant, Observation, Origin, SensorName

NAME: Final = SensorName("kernel.reclaim")
PROGRAM: Final = KernelProgram(
    sensor=NAME,
    stem="reclaim",
    attachments=(
        Attachment("reclaim_of_host", "vmscan:mm_vmscan_direct_reclaim_begin"),
        Attachment("reclaim_of_group", "vmscan:mm_vmscan_memcg_reclaim_begin", required=False),
    ),
    maps=("reclaim_counts", "reclaim_ledger"),
)
_GROUPS: Final = 32
_KNOWN: Final = 4096
_FOLLOWED_S: Final = 300.0
_FULL: Final = re.compile(rb"^full avg10=(\d{1,3}\.\d{1,2}) avg60=(\d{1,3}\.\d{1,2}) ", re.MULTILINE)


@dataclass(slots=True)
class _Followed:
    """A group that reclaimed: who it is, and when it last did."""

    origin: Origin
    last: Instant


class ReclaimSensor:
    """Says which control groups have to make room for themselves."""

    name = NAME
    period_s = 5.0

    def __init__(self, *, handover: Handover | None, identifier: Identifier, root: Path | None) -> None:
        """`root` is where the cgroup v2 hierarchy is mounted, None where it is not."""
        self._table = CountedTable(sensor=NAME, stem=PROGRAM.stem, table="counts", handover=handover)
        self._identifier = identifier
        self._root = root
        self._counted: dict[int, tuple[int, int]] = {}
        self._followed: dict[int, _Followed] = {}
        self._read_at: Instant | None = None

    def __repr__(self) -> str:
        return f"ReclaimSensor({self._table}, followed={len(self._followed)})"

    def open(self) -> None:
        """Take hold of the table and note how it stands."""
        self._table.open()
        self._counted = {
            key["cgroup_id"]: (value["count"], value["by_limit"]) for key, value in self._table.rows()
        }
        self._followed.clear()
        self._read_at = None

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return what each group did since the last read, the busiest first."""
        window_s = 0.0 if self._read_at is None else now.since_s(self._read_at)
        self._read_at = now
        spent = self._spent(now) if self._table.moved() else {}
        if window_s <= 0:
            return []
        found: list[Observation] = []
        for group, followed in list(self._followed.items()):
            if now.since_s(followed.last) > _FOLLOWED_S:
                del self._followed[group]
                continue
            count, by_limit = spent.get(group, (0, 0))
            avg10, avg60 = self._pressure(followed.origin)
            found.append(
                DirectReclaims(
                    sensor=NAME,
                    at=now,
                    origin=followed.origin,
                    window_s=window_s,
                    count=count,
                    by_limit=by_limit,
                    memory_full_avg10=avg10,
                    memory_full_avg60=avg60,
                )
            )
        return [*found, *self._table.losses(now)]

    def waiting(self) -> bool:
        """Whether anything was counted, or a group is followed."""
        return bool(self._followed) or self._table.moved()

    def settle(self) -> None:
        """Nothing to note: a successor begins with the table as it stands."""

    def wakeup_fd(self) -> int | None:
        """A count waits for its turn."""
        return None

    def close(self) -> None:
        """Let go of the table."""
        self._table.close()

    def _spent(self, now: Instant) -> dict[int, tuple[int, int]]:
        spent, pids = {}, {}
        for key, value in self._table.rows():
            group, count, by_limit = key["cgroup_id"], value["count"], value["by_limit"]
            before = self._counted.pop(group, (0, 0))
            if before[0] > count:  # it made room for another and began anew
                before = (0, 0)
            self._counted[group] = (count, by_limit)
            if count > before[0]:
                spent[group] = (count - before[0], by_limit - before[1])
                pids[group] = value["pid"]
        while len(self._counted) > _KNOWN:
            del self._counted[next(iter(self._counted))]
        for group in sorted(spent, key=lambda group: -spent[group][0])[:_GROUPS]:
            known = self._followed.pop(group, None)
            origin = known.origin if known else self._origin(group, pids[group])
            self._followed[group] = _Followed(origin, now)
        while len(self._followed) > _GROUPS:
            del self._followed[next(iter(self._followed))]
        return spent

    def _origin(self, group: int, pid: int) -> Origin:
        """Return whose group it is; of the root, which all share, the process that reclaims names it."""
        place = self._identifier.origin(cgroup_id=CgroupId(group))
        if place.cgroup_path not in (None, "/"):
            return place
        return self._identifier.origin(pid=pid)

    def _pressure(self, origin: Origin) -> tuple[float | None, float | None]:
        path = origin.cgroup_path
        if self._root is None or path is None or "\0" in path:
            return None, None
        try:
            found = _FULL.search(Path(f"{self._root}{path}", "memory.pressure").read_bytes())
        except OSError:
            return None, None
        return (float(found[1]), float(found[2])) if found else (None, None)
