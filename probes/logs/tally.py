"""What one round of reading found: equal lines counted as one, and never more than there is room for.

Runs on the thread that reads. Nothing in it is text of a line but the names that the kernel or the journal
itself vouch for: of a process, a unit, a cgroup.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Final

from probes.gpu.kernel_log import FallenOffLine, InitFailedLine, MismatchLine, XidLine, parse
from probes.logs.kernel_patterns import NVIDIA_API_MISMATCH, NVIDIA_FELL_OFF, NVIDIA_INIT_FAILED
from probes.logs.pattern import LINE_MAX, LineSource, Match, Matcher, Pattern
from probes.observed.logs import LogCapture

KINDS_MAX: Final = 256
XIDS_MAX: Final = 256
ADDRESSES_MAX: Final = 16
"""So many addresses that one writer names in lines of one pattern are told apart."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Who wrote a line, as the journal knows it; nothing is known of who wrote to a file."""

    pid: int | None = None
    name: str | None = None
    cgroup_path: str | None = None
    container_id: str | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """`count` lines of one pattern by one writer of one address; captures and time are of the last one."""

    pattern: Pattern
    writer: Writer
    captures: tuple[LogCapture, ...]
    unix_ns: int
    count: int = 1


@dataclass(frozen=True, slots=True)
class ToldXid:
    """An Xid that the driver wrote into the kernel log."""

    line: XidLine
    unix_ns: int


@dataclass(frozen=True, slots=True)
class Harvest:
    """What was found since the last time, and how much did not fit or could not be read."""

    lines: tuple[Told, ...] = ()
    xids: tuple[ToldXid, ...] = ()
    lost: int = 0


class Tally:
    """Counts matches by pattern, writer and the address that they name: two nodes are two facts."""

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher
        self._told: dict[tuple[str, Writer, tuple[LogCapture, ...]], Told] = {}
        self._xids: list[ToldXid] = []
        self._named: Counter[tuple[str, Writer]] = Counter()
        self._lost = 0

    def __repr__(self) -> str:
        return f"Tally({len(self._told)} kinds, {len(self._xids)} Xids, {self._lost} lost)"

    def __bool__(self) -> bool:
        return bool(self._told or self._xids or self._lost)

    def match(self, text: str, source: LineSource) -> Match | XidLine | None:
        """Return what a line says, so that its writer is asked for only when it says something."""
        if source is LineSource.KERNEL and "NVRM:" in text:
            return _of_the_driver(text)
        return self._matcher.match(text[:LINE_MAX], source)

    def add(self, said: Match | XidLine, writer: Writer, unix_ns: int) -> None:
        """Count one line."""
        if isinstance(said, XidLine):
            if len(self._xids) < XIDS_MAX:
                self._xids.append(ToldXid(said, unix_ns))
            else:
                self._lost += 1
            return
        named = tuple(each for each in said.captures if each.name in said.pattern.addresses)
        key = (said.pattern.id, writer, named)
        known = self._told.get(key)
        if named and known is None:
            self._named[key[:2]] += 1
            if self._named[key[:2]] > ADDRESSES_MAX:  # whoever names more of them has no say over other lines
                key = (*key[:2], ())
                known = self._told.get(key)
        if known is not None:
            self._told[key] = replace(known, captures=said.captures, unix_ns=unix_ns, count=known.count + 1)
        elif len(self._told) < KINDS_MAX:
            self._told[key] = Told(said.pattern, writer, said.captures, unix_ns)
        else:
            self._lost += 1

    def lose(self, count: int = 1) -> None:
        """Note that lines were passed over."""
        self._lost += count

    def harvest(self) -> Harvest:
        """Return everything and begin anew."""
        found = Harvest(tuple(self._told.values()), tuple(self._xids), self._lost)
        self._told, self._xids, self._lost = {}, [], 0
        self._named.clear()
        return found


def _of_the_driver(text: str) -> Match | XidLine | None:
    match parse(text):
        case XidLine() as line:
            return line
        case FallenOffLine():
            return Match(NVIDIA_FELL_OFF, ())
        case InitFailedLine():
            return Match(NVIDIA_INIT_FAILED, ())
        case MismatchLine(client, module, pid):
            captures = [
                LogCapture("client", number=float(client.partition(".")[0])),
                LogCapture("module", number=float(module.partition(".")[0])),
            ]
            if pid is not None:
                captures.append(LogCapture("pid", number=float(pid)))
            return Match(NVIDIA_API_MISMATCH, tuple(captures))
        case None:
            return None
