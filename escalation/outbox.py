"""The durable spool on the host: what was judged is on disk before it is sent, and stays until it is acked.

Reports are numbered as `numbering.py` says, and the file is opened as `spool.py` says.

Not piled up: of heartbeats, and of the UPDATED reports of one case, only the newest waits. Both are
cumulative, so the newest says all; the numbers of the others are never sent.

When it fills up, room is kept for what matters more: changes of the host may fill half, UPDATED three
quarters, OPENED and CLEARED fifteen sixteenths, a Loss and the one heartbeat everything.

One thread owns an Outbox. Clock: none; `now_ns` comes from the caller and orders nothing. The module is long
because all its transactions keep one account (numbers, bytes, what may be replaced) that must not be split.
"""

from __future__ import annotations

import contextlib
import sqlite3
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self, TypeVar, assert_never

from escalation.model import (
    AgentId,
    Body,
    BootId,
    CasePhase,
    CaseReport,
    Heartbeat,
    HostChange,
    Loss,
    LossKind,
    Report,
)
from escalation.numbering import SEQUENCE_BITS, SEQUENCE_MAX, Mark, Numbering, begun, missing
from escalation.spool import (
    MarkFile,
    OutboxError,
    OutboxFull,
    OutboxUnwritable,
    SpoolDamaged,
    connect,
    quarantine,
    translated,
)
from escalation.wire.codec import decode, encode

__all__ = ["Depth", "Outbox", "OutboxError", "OutboxFull", "OutboxUnwritable", "Stored"]

T = TypeVar("T")

LEAST_BYTES: Final = 64 * 1024
ROW_BYTES: Final = 64
"""What a row is reckoned to cost beside its payload."""

