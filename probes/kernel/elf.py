"""Where the functions of a shared library begin in its file (the ELF format, 64 bits, little endian)."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable
from pathlib import Path

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_IDENTITY = b"\x7fELF\x02\x01"
_LOAD, _DYNAMIC_SYMBOLS, _FUNCTION, _UNDEFINED = 1, 11, 2, 0
_MAX_SYMBOLS = 1_000_000


class LibraryUnusable(Exception):
    """The file is no library in which functions can be found; the message names it."""


def function_offsets(library: Path, names: Iterable[str]) -> dict[str, int]:
    """Return where in the file those of `names` begin that it exports; raise LibraryUnusable."""
    try:
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _offsets(data, frozenset(name.encode() for name in names))
    except OSError as error:
        raise LibraryUnusable(f"{library}: {error.strerror}") from error
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise LibraryUnusable(f"{library}: is no shared library for this machine: {error}") from error


def _offsets(data: mmap.mmap, wanted: frozenset[bytes]) -> dict[str, int]:
    if data[:6] != _IDENTITY:
        raise ValueError("not ELF of 64 bits")
    (*_, segments, sections, _, _, _, segment_count, _, section_count, _) = _HEADER.unpack_from(data)
    loaded = [
        (address, address + in_file, offset)
        for kind, _, offset, address, _, in_file, _, _ in (
            _SEGMENT.unpack_from(data, segments + i * _SEGMENT.size) for i in range(segment_count)
        )
        if kind == _LOAD
    ]
    tables = [_SECTION.unpack_from(data, sections + i * _SECTION.size) for i in range(section_count)]
    found: dict[str, int] = {}
    for _, kind, _, _, offset, size, link, _, _, _ in tables:
        if kind != _DYNAMIC_SYMBOLS:
            continue
        names_at = tables[link][4]
        for number in range(min(size // _SYMBOL.size, _MAX_SYMBOLS)):
            name_at, info, _, section, value, _ = _SYMBOL.unpack_from(data, offset + number * _SYMBOL.size)
            if info & 15 != _FUNCTION or section == _UNDEFINED:
                continue
            end = data.find(b"\0", names_at + name_at, names_at + name_at + 256)
            name = data[names_at + name_at : end]
            if name not in wanted:
                continue
            for begin, after, place in loaded:
                if begin <= value < after:
                    found[name.decode()] = value - begin + place
    return found
