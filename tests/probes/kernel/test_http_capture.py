"""Records of the capture become segments; whatever else is in the ring is counted and does no harm."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, strategies as st

from probes.http.segment import FIN, SYN, Segment
from probes.kernel.handover import Field, Layout, ManifestInvalid
from probes.kernel.http_capture import RecordDecoder
from probes.kernel.programs import port_cases

_HEAD = struct.Struct("=QQQIIIHBB")
_FIELDS = "time_ns connection cgroup_id seq captured skipped port to_server flags"


def layout() -> Layout:
    """Return the records' layout as the compiler reports it."""
    fields, at = [], 0
    for name, code in zip(_FIELDS.split(), "QQQIIIHBB", strict=True):
        size = struct.calcsize(f"={code}")
        fields.append(Field(name, code, at, size))
        at += size
    return Layout(at, tuple(fields))


def test_a_record_becomes_a_segment() -> None:
    """Every field is in its place, and of the room of a record only what was captured is kept."""
    record = _HEAD.pack(7, 1 << 63, 42, (1 << 32) - 1, 5, 9, 8000, 1, FIN) + b"hello" + b"old text" * 30
    decoder = RecordDecoder(layout=layout())
    assert list(decoder.segments([record])) == [
        Segment(
            connection=1 << 63,
            at_ns=7,
            port=8000,
            to_server=True,
            seq=(1 << 32) - 1,
            data=b"hello",
            skipped=9,
            flags=FIN,
            cgroup_id=42,
        )
    ]
    assert decoder.take_unreadable() == 0


def test_a_broken_record_is_counted_and_the_next_is_read() -> None:
    """Too short for its head, or for the bytes that it speaks of."""
    good = _HEAD.pack(1, 2, 3, 4, 0, 0, 80, 0, SYN)
    decoder = RecordDecoder(layout=layout())
    assert len(list(decoder.segments([b"", good[:-1], good[:28] + b"\xff" * 12, good]))) == 1
    assert (decoder.take_unreadable(), decoder.take_unreadable()) == (3, 0)


def test_records_of_another_version_are_refused() -> None:
    """A reader takes no field for another: it says which it found."""
    other = Layout(8, (Field("time_ns", "Q", 0, 8),))
    with pytest.raises(ManifestInvalid, match="fields time_ns, expected time_ns, connection"):
        RecordDecoder(layout=other)


@given(st.lists(st.binary(max_size=120)))
def test_hostile_records_never_crash(records: list[bytes]) -> None:
    """Every record is a segment or counted."""
    decoder = RecordDecoder(layout=layout())
    assert len(list(decoder.segments(records))) + decoder.take_unreadable() == len(records)


@given(st.lists(st.integers(1, 65535), max_size=64))
def test_every_port_is_one_case_and_nothing_else_is(ports: list[int]) -> None:
    """What the loader has compiled names each port once, since C refuses a second case, and no other."""
    cases = [word for port in sorted(set(ports)) for word in ("case", f"{port}:")]
    assert port_cases("PORTS", ports).split() == ["#define", "PORTS", *cases]
