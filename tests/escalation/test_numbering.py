"""Numbering: what the mark beside a spool proves about what the spool has lost."""

from __future__ import annotations

import pytest

from escalation.numbering import SEQUENCE_MAX, Mark, Numbering, begun, missing

SPOOL = "8d2f7c1e-0000-4000-8000-000000000001"
OTHER = "8d2f7c1e-0000-4000-8000-000000000002"


def _stored(next_sequence: int, boot: int = 2) -> Numbering:
    fresh = begun(spool_id=SPOOL, kernel_boot_id="k", boot=boot)
    return Numbering(SPOOL, boot, fresh.boot_id, next_sequence)


@pytest.mark.parametrize(
    ("mark", "stored", "before", "lost"),
    [
        (None, None, None, None),  # the first start of all
        (None, _stored(9), None, None),  # no mark proves nothing
        (Mark(SPOOL, 2, 9, 3), _stored(9), None, None),  # they agree
        (Mark(SPOOL, 2, 7, 3), _stored(9), None, None),  # killed before the mark was written
        (Mark(SPOOL, 1, 50, 3), _stored(9), None, None),  # a new boot, killed before the mark was written
        (Mark(SPOOL, 2, 12, 3), _stored(9), None, 3),  # numbers 9 to 11 are gone
        (Mark(SPOOL, 2, 12, 10), _stored(9), None, 1),  # of which 9 and 10 had arrived
        (Mark(SPOOL, 3, 5, 0), _stored(9), None, 4),  # a whole numbering is gone
        (Mark(SPOOL, 2, 12, 3), None, None, 8),  # the spool was removed or emptied
        (Mark(OTHER, 2, 12, 3), _stored(9), None, 8),  # it was replaced by another
        (Mark(OTHER, 2, 12, 3), _stored(9), OTHER, None),  # which was accounted for
    ],
)
def test_counts_what_the_mark_knows_and_the_spool_does_not(
    mark: Mark | None, stored: Numbering | None, before: str | None, lost: int | None
) -> None:
    """None where they agree, else how many."""
    assert missing(mark, stored, before=before) == lost


def test_no_two_numberings_share_a_boot_id_or_a_row() -> None:
    """Spool, boot of the host and count each make another; rows of a later one are all higher."""
    fresh = [
        begun(spool_id=spool, kernel_boot_id=kernel, boot=boot)
        for spool in (SPOOL, OTHER)
        for kernel in ("k", "l")
        for boot in (1, 2)
    ]
    assert len({each.boot_id for each in fresh}) == len(fresh)
    assert fresh[0].row(SEQUENCE_MAX) < fresh[1].row(1)


def test_a_numbering_knows_its_spool_and_boot() -> None:
    """Another boot, another spool or an altered spool id is not its own."""
    one = begun(spool_id=SPOOL, kernel_boot_id="k", boot=1)
    assert one.is_of(spool_id=SPOOL, kernel_boot_id="k")
    assert not one.is_of(spool_id=SPOOL, kernel_boot_id="l")
    assert not one.is_of(spool_id=OTHER, kernel_boot_id="k")
    assert not Numbering("altered", 1, one.boot_id).is_of(spool_id="altered", kernel_boot_id="k")
