"""How reports are numbered: a numbering per boot and spool, and when a new one has to begin.

A row's key is ``boot << 40 | sequence``, so that order, uniqueness and "forget up to" are ranges of the
primary key and no second index can disagree with the table. `boot` counts the numberings of a spool; each
has its BootId on the wire. A new one begins with the host's boot, with a fresh file, and whenever the mark
shows that numbers were given out which the file no longer knows: a number is never used twice. Pure.
"""

from __future__ import annotations

import uuid
import zlib
from dataclasses import dataclass
from typing import Final

from escalation.model import BootId

SEQUENCE_BITS: Final = 40
SEQUENCE_MAX: Final = 2**SEQUENCE_BITS - 1


@dataclass(frozen=True, slots=True)
class Mark:
    """How far the numbering of `boot` had come: the next number, and the last that was acknowledged."""

    spool_id: str
    boot: int
    next_sequence: int
    acked: int

    @property
    def waiting(self) -> int:
        """How many numbers were given out and not acknowledged."""
        return max(0, self.next_sequence - 1 - self.acked)


@dataclass(frozen=True, slots=True)
class Numbering:
    """One numbering of reports, and how far it has come."""

    spool_id: str
    boot: int
    boot_id: BootId
    next_sequence: int = 1
    acked: int = 0

    @property
    def checksum(self) -> int:
        """What is kept beside it in the spool, to find a number that was altered."""
        return zlib.crc32(f"{self.boot} {self.boot_id} {self.next_sequence} {self.acked}".encode())

    @property
    def mark(self) -> Mark:
        """What is written beside the spool."""
        return Mark(self.spool_id, self.boot, self.next_sequence, self.acked)

    def row(self, sequence: int) -> int:
        """Return the key of the report with this number."""
        return self.boot << SEQUENCE_BITS | sequence

    def is_of(self, *, spool_id: str, kernel_boot_id: str) -> bool:
        """Return whether it belongs to this spool and this boot of the host."""
        return self.spool_id == spool_id and self.boot_id == _boot_id(spool_id, kernel_boot_id, self.boot)


def begun(*, spool_id: str, kernel_boot_id: str, boot: int) -> Numbering:
    """Return a new numbering, the `boot`-th of the spool."""
    return Numbering(spool_id, boot, _boot_id(spool_id, kernel_boot_id, boot))


def missing(mark: Mark | None, stored: Numbering | None, *, before: str | None) -> int | None:
    """Return how many reports the mark knows and the spool does not; None when they agree.

    `before` is the spool whose loss was already accounted for, when the process died before it could write a
    new mark.
    """
    if mark is None:
        return None
    if stored is None:
        return mark.waiting
    if mark.spool_id != stored.spool_id:
        return None if mark.spool_id == before else mark.waiting
    if (mark.boot, mark.next_sequence) > (stored.boot, stored.next_sequence):
        known = stored.next_sequence - 1 if mark.boot == stored.boot else 0
        return max(0, mark.next_sequence - 1 - max(known, mark.acked))
    return None


def _boot_id(spool_id: str, kernel_boot_id: str, boot: int) -> BootId:
    try:
        spool = uuid.UUID(spool_id)
    except ValueError:
        return BootId("")  # an altered spool id: nothing is of it
    return BootId(str(uuid.uuid5(spool, f"{kernel_boot_id} {boot}")))
