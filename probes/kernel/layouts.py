"""From the ctypes classes that bcc derives of a program's C to layouts that a manifest can carry."""

from __future__ import annotations

import ctypes
from typing import Any

from probes.kernel.handover import Field, Layout

_CODES: dict[Any, str] = {
    ctypes.c_bool: "B",
    ctypes.c_char: "b",
    ctypes.c_byte: "b",
    ctypes.c_ubyte: "B",
    ctypes.c_short: "h",
    ctypes.c_ushort: "H",
    ctypes.c_int: "i",
    ctypes.c_uint: "I",
    ctypes.c_long: "q",
    ctypes.c_ulong: "Q",
    ctypes.c_longlong: "q",
    ctypes.c_ulonglong: "Q",
}


def layout_of(kind: Any) -> Layout:
    """Return the layout of a ctypes type that bcc derived from the program's C."""
    if kind in _CODES:
        size = ctypes.sizeof(kind)
        return Layout(size, (Field("value", _CODES[kind], 0, size),))
    fields = []
    for name, member, *_ in kind._fields_:
        place = getattr(kind, name)
        code = _CODES.get(member) or f"{ctypes.sizeof(member)}s"
        fields.append(Field(str(name), code, place.offset, place.size))
    return Layout(ctypes.sizeof(kind), tuple(fields))
