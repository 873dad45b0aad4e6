"""Layouts come from the compiler's own types, holes and arrays included."""

from __future__ import annotations

import ctypes

from probes.kernel.handover import Field, Layout
from probes.kernel.layouts import layout_of


class _Event(ctypes.Structure):
    _fields_ = (
        ("time_ns", ctypes.c_ulonglong),
        ("signal", ctypes.c_int),
        ("family", ctypes.c_ushort),
        ("process", ctypes.c_char * 16),
        ("count", ctypes.c_ulonglong),
    )


def test_a_struct_keeps_its_offsets() -> None:
    """What lies between the fields is skipped when a record is read."""
    layout = layout_of(_Event)
    assert [(f.name, f.code, f.offset) for f in layout.fields] == [
        ("time_ns", "Q", 0),
        ("signal", "i", 8),
        ("family", "H", 12),
        ("process", "16s", 14),
        ("count", "Q", 32),
    ]
    event = _Event(time_ns=7, signal=-11, family=2, process=b"vllm", count=1 << 63)
    assert layout.reader()(bytes(event)) == {
        "time_ns": 7,
        "signal": -11,
        "family": 2,
        "process": b"vllm".ljust(16, b"\0"),
        "count": 1 << 63,
    }


def test_a_plain_number_is_one_field() -> None:
    """A key or a counter that is no struct is called `value`."""
    assert layout_of(ctypes.c_uint) == Layout(4, (Field("value", "I", 0, 4),))
