"""Breaches of declared scopes (`scope.bpf.c`), and which cgroup each scope is, told to the kernel.

The rules are the loader's: this reader finds their names and whether they deny in a table that is frozen. All
that it writes is which cgroup is which scope, once a second, because a unit that restarts is another cgroup.
Until it has looked, a process of the new cgroup is nobody's and passes.

The kernel tells a few breaches a second of each sort and counts all. What was counted at one read and not
told by the next is added to the last that was told: by then, what the ring had room for has been read.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from probes.host.clock import at_boot_ns
from probes.host.identity import Batch, Identifier, decode_name
from probes.host.scope_cgroups import ScopeCgroups
from probes.kernel.handed import HandedProgram
from probes.kernel.handover import Handover
from probes.kernel.libbpf import Ledger
from probes.kernel.programs import Attachment, Capability, KernelProgram, SocketAttachment, SocketCall
from probes.kernel.scope_rules import EXECUTABLE, address_text
from probes.observation import BlindReason, Instant, Observation, Origin, SensorName
from probes.observed.scope import BreachKind, ScopeBreached
from probes.scopes import SCOPES_MAX, ScopeRule
from probes.sensor import SensorBlind

NAME = SensorName("kernel.scope")
PROGRAM = KernelProgram(
    sensor=NAME,
    stem="scope",
    attachments=(
        Attachment("scope_exec", "sched:sched_process_exec"),
        Attachment("scope_fork", "sched:sched_process_fork", required=False),
        SocketAttachment("scope_connect4", SocketCall.CONNECT4),
        SocketAttachment("scope_connect6", SocketCall.CONNECT6),
        SocketAttachment("scope_sendmsg4", SocketCall.SENDMSG4),
        SocketAttachment("scope_sendmsg6", SocketCall.SENDMSG6),
        SocketAttachment("scope_bind4", SocketCall.BIND4),
        SocketAttachment("scope_bind6", SocketCall.BIND6),
    ),
    maps=("scope_members", "scope_rules", "scope_totals", "scope_events", "scope_ledger"),
    capabilities=frozenset({Capability.NET_ADMIN}),
    scoped=True,
)
_KINDS = (BreachKind.EXECUTABLE, BreachKind.DESTINATION, BreachKind.LISTENER)  # enum scope_sort
_SORTS = 4  # SCOPE_SORTS
_LOOK_S = 1.0
_NAME_BYTES = 64
_KEY = struct.Struct("=Q")
_VALUE = struct.Struct("=I")


class ScopeSensor:
    """Says what declared scopes did that they may not, and keeps the kernel's list of their cgroups."""

    name = NAME
    period_s = 0.25

    def __init__(
        self,
        *,
        handover: Handover | None,
        identifier: Identifier,
        rules: Sequence[ScopeRule],
        root: Path | None,
        monotonic: Callable[[], float] = time.monotonic,
        own_cgroup: Path = Path("/proc/self/cgroup"),
    ) -> None:
        """`root` is where the cgroup v2 hierarchy is mounted."""
        self._program = HandedProgram(sensor=NAME, stem=PROGRAM.stem, handover=handover)
        self._identifier = identifier
        self._handover = handover
        self._cgroups = ScopeCgroups(rules=rules, root=root, monotonic=monotonic)
        self._root = root
        self._monotonic = monotonic
        self._own_cgroup = own_cgroup
        self._scopes: dict[int, str] = {}
        self._members: dict[int, int] = {}
        self._looked_s: float | None = None
        self._totals: Ledger | None = None
        self._opened_ns = 0
        self._told: dict[int, int] = {}
        self._counted: dict[int, int] = {}
        self._last: dict[int, ScopeBreached] = {}

    def __repr__(self) -> str:
        return f"ScopeSensor({NAME}, {self._program}, scopes={len(self._scopes)}, {self._cgroups})"

    def open(self) -> None:
        """Take hold of the ring, read which scopes the kernel holds, and say which cgroups they are."""
        self._program.open()
        try:
            self._scopes = self._loaded()
            self._table = self._program.map("members")
            self._members = {_KEY.unpack(key)[0]: -1 for key in self._table.keys()}  # noqa: SIM118
            self._totals = Ledger(fd=self._program.descriptor("totals"))
            self._opened_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            self._told = {index: self._totals.count(index) for index in self._indices()}
            self._counted = dict(self._told)
            self._last.clear()
            self._follow()
        except OSError as error:
            raise SensorBlind(BlindReason.READ_FAILED, str(error.strerror)) from error

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return the breaches since the last read."""
        try:
            self._follow()
        except OSError as error:
            raise SensorBlind(BlindReason.READ_FAILED, str(error.strerror)) from error
        batch = self._identifier.batch()
        found = [b for event in self._program.records() if (b := self._breach(event, batch, now))]
        return [*self._with_the_untold(found, now), *self._program.losses(now)]

    def waiting(self) -> bool:
        """Whether there are breaches, or it is time to look for the cgroups again."""
        return self._program.waiting() or self._is_due() or self._has_untold()

    def settle(self) -> None:
        """Note how far the ring is judged and on disk."""
        self._program.settle()

    def wakeup_fd(self) -> int | None:
        """A breach waits for its turn: it was refused already, or it passed."""
        return self._program.wakeup_fd()

    def close(self) -> None:
        """Let go of the ring; the kernel goes on holding the cgroups that it was told."""
        self._program.close()
        if self._totals is not None:
            self._totals.close()
            self._totals = None

    def _loaded(self) -> dict[int, str]:
        """Return the name of each scope that the kernel holds, by its slot."""
        table = self._program.map("rules")
        _, read_value = self._program.layout_of("rules")
        scopes = {}
        for slot in range(1, SCOPES_MAX + 1):
            raw = table.lookup(struct.pack("=i", slot))
            if raw is None:
                continue
            value = read_value(raw)
            if name := decode_name(value["name"]):
                scopes[slot] = name
        return scopes

    def _is_due(self) -> bool:
        return self._looked_s is None or self._monotonic() - self._looked_s >= _LOOK_S

    def _follow(self) -> None:
        """Tell the kernel of cgroups that are new, and take back those that are gone."""
        if not self._is_due():
            return
        self._looked_s = self._monotonic()
        slots = {name: slot for slot, name in self._scopes.items()}
        wanted = {int(inode): slots[name] for name, inode in self._cgroups.now().items() if name in slots}
        own = self._own()
        if own is not None:
            wanted[own] = 0  # no scope, whatever it lies in, holds the agent
        if wanted == self._members:
            return
        for inode, slot in wanted.items():
            if self._members.get(inode) != slot:
                self._table.update(_KEY.pack(inode), _VALUE.pack(slot))
        for inode in self._members.keys() - wanted.keys():
            self._table.delete(_KEY.pack(inode))
        self._members = wanted

    def _own(self) -> int | None:
        try:
            lines = self._own_cgroup.read_text(errors="replace").splitlines()
            path = next((line[3:] for line in lines if line.startswith("0::/")), "/")
            return None if self._root is None or path == "/" else Path(f"{self._root}{path}").stat().st_ino
        except OSError:
            return None

    def _indices(self) -> list[int]:
        return [slot * _SORTS + sort for slot in self._scopes for sort in range(len(_KINDS))]

    def _has_untold(self) -> bool:
        totals = self._totals
        return totals is not None and any(totals.count(index) > told for index, told in self._told.items())

    def _breach(
        self, event: Mapping[str, Any], batch: Batch, now: Instant
    ) -> tuple[int, ScopeBreached] | None:
        scope = self._scopes.get(event["scope"])
        if scope is None or event["sort"] >= len(_KINDS):
            return None
        index = event["scope"] * _SORTS + event["sort"]
        if event["time_ns"] >= self._opened_ns:  # what came before is not in the account of this reader
            self._told[index] += 1
        breach = ScopeBreached(
            sensor=NAME,
            at=at_boot_ns(event["time_ns"], now),
            origin=batch.origin(event),
            scope=scope,
            kind=_KINDS[event["sort"]],
            executable=_last_part(event["path"]) if event["sort"] == EXECUTABLE else "",
            address=address_text(event["family"], event["address"]),
            port=event["port"],
            denied=bool(event["denied"]),
        )
        return index, breach

    def _with_the_untold(
        self, found: Sequence[tuple[int, ScopeBreached]], now: Instant
    ) -> list[ScopeBreached]:
        """Return the breaches; those that the kernel only counted are added to the last of their sort."""
        assert self._totals is not None, "open() comes first"
        breaches = [breach for _, breach in found]
        places = {index: number for number, (index, _) in enumerate(found)}
        self._last |= dict(found)
        for index, told in self._told.items():
            untold = self._counted[index] - told
            self._counted[index] = self._totals.count(index)
            if untold <= 0:
                continue
            self._told[index] += untold
            if index in places:
                last = breaches[places[index]]
                breaches[places[index]] = replace(last, count=last.count + untold)
            else:
                last = self._last.get(index) or self._nameless(index, now)
                breaches.append(replace(last, at=now, count=untold))
        return breaches

    def _nameless(self, index: int, now: Instant) -> ScopeBreached:
        """Return a breach of which nothing is known but that it was counted."""
        slot, sort = divmod(index, _SORTS)
        return ScopeBreached(
            sensor=NAME, at=now, origin=Origin(), scope=self._scopes[slot], kind=_KINDS[sort]
        )


def _last_part(path: bytes) -> str:
    name = decode_name(path).rpartition("/")[2]
    return name.encode(errors="replace")[:_NAME_BYTES].decode(errors="ignore")
