"""What was judged and is not on disk yet, kept in order while the disk cannot take it.

Normally it is empty after every commit. While the disk is full or failing it holds report bodies and the
newest note per case, so that the next commit that works brings the disk up to date in one transaction. It is
bounded: an update that a later report of its case makes superfluous goes first, then the oldest updates,
then the oldest of anything, and whatever goes is counted and told as a Loss when something can be written.
What a commit has in hand is not touched meanwhile, however long it takes: it may be on disk already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from escalation.model import Body, CasePhase, CaseReport, Loss, LossKind

CAPACITY: Final = 2000


class Backlog:
    """Bodies and notes that wait for the next commit, and the account of losses."""

    def __init__(self, *, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._bodies: list[CaseReport] = []
        self._in_hand = 0
        self._notes: dict[str, bytes | None] = {}
        self._losses: Counter[tuple[LossKind, str]] = Counter()
        self._inexact: set[tuple[LossKind, str]] = set()

    def __repr__(self) -> str:
        return f"Backlog({len(self._bodies)} bodies, {self._losses.total()} lost)"

    def __bool__(self) -> bool:
        return bool(self._bodies or self._notes or self._losses)

    def __len__(self) -> int:
        return len(self._bodies)

    def add(self, bodies: Sequence[CaseReport], notes: Mapping[str, bytes | None]) -> None:
        """Keep what was judged; notes of the same case replace each other."""
        self._bodies.extend(bodies)
        self._notes.update(notes)
        if len(self._bodies) - self._in_hand > self._capacity:
            self._shrink()

    def lose(self, kind: LossKind, sensor: str, count: int, *, exact: bool = True) -> None:
        """Account for something that is gone."""
        if count > 0:
            self._losses[kind, sensor] += count
            if not exact:
                self._inexact.add((kind, sensor))

    def refused(self) -> None:
        """Take back what `contents` returned: the disk did not take it."""
        self._in_hand = 0

    def shed_updates(self) -> None:
        """Give up the updates, because the spool has room only for openings and clearings."""
        kept = [body for body in self._bodies if body.phase is not CasePhase.UPDATED]
        self.lose(LossKind.SPOOL_FULL, "", len(self._bodies) - len(kept))
        self._bodies = kept

    def losses(self) -> tuple[Loss, ...]:
        """Return the account as it stands."""
        return tuple(
            Loss(kind, sensor, count, exact=(kind, sensor) not in self._inexact)
            for (kind, sensor), count in sorted(self._losses.items())
        )

    def contents(self) -> tuple[tuple[Body, ...], dict[str, bytes | None]]:
        """Return everything to commit: cases in order, then the losses, with the notes.

        `committed` or `refused` comes next.
        """
        self._in_hand = len(self._bodies)
        return (*self._bodies, *self.losses()), dict(self._notes)

    def committed(self, bodies: Sequence[Body], notes: Mapping[str, bytes | None]) -> None:
        """Let go of what `contents` returned and the disk now has; what came meanwhile stays."""
        written = sum(isinstance(body, CaseReport) for body in bodies)
        del self._bodies[:written]
        self._in_hand = 0
        for key, value in notes.items():
            if key in self._notes and self._notes[key] == value:
                del self._notes[key]
        for body in bodies:
            if isinstance(body, Loss):
                self._losses[body.kind, body.sensor] -= body.count
                if not self._losses[body.kind, body.sensor]:
                    del self._losses[body.kind, body.sensor]
                    self._inexact.discard((body.kind, body.sensor))

    def _shrink(self) -> None:
        later: set[str] = set()
        kept: list[CaseReport] = []
        for body in reversed(self._bodies[self._in_hand :]):
            if body.phase is not CasePhase.UPDATED or body.case_id not in later:
                kept.append(body)
            later.add(body.case_id)
        kept.reverse()
        excess = len(kept) - self._capacity
        for wanted in (CasePhase.UPDATED, None):
            for body in list(kept) if excess > 0 else ():
                if excess > 0 and (wanted is None or body.phase is wanted):
                    kept.remove(body)
                    excess -= 1
                    self.lose(LossKind.SPOOL_UNWRITABLE, "", 1)
        self._bodies[self._in_hand :] = kept