_SET_ASIDE_KEPT: Final = 100
_VACUUM_PAGES: Final = 256
_NO_NOTES: Final[Mapping[str, bytes | None]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Stored:
    """One waiting report: its place in the spool, its identity, and its serialized message."""

    row: int
    boot_id: BootId
    sequence: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Depth:
    """How much waits. `oldest_created_ns` is None when nothing does."""

    reports: int
    bytes: int
    oldest_created_ns: int | None


class Outbox:
    """Keeps reports until they are acknowledged; `open` makes one."""

    def __init__(self, path: Path, *, agent_id: AgentId, kernel_boot_id: str, max_bytes: int) -> None:
        if max_bytes < LEAST_BYTES:
            raise OutboxError(f"spool {path}: a limit of {max_bytes} bytes is under {LEAST_BYTES}")
        self._path = path
        self._agent_id = agent_id
        self._kernel_boot_id = kernel_boot_id
        self._max_bytes = max_bytes
        self._now_ns = 0
        self._mark = MarkFile(path)
        self._database: sqlite3.Connection
        self._numbering = Numbering("", 0, BootId(""))
        self._reports = 0
        self._bytes = 0
        self._replaceable: dict[str, tuple[int, int]] = {}
        self._is_lost = False

    @classmethod
    def open(cls, path: Path, *, agent_id: AgentId, kernel_boot_id: str, max_bytes: int, now_ns: int) -> Self:
        """Open the spool at `path`, or begin a fresh one; raise OutboxUnwritable naming path and reason.

        A damaged file is moved aside as ``<name>.quarantined-<n>``, and the first report of the fresh one is
        a Loss of kind SPOOL_QUARANTINED.
        """
        outbox = cls(path, agent_id=agent_id, kernel_boot_id=kernel_boot_id, max_bytes=max_bytes)
        outbox._now_ns = now_ns
        try:
            outbox._start()
        except BaseException:
            outbox.close()
            raise
        return outbox

    def __repr__(self) -> str:
        return f"<Outbox {self._path} reports={self._reports} bytes={self._bytes} of {self._max_bytes}>"

    @property
    def boot_id(self) -> BootId:
        """The numbering that the next report belongs to."""
        return self._numbering.boot_id

    def append(
        self, bodies: Sequence[Body], *, now_ns: int, notes: Mapping[str, bytes | None] = _NO_NOTES
    ) -> tuple[Report, ...]:
        """Commit `bodies` as reports, and `notes` (None removes one) with them: all or nothing.

        Raises OutboxFull or OutboxUnwritable; nothing was kept then. A spool found damaged is moved aside and
        the reports go to the fresh one.
        """
        self._now_ns = now_ns
        return self._soundly(lambda: self._append(bodies, notes))

    def notes(self, prefix: str) -> dict[str, bytes]:
        """Return the notes whose key starts with `prefix`; a damaged one is removed and counted as lost."""
        return self._soundly(lambda: self._notes(prefix))

    def pending(self, *, after_row: int, limit: int, max_bytes: int) -> tuple[Stored, ...]:
        """Return waiting reports after `after_row` in order: of one boot id, at least one where any waits.

        Rows whose checksum does not match are set aside and counted as lost, once.
        """
        return self._soundly(lambda: self._pending(after_row, limit, max_bytes))

    def acknowledge(self, boot_id: BootId, sequence: int) -> int:
        """Forget the reports of `boot_id` up to `sequence`; return how many. Ignores an unknown boot id."""
        return self._soundly(lambda: self._acknowledge(boot_id, sequence))

    def set_aside(self, row: int, *, now_ns: int) -> None:
        """Take a report that the other side refuses out of the queue, and count it as lost."""
        self._now_ns = now_ns
        self._soundly(lambda: self._set_aside([row], why="refused", kind=LossKind.REPORT_REFUSED))

    def depth(self) -> Depth:
        """Return how much waits."""
        return self._soundly(self._depth)

    def close(self) -> None:
        """Let go of the file; a second call does nothing."""
        if hasattr(self, "_database"):
            self._database.close()
        self._mark.close()

    def _start(self) -> None:
        mark = self._mark.read()
        self._reports, self._bytes, self._replaceable = 0, 0, {}
        try:
            self._database = connect(self._path)
            stored = self._stored_numbering()
            with translated(self._path, "read"):
                before = self._database.execute("SELECT value FROM meta WHERE key = 'before'").fetchone()
            self._adopt(stored, mark=mark, lost=missing(mark, stored, before=before and before[0]))
        except SpoolDamaged:
            self.close()
            shown = quarantine(self._path)
            self._database = connect(self._path)
            self._adopt(None, mark=mark, lost=max(shown, 0 if mark is None else mark.waiting))

    def _soundly(self, call: Callable[[], T]) -> T:
        """Return what `call` does, on a spool begun anew where it is found damaged.

        What a running database reports as damage is damage on disk, so the file is opened again as at a
        start. Where that is refused (the disk is full), the next call tries it again.
        """
        if not self._is_lost:
            try:
                return call()
            except SpoolDamaged:
                self._is_lost = True
        self.close()
        self._start()
        self._is_lost = False
        return call()

    def _stored_numbering(self) -> Numbering | None:
        """Return the newest numbering in the file, None in a fresh one."""
        with translated(self._path, "read"):
            meta = dict(self._database.execute("SELECT key, value FROM meta").fetchall())
            boots = self._database.execute(
                "SELECT boot, boot_id, next_sequence, acked, checksum FROM boots ORDER BY boot"
            ).fetchall()
        if not meta and not boots:
            return None
        found = [Numbering(meta.get("spool_id", ""), *boot) for *boot, _ in boots]
        sound = [each.checksum for each in found] == [checksum for *_, checksum in boots]
        host = (meta.get("spool_id", ""), meta.get("kernel_boot_id", ""))
        if not sound or not found or not found[-1].is_of(spool_id=host[0], kernel_boot_id=host[1]):
            raise SpoolDamaged(f"open spool {self._path}: its numbering is missing or altered")
        return found[-1]

    def _adopt(self, stored: Numbering | None, *, mark: Mark | None, lost: int | None) -> None:
        """Go on with the stored numbering or begin one; a loss is its first report, in one transaction."""
        spool_id = stored.spool_id if stored is not None and lost is None else str(uuid.uuid4())
        numbering = stored
        if numbering is None or not numbering.is_of(spool_id=spool_id, kernel_boot_id=self._kernel_boot_id):
            # Above every boot that anybody may remember: who reads on "after row N" must not miss new rows.
            boots = (each.boot for each in (stored, mark, self._numbering) if each is not None)
            numbering = begun(
                spool_id=spool_id, kernel_boot_id=self._kernel_boot_id, boot=max(boots, default=0) + 1
            )
        self._numbering = numbering
        bodies = () if lost is None else (Loss(LossKind.SPOOL_QUARANTINED, "", lost, exact=False),)
        with self._transaction("begin"):
            self._rename()
            meta = {"spool_id": spool_id, "kernel_boot_id": self._kernel_boot_id, "agent_id": self._agent_id}
            if mark is not None and mark.spool_id != spool_id:
                meta["before"] = mark.spool_id
            self._database.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta.items())
            self._database.execute(
                "DELETE FROM boots WHERE boot != ?1 AND NOT EXISTS "
                "(SELECT 1 FROM reports WHERE row BETWEEN boots.boot << ?2 AND (boots.boot + 1) << ?2)",
                (numbering.boot, SEQUENCE_BITS),
            )
            change = self._insert(bodies)
        self._numbering = change.numbering
        self._count()
        self._mark.write(self._numbering.mark)

    def _rename(self) -> None:
        """Put waiting reports under the agent's present name: under an old one nobody accepts them."""
        before = self._database.execute("SELECT value FROM meta WHERE key = 'agent_id'").fetchone()
        if before is None or before == (self._agent_id,):
            return
        for row, payload, checksum in self._database.execute(
            "SELECT row, payload, checksum FROM reports"
        ).fetchall():
            if _checksum(row, payload) == checksum:
                renamed = encode(replace(decode(payload), agent_id=self._agent_id))
                self._database.execute(
                    "UPDATE reports SET payload = ?, checksum = ? WHERE row = ?",
                    (renamed, _checksum(row, renamed), row),
                )

    def _append(self, bodies: Sequence[Body], notes: Mapping[str, bytes | None]) -> tuple[Report, ...]:
        with self._transaction("append to"):
            change = self._insert(bodies)
            self._write_notes(notes)
        self._apply(change)
        return change.reports

    def _insert(self, bodies: Sequence[Body]) -> _Change:
        """Write `bodies` as the next rows within a transaction; the caller applies the change after it."""
        numbering = self._numbering
        if numbering.next_sequence + len(bodies) > SEQUENCE_MAX:
            raise OutboxFull(f"spool {self._path}: no numbers are left")
        replaceable = dict(self._replaceable)
        reports, total, waiting = [], self._bytes, self._reports
        for sequence, body in enumerate(bodies, start=numbering.next_sequence):
            report = Report(
                agent_id=self._agent_id,
                boot_id=numbering.boot_id,
                sequence=sequence,
                created_ns=self._now_ns,
                body=body,
            )
            payload = encode(report)
            row = numbering.row(sequence)
            size = ROW_BYTES + len(payload)
            key = _replaces(body)
            if key is not None:
                old_row, old_size = replaceable.pop(key, (None, 0))
                replaceable[key] = (row, size)
                if old_row is not None:
                    self._database.execute("DELETE FROM reports WHERE row = ?", (old_row,))
                    total, waiting = total - old_size, waiting - 1
            total, waiting = total + size, waiting + 1
            if total > self._max_bytes * _sixteenths(body) // 16:
                raise OutboxFull(f"spool {self._path}: holds {self._bytes} of {self._max_bytes} bytes")
            self._database.execute(
                "INSERT INTO reports VALUES (?, ?, ?, ?, ?)",
                (row, report.created_ns, key, payload, _checksum(row, payload)),
            )
            reports.append(report)
        numbering = replace(numbering, next_sequence=numbering.next_sequence + len(bodies))
        self._write_numbering(numbering)
        return _Change(tuple(reports), numbering, replaceable, total, waiting)

    def _apply(self, change: _Change) -> None:
        self._numbering = change.numbering
        self._replaceable = change.replaceable
        self._bytes = change.bytes
        self._reports = change.waiting
        self._mark.write(change.numbering.mark)

    def _write_numbering(self, numbering: Numbering) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO boots VALUES (?, ?, ?, ?, ?)",
            (
                numbering.boot,
                numbering.boot_id,
                numbering.next_sequence,
                numbering.acked,
                numbering.checksum,
            ),
        )

    def _write_notes(self, notes: Mapping[str, bytes | None]) -> None:
        for key, value in notes.items():
            if value is None:
                self._database.execute("DELETE FROM notes WHERE key = ?", (key,))
            else:
                row = (key, value, _note_checksum(key, value))
                self._database.execute("INSERT OR REPLACE INTO notes VALUES (?, ?, ?)", row)

    def _notes(self, prefix: str) -> dict[str, bytes]:
        with translated(self._path, "read notes from"):
            rows = self._database.execute(
                "SELECT key, value, checksum FROM notes WHERE substr(key, 1, ?) = ? ORDER BY key",
                (len(prefix), prefix),
            ).fetchall()
        damaged = [key for key, value, checksum in rows if _note_checksum(key, value) != checksum]
        if damaged:
            lost = Loss(LossKind.SPOOL_QUARANTINED, "", len(damaged), exact=True)
            with contextlib.suppress(OutboxError):
                self._append((lost,), dict.fromkeys(damaged))
        return {key: value for key, value, _ in rows if key not in damaged}

    def _depth(self) -> Depth:
        with translated(self._path, "read"):
            oldest = self._database.execute("SELECT created_ns FROM reports ORDER BY row LIMIT 1").fetchone()
        return Depth(self._reports, self._bytes, None if oldest is None else oldest[0])

    def _pending(self, after_row: int, limit: int, max_bytes: int) -> tuple[Stored, ...]:
        with translated(self._path, "read"):
            boot_ids = dict(self._database.execute("SELECT boot, boot_id FROM boots").fetchall())
            rows = self._database.execute(
                "SELECT row, payload, checksum FROM reports WHERE row > ? ORDER BY row LIMIT ?",
                (after_row, limit),
            )
            sound: list[Stored] = []
            damaged: list[int] = []
            size = 0
            for row, payload, checksum in rows:
                boot, sequence = row >> SEQUENCE_BITS, row & SEQUENCE_MAX
                if boot not in boot_ids or _checksum(row, payload) != checksum:
                    damaged.append(row)
                    continue
                size += len(payload)
                if sound and (size > max_bytes or sound[-1].row >> SEQUENCE_BITS != boot):
                    break
                sound.append(Stored(row, BootId(boot_ids[boot]), sequence, payload))
        if not damaged:
            return tuple(sound)
        with contextlib.suppress(OutboxUnwritable, OutboxFull):  # they are found, and counted, the next time
            self._set_aside(damaged, why="damaged", kind=LossKind.SPOOL_QUARANTINED)
        return tuple(sound) or self._pending(damaged[-1], limit, max_bytes)

    def _acknowledge(self, boot_id: BootId, sequence: int) -> int:
        with self._transaction("acknowledge in"):
            found = self._database.execute("SELECT boot FROM boots WHERE boot_id = ?", (boot_id,)).fetchone()
            if found is None:
                return 0
            first = found[0] << SEQUENCE_BITS
            span = (first, first | min(sequence, SEQUENCE_MAX))
            count, size = self._database.execute(
                "SELECT count(*), coalesce(sum(length(payload)), 0) FROM reports WHERE row BETWEEN ? AND ?",
                span,
            ).fetchone()
            self._database.execute("DELETE FROM reports WHERE row BETWEEN ? AND ?", span)
            numbering = self._numbering
            if boot_id == numbering.boot_id:
                acked = max(numbering.acked, min(sequence, numbering.next_sequence - 1))
                numbering = replace(numbering, acked=acked)
                self._write_numbering(numbering)
        self._reports -= count
        self._bytes -= size + count * ROW_BYTES
        self._numbering = numbering
        self._replaceable = {
            key: (row, bytes_)
            for key, (row, bytes_) in self._replaceable.items()
            if not span[0] <= row <= span[1]
        }
        self._mark.write(numbering.mark)
        if self._reports == 0:
            self._give_back_space()
        return int(count)

    def _give_back_space(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # the space stays in the file and is used again
            (free,) = self._database.execute("PRAGMA freelist_count").fetchone()
            if free > _VACUUM_PAGES:
                self._database.executescript("PRAGMA incremental_vacuum")  # execute() would step once

    def _set_aside(self, rows: Sequence[int], *, why: str, kind: LossKind) -> None:
        with self._transaction("set aside in"):
            moved = 0
            for row in rows:
                self._database.execute(
                    "INSERT INTO set_aside (row, why, payload) "
                    "SELECT row, ?, payload FROM reports WHERE row = ?",
                    (why, row),
                )
                moved += self._database.execute("DELETE FROM reports WHERE row = ?", (row,)).rowcount
            self._database.execute(
                "DELETE FROM set_aside WHERE number <= (SELECT max(number) FROM set_aside) - ?",
                (_SET_ASIDE_KEPT,),
            )
            change = self._insert((Loss(kind, "", moved, exact=True),) if moved else ())
        self._apply(change)
        self._count()

    def _count(self) -> None:
        """Count what waits, after anything that did not keep count itself."""
        with translated(self._path, "read"):
            count, size = self._database.execute(
                "SELECT count(*), coalesce(sum(length(payload)), 0) FROM reports"
            ).fetchone()
            replaceable = self._database.execute(
                "SELECT replaces, row, length(payload) FROM reports WHERE replaces IS NOT NULL"
            ).fetchall()
        self._reports = count
        self._bytes = size + ROW_BYTES * count
        self._replaceable = {key: (row, length + ROW_BYTES) for key, row, length in replaceable}

    @contextlib.contextmanager
    def _transaction(self, operation: str) -> Iterator[None]:
        with translated(self._path, operation):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        self._database.execute("ROLLBACK")
                raise


@dataclass(frozen=True, slots=True)
class _Change:
    """What a transaction will have changed once it is committed."""

    reports: tuple[Report, ...]
    numbering: Numbering
    replaceable: dict[str, tuple[int, int]]
    bytes: int
    waiting: int


def _checksum(row: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(row.to_bytes(8, "big")))


def _note_checksum(key: str, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(key.encode(errors="backslashreplace")))


def _replaces(body: Body) -> str | None:
    match body:
        case Heartbeat():
            return "heartbeat"
        case CaseReport(phase=CasePhase.UPDATED, case_id=case_id):
            return f"case:{case_id}"
        case CaseReport() | HostChange() | Loss():
            return None
        case _:
            assert_never(body)


def _sixteenths(body: Body) -> int:
    """Return how many sixteenths of the spool reports of this kind may fill it up to."""
    match body:
        case CaseReport(phase=CasePhase.OPENED | CasePhase.CLEARED):
            return 15
        case CaseReport():
            return 12
        case HostChange():
            return 8
        case Heartbeat() | Loss():
            return 16
        case _:
            assert_never(body)
