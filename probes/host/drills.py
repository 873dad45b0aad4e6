"""`host.drills`: the mark by which root announces a drill on this host (`nanobot-agent drill`).

The mark is a small file in a folder that only root can write to, so nobody else can have a fault of his own
taken for a drill. A mark that somebody else owns or could have written is refused, and the sensor is blind
for as long as it lies there. A drill whose deadline has passed is over, whatever became of its command.

Looking for a file that is not there, twice a second, is all that this costs while there is no drill.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from probes.observation import BlindReason, DrillBegan, DrillEnded, Instant, Observation, SensorName
from probes.sensor import SensorBlind

NAME: Final = SensorName("host.drills")
MARK: Final = Path("/run/nanobot-drill/mark.json")
MARK_BYTES: Final = 16_384
_ID: Final = re.compile(r"nanobot-drill-[0-9a-f]{8}\Z")
_FAULT_CLASS: Final = re.compile(r"[a-z][a-z0-9_.]{0,63}\Z")
_LISTED: Final = 16
_TEXT: Final = 512


class MarkError(ValueError):
    """The mark does not say what a mark says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillMark:
    """What the mark says; the lists are of what belongs to the drill, and of nothing else."""

    id: str
    fault_class: str
    deadline_boot_ns: int
    units: tuple[str, ...] = ()
    cgroups: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    pids: tuple[int, ...] = ()
    ports: tuple[int, ...] = ()


def parse(raw: bytes) -> DrillMark:
    """Return the mark in `raw`; raise MarkError where it is not one in full."""
    try:
        plain = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise MarkError("is no JSON") from error
    if not isinstance(plain, dict) or set(plain) - set(DrillMark.__dataclass_fields__):
        raise MarkError("is no mark")
    name, fault_class, deadline = plain.get("id"), plain.get("fault_class"), plain.get("deadline_boot_ns")
    if not isinstance(name, str) or not _ID.match(name):
        raise MarkError("has no id of a drill")
    if not isinstance(fault_class, str) or not _FAULT_CLASS.match(fault_class):
        raise MarkError("names no fault class")
    if not isinstance(deadline, int) or isinstance(deadline, bool) or not 0 < deadline < 1 << 63:
        raise MarkError("has no deadline")
    return DrillMark(
        id=name,
        fault_class=fault_class,
        deadline_boot_ns=deadline,
        units=_words(plain, "units"),
        cgroups=_words(plain, "cgroups"),
        mounts=_words(plain, "mounts"),
        pids=_numbers(plain, "pids", 1 << 22),
        ports=_numbers(plain, "ports", 65_535),
    )


class DrillsSensor:
    """Tells when a drill begins and when it is over."""

    name = NAME
    period_s = 0.5

    def __init__(self, *, mark: Path = MARK, owner: int = 0) -> None:
        self._path = str(mark)
        self._owner = owner
        self._seen: tuple[int, int, int] | None = None
        self._drill: DrillMark | None = None

    def __repr__(self) -> str:
        return f"DrillsSensor({NAME}, drill={self._drill.id if self._drill else None})"

    def open(self) -> None:
        """Begin with no drill; one that is on is told by the first read."""
        self._seen = self._drill = None

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return the beginning and the end of drills; raise SensorBlind where the mark cannot be trusted."""
        signature = _signature(self._path)
        if signature == self._seen:
            return self._overdue(now)
        try:
            mark = _read(self._path, self._owner)
        except (OSError, MarkError) as error:
            raise SensorBlind(
                BlindReason.READ_FAILED, f"the mark of a drill {error}", last=self._end(now)
            ) from error
        self._seen = signature
        if mark is not None and mark.deadline_boot_ns <= now.boot_ns:
            mark = None
        if mark == self._drill:
            return ()
        told = list(self._end(now))
        if mark is not None:
            self._drill = mark
            told.append(
                DrillBegan(
                    sensor=NAME,
                    at=now,
                    id=mark.id,
                    fault_class=mark.fault_class,
                    units=mark.units,
                    cgroups=mark.cgroups,
                    mounts=mark.mounts,
                    pids=mark.pids,
                    ports=mark.ports,
                )
            )
        return told

    def waiting(self) -> bool:
        """Whether the mark has come, gone or changed, or a drill is on, whose deadline may pass."""
        return self._drill is not None or _signature(self._path) != self._seen

    def settle(self) -> None:
        """Nothing to note: a successor reads the mark again."""

    def wakeup_fd(self) -> int | None:
        """A mark waits for its turn, and its command waits for us."""
        return None

    def close(self) -> None:
        """Forget the drill."""
        self._seen = self._drill = None

    def _overdue(self, now: Instant) -> Sequence[Observation]:
        overdue = self._drill is not None and self._drill.deadline_boot_ns <= now.boot_ns
        return self._end(now) if overdue else ()

    def _end(self, now: Instant) -> Sequence[Observation]:
        drill, self._drill = self._drill, None
        return () if drill is None else (DrillEnded(sensor=NAME, at=now, id=drill.id),)


def _signature(path: str) -> tuple[int, int, int] | None:
    try:
        seen = os.lstat(path)
    except OSError:
        return None
    return seen.st_ino, seen.st_mtime_ns, seen.st_size


def _read(path: str, owner: int) -> DrillMark | None:
    """Return the mark, None where there is none; raise where it is not `owner`'s alone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != owner or found.st_mode & 0o022:
            raise MarkError("could have been written by somebody else")
        if found.st_size > MARK_BYTES:
            raise MarkError("is too long")
        return parse(os.read(descriptor, MARK_BYTES))
    finally:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _words(plain: dict[str, Any], name: str) -> tuple[str, ...]:
    words = plain.get(name, [])
    if not isinstance(words, list) or len(words) > _LISTED:
        raise MarkError(f"has no list of {name}")
    if not all(isinstance(word, str) and 0 < len(word) <= _TEXT and word.isprintable() for word in words):
        raise MarkError(f"has {name} that are none")
    return tuple(words)


def _numbers(plain: dict[str, Any], name: str, most: int) -> tuple[int, ...]:
    numbers = plain.get(name, [])
    if not isinstance(numbers, list) or len(numbers) > _LISTED:
        raise MarkError(f"has no list of {name}")
    if not all(type(number) is int and 0 < number <= most for number in numbers):
        raise MarkError(f"has {name} that are none")
    return tuple(numbers)
