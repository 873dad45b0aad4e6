"""`host.storage`: how the filesystems that matter stand, and whether the host waits for its disks.

Reads the mount table (`storage_mounts`), asks each filesystem for its sizes within a deadline
(`storage_calls`), and reads /proc/pressure/io (Documentation/accounting/psi.rst). A look is taken every
`SAMPLE_S` seconds and told when something moved, and every `TELL_S` seconds otherwise. The table is taken
apart only when its text changed.

What the sandbox of the agent hides is told as hidden, with what the mount table says of it all the same.

An ext4 that stops writing at an error says so in the mount table of some kernels (`storage_mounts`).
On 6.1.192 that stays as it was; there its own count of errors tells, once it rises while it is mounted to
stop at the first.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from probes.host.storage_calls import BoundedCalls, Refused, Space, Unanswered, space
from probes.host.storage_disks import Disks
from probes.host.storage_mounts import KNOWN, Chosen, Mount, choose, parse
from probes.observation import (
    BlindReason,
    Filesystem,
    Filesystems,
    Instant,
    Observation,
    SensorName,
    Sight,
)
from probes.sensor import SensorBlind
from probes.settings import StorageSettings

NAME: Final = SensorName("host.storage")
SAMPLE_S: Final = 15.0
TELL_S: Final = 60.0
FILESYSTEMS_MAX: Final = 32
_RESOLVE_S: Final = 600.0
_MOVED_SHARE: Final = 1 / 256
"""Of a filesystem: what its free space has to move by to be worth telling before its time."""

_SHORT_SHARE: Final = 1 / 8
"""Of a filesystem: with less free, every byte that moves is worth telling."""

_BYTES: Final = 1 << 20
_IO_FULL: Final = re.compile(rb"^full avg10=\S+ avg60=(\d{1,3}\.\d{1,2}) ", re.MULTILINE)
_IO_MOVED: Final = 5.0


class StorageSensor:
    """Looks at the host's filesystems and tells what moved."""

    name = NAME
    period_s = SAMPLE_S

    def __init__(
        self,
        *,
        settings: StorageSettings,
        proc: Path = Path("/proc"),
        disks: Disks | None = None,
        ask: Callable[[str], Space] = space,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._proc = str(proc)
        self._disks = disks or Disks()
        self._calls = BoundedCalls(ask=ask)
        self._links: BoundedCalls[str] = BoundedCalls(ask=os.path.realpath)
        self._monotonic = monotonic
        self._text: tuple[bytes, bytes] | None = None
        self._chosen: tuple[Chosen, ...] = ()
        self._left_out = 0
        self._resolved: Mapping[str, str] = {}
        self._resolved_s: float | None = None
        self._told: Filesystems | None = None
        self._told_s = 0.0
        self._errors: dict[tuple[int, str], int] = {}

    def __repr__(self) -> str:
        return f"StorageSensor({NAME}, filesystems={len(self._chosen)}, {self._calls!r})"

    def open(self) -> None:
        """Raise SensorBlind where there is no mount table to read."""
        self.close()
        self._table("1")

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return how the filesystems stand, when that is worth telling."""
        at_s = self._monotonic()
        self._choose(at_s)
        told = self._look(now)
        before = self._told
        if before is not None and at_s - self._told_s < TELL_S - 1 and not _moved(before, told):
            return ()
        self._told, self._told_s = told, at_s
        return (told,)

    def waiting(self) -> bool:
        """There is always something to look at."""
        return True

    def settle(self) -> None:
        """Nothing to note: every look is whole."""

    def wakeup_fd(self) -> int | None:
        """A look waits for its turn."""
        return None

    def close(self) -> None:
        """Forget everything but the threads that are stuck."""
        self._text = self._told = self._resolved_s = None
        self._chosen = ()
        self._errors = {}

    def _choose(self, at_s: float) -> None:
        text = (self._table("1"), self._table("self"))
        fresh = self._resolved_s is not None and at_s - self._resolved_s < _RESOLVE_S
        if text == self._text and fresh:
            return
        if not fresh:
            self._resolved, self._resolved_s = self._where(), at_s
        self._text = text
        host, own = (parse(each.decode(errors="surrogateescape")) for each in text)
        self._chosen, self._left_out = choose(
            host,
            own,
            declared=self._settings.paths,
            external=self._settings.external,
            resolved=self._resolved,
            most=FILESYSTEMS_MAX,
        )

    def _where(self) -> dict[str, str]:
        """Follow the links of known and declared paths, as far as they can be seen."""
        paths = [path for path, _ in KNOWN if path != "/"] + list(self._settings.paths)
        found = self._links.answers(paths)
        return {path: where for path, where in found.items() if isinstance(where, str)}

    def _table(self, whose: str) -> bytes:
        text = _bytes(f"{self._proc}/{whose}/mountinfo")
        if not text:
            raise SensorBlind(
                BlindReason.UNSUPPORTED_PLATFORM, f"{self._proc}/{whose}/mountinfo cannot be read"
            )
        return text

    def _look(self, now: Instant) -> Filesystems:
        answers = self._calls.answers(each.ask for each in self._chosen if each.ask is not None)
        mounted = {(each.mount.identity, each.mount.device) for each in self._chosen if each.mount}
        self._errors = {key: count for key, count in self._errors.items() if key in mounted}
        full = _IO_FULL.search(_bytes(f"{self._proc}/pressure/io"))
        return Filesystems(
            sensor=NAME,
            at=now,
            filesystems=tuple(
                self._filesystem(each, answers.get(each.ask) if each.ask else None) for each in self._chosen
            ),
            io_full_avg60=float(full[1]) if full else None,
            left_out=self._left_out,
        )

    def _filesystem(self, chosen: Chosen, answer: Space | Refused | Unanswered | None) -> Filesystem:
        mount = chosen.mount
        sight = {
            Space: Sight.SEEN,
            Refused: Sight.FAILED,
            Unanswered: Sight.NOT_ANSWERING,
            type(None): Sight.HIDDEN,
        }[type(answer)]
        sizes = answer if isinstance(answer, Space) else None
        errors = self._disks.error_count(mount.device) if mount else None
        forced = mount is not None and (mount.forced or self._stopped(mount, errors))
        return Filesystem(
            mount=chosen.point,
            role=chosen.role,
            filesystem=mount.filesystem if mount else "",
            device=mount.device if mount else "",
            disk=self._disks.of_source(mount.device, mount.source) if mount else "",
            mounted=mount is not None,
            read_only=mount is not None and (mount.read_only or forced),
            forced=forced,
            device_gone=self._disks.is_gone(mount.device) if mount else None,
            error_count=errors,
            sight=sight,
            total_bytes=sizes.total_bytes if sizes else None,
            free_bytes=sizes.free_bytes if sizes else None,
            total_inodes=sizes.total_inodes if sizes else None,
            free_inodes=sizes.free_inodes if sizes else None,
        )

    def _stopped(self, mount: Mount, errors: int | None) -> bool:
        """Return whether a filesystem found an error since its mount was first seen, and stops at one."""
        if errors is None or not mount.stops_on_error:
            return False
        return errors > self._errors.setdefault((mount.identity, mount.device), errors)


def _moved(before: Filesystems, told: Filesystems) -> bool:
    """Return whether anything is worth telling that was not told before."""
    if abs((told.io_full_avg60 or 0.0) - (before.io_full_avg60 or 0.0)) >= _IO_MOVED:
        return True
    if len(before.filesystems) != len(told.filesystems):
        return True
    return any(
        _sizeless(one) != _sizeless(other)
        or _differs(one.total_bytes, one.free_bytes, other.free_bytes)
        or _differs(one.total_inodes, one.free_inodes, other.free_inodes)
        for one, other in zip(before.filesystems, told.filesystems, strict=True)
    )


def _sizeless(state: Filesystem) -> Filesystem:
    return replace(state, total_bytes=None, free_bytes=None, total_inodes=None, free_inodes=None)


def _differs(total: int | None, before: int | None, now: int | None) -> bool:
    if total is None or before is None or now is None:
        return before != now
    return before != now and (now < total * _SHORT_SHARE or abs(now - before) > total * _MOVED_SHARE)


def _bytes(path: str) -> bytes:
    """Return a file's text, at most a mebibyte of it, nothing where it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    parts: list[bytes] = []
    try:
        while sum(map(len, parts)) < _BYTES and (part := os.read(descriptor, 1 << 16)):
            parts.append(part)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
    return b"".join(parts)
