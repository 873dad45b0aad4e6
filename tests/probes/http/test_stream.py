"""Order in one direction: what overtakes waits, what repeats goes, what is missing is said."""

from __future__ import annotations

import pytest

from probes.http.segment import FIN, RST, SYN, Segment
from probes.http.stream import PARKED, Sequencer
from tests.probes.http.wire import S


class Script:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def feed(self, data: bytes, at_ns: int) -> None:
        if self.told and isinstance(self.told[-1], bytes):
            self.told[-1] += data
        else:
            self.told.append(data)

    def hole(self, size: int, at_ns: int) -> None:
        self.told.append(size)

    def closed(self, at_ns: int, *, reset: bool) -> None:
        self.told.append("reset" if reset else "closed")


def piece(seq: int, data: bytes = b"", *, flags: int = 0, skipped: int = 0, at_s: float = 0) -> Segment:
    return Segment(1, round(at_s * S), 8000, True, seq % (1 << 32), data, skipped, flags, 0)


def told(*pieces: Segment) -> list[object]:
    script = Script()
    sequencer = Sequencer(script, gap_ns=S)
    for one in pieces:
        sequencer.feed(one)
    return script.told


def test_bytes_that_overtake_others_wait_for_them() -> None:
    """In the order of their numbers, whatever the order of capture."""
    assert told(piece(9, flags=SYN), piece(16, b"cc"), piece(13, b"bbb"), piece(10, b"aaa")) == [b"aaabbbcc"]


def test_repeats_and_overlaps_are_trimmed() -> None:
    """A byte is given once."""
    pieces = [piece(10, b"abc"), piece(10, b"abc"), piece(11, b"bcd"), piece(9, b"-abcdef"), piece(12, b"c")]
    assert told(*pieces) == [b"abcdef"]


def test_an_overlap_that_waited_is_trimmed_too() -> None:
    """Also among the bytes that wait."""
    assert told(piece(10, b"a"), piece(12, b"cde"), piece(13, b"def"), piece(11, b"b")) == [b"abcdef"]


@pytest.mark.parametrize("start", [0xFFFF_FFFE, 0xFFFF_FFFF, 0])
def test_numbers_wrap(start: int) -> None:
    """Modulo 2**32, RFC 9293."""
    assert told(piece(start - 1, flags=SYN), piece(start + 3, b"def"), piece(start, b"abc")) == [b"abcdef"]


def test_a_fin_that_overtakes_data_waits() -> None:
    """The end has its place behind the last byte."""
    assert told(piece(10, b"ab"), piece(15, flags=FIN), piece(12, b"cde")) == [b"abcde", "closed"]


def test_a_reset_has_its_place_or_counts_at_once() -> None:
    """One that is ahead waits for the data, one that is behind does not."""
    assert told(piece(10, b"ab"), piece(14, flags=RST), piece(12, b"cd")) == [b"abcd", "reset"]
    assert told(piece(10, b"ab"), piece(0, flags=RST)) == [b"ab", "reset"]


def test_skipped_bytes_are_a_hole_and_what_follows_is_in_order() -> None:
    """Known holes need no waiting; sent again in full, they stay holes."""
    pieces = [piece(10, b"ab", skipped=100), piece(112, b"cd"), piece(50, b"xx")]
    assert told(*pieces) == [b"ab", 100, b"cd"]


def test_bytes_that_never_come_are_given_up_after_a_while() -> None:
    """The gap is said with its size, and what waited is given."""
    script = Script()
    sequencer = Sequencer(script, gap_ns=S)
    sequencer.feed(piece(10, b"ab"))
    sequencer.feed(piece(20, b"cd", at_s=1))
    sequencer.overdue(round(1.5 * S))
    assert (script.told, sequencer.waiting, sequencer.held_bytes) == ([b"ab"], True, 2)
    sequencer.overdue(2 * S)
    assert (script.told, sequencer.waiting) == ([b"ab", 8, b"cd"], False)


def test_no_more_than_so_many_pieces_wait() -> None:
    """The bound on memory gives up before the time does."""
    ahead = [piece(100 + 2 * n, b"x") for n in range(PARKED + 1)]
    assert told(piece(10, b"a"), *ahead)[:3] == [b"a", 89, b"x"]


def test_a_large_piece_that_waits_is_bounded_too() -> None:
    """By bytes as well as by number."""
    ahead = [piece(100 + 20_000 * n, b"x" * 16_384) for n in range(9)]
    assert told(piece(10, b"a"), *ahead)[1] == 89


def test_after_lost_records_a_gap_is_believed_at_once() -> None:
    """Until bytes come in order again."""
    script = Script()
    sequencer = Sequencer(script, gap_ns=S)
    sequencer.feed(piece(10, b"a"))
    sequencer.suspect = True
    sequencer.feed(piece(12, b"c"))
    assert (script.told, sequencer.suspect) == ([b"a", 1, b"c"], True)
    sequencer.feed(piece(13, b"d"))
    assert not sequencer.suspect


def test_keep_alive_probes_say_nothing() -> None:
    """One byte before what is expected, with or without data."""
    assert told(piece(10, b"ab"), piece(11), piece(11, b"b"), piece(12, b"c")) == [b"abc"]
