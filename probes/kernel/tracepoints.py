"""Tracepoints as the running kernel describes them: find tracefs, read a format file, attach a program.

The C struct that a program reads is generated here from the running kernel's own format file, so headers of
another kernel version cannot lead a program to a wrong offset, and a tracepoint that is missing is known
before the compiler runs. Attaching is done by us and not by bcc because bcc answers "failed" without an errno
and knows only two places for tracefs.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from probes.kernel.perf_events import Event, open_event, run_at

_USUAL = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
_FIELD = re.compile(
    r"\tfield:(?P<declaration>[^;]+);\s+offset:(?P<offset>\d+);\s+size:(?P<size>\d+);\s+signed:(?P<signed>[01]);"
)
_PERF_TYPE_TRACEPOINT = 2  # linux/perf_event.h
_CLONE_NEWNS = 0x20000
_MS_REC, _MS_PRIVATE, _MS_NOSUID_NODEV_NOEXEC = 0x4000, 0x40000, 0x2 | 0x4 | 0x8


class TracepointMissing(Exception):
    """The running kernel has no such tracepoint, or its description cannot be read."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a tracepoint's record."""

    name: str
    offset: int
    size: int
    signed: bool
    is_array: bool


@dataclass(frozen=True, slots=True)
class Format:
    """A tracepoint's number and its record, from `events/CATEGORY/NAME/{id,format}`."""

    name: str
    number: int
    fields: tuple[Field, ...]


def find_tracefs(mounts: str | None = None) -> Path | None:
    """Return where tracefs can be read, or None when it is not mounted or not readable."""
    text = Path("/proc/self/mounts").read_text(errors="replace") if mounts is None else mounts
    mounted = [Path(line.split(" ")[1]) for line in text.splitlines() if " tracefs " in line]
    for root in (*_USUAL, *mounted):
        if os.access(root / "events", os.R_OK | os.X_OK):
            return root
    return None


def mount_privately() -> Path | None:
    """Return a readable tracefs, mounted for this process alone where it was not and root may.

    The mount lives in a mount namespace of this process's own, so the machine is left as it was.
    """
    found = find_tracefs()
    if found is not None:
        return found
    libc = ctypes.CDLL(None, use_errno=True)
    target = _USUAL[0]
    if libc.unshare(_CLONE_NEWNS) or libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None):
        return None
    if libc.mount(b"tracefs", str(target).encode(), b"tracefs", _MS_NOSUID_NODEV_NOEXEC, None):
        return None
    return find_tracefs()


def read_format(tracefs: Path, tracepoint: str) -> Format:
    """Read the description of `category:name`; raise TracepointMissing naming it."""
    category, _, name = tracepoint.partition(":")
    folder = tracefs / "events" / category / name
    try:
        return parse_format(tracepoint, (folder / "id").read_text(), (folder / "format").read_text())
    except FileNotFoundError as error:
        raise TracepointMissing(f"this kernel has no tracepoint {tracepoint}") from error
    except (OSError, ValueError) as error:
        raise TracepointMissing(f"read the format of tracepoint {tracepoint}: {error}") from error


def parse_format(tracepoint: str, number: str, text: str) -> Format:
    """Parse the two files of a tracepoint; raise ValueError when they are not such files."""
    fields = []
    for match in _FIELD.finditer(text):
        declaration = match["declaration"].strip()
        name = re.split(r"[ *]", declaration)[-1].partition("[")[0]
        if not name.isidentifier():
            raise ValueError(f"unreadable field {declaration!r}")
        fields.append(
            Field(
                name=name,
                offset=int(match["offset"]),
                size=int(match["size"]),
                signed=match["signed"] == "1",
                is_array="[" in declaration and not declaration.startswith("__data_loc"),
            )
        )
    if not fields:
        raise ValueError("no fields")
    return Format(name=tracepoint, number=int(number), fields=tuple(fields))


def c_struct(format_: Format) -> str:
    """Return C: `struct tp_CATEGORY_NAME` with the record's layout and `HAS_CATEGORY_NAME_FIELD` per field.

    The first eight bytes belong to the kernel (a program may not read them) and stay padding.
    """
    flat = format_.name.replace(":", "_")
    lines, defines, at, pads = [], [], 0, 0
    for field in sorted(format_.fields, key=lambda f: f.offset):
        if field.offset < max(at, 8):
            continue  # the common fields, hidden from programs, and anything that overlaps
        width = 1 if field.is_array else field.size
        if width not in (1, 2, 4, 8) or field.offset % width:
            continue
        if field.offset > at:
            lines.append(f"    u8 pad{pads}[{field.offset - at}];")
            pads += 1
        if field.is_array:
            lines.append(f"    u8 {field.name}[{field.size}];")
        else:
            lines.append(f"    {'s' if field.signed else 'u'}{field.size * 8} {field.name};")
        defines.append(f"#define HAS_{flat}_{field.name} 1")
        at = field.offset + field.size
    return "\n".join([*defines, f"struct tp_{flat} {{", *lines, "};", ""])


def attach(program_fd: int, format_: Format) -> int:
    """Run a loaded program at every hit of the tracepoint; return the descriptor that holds it there.

    Raises OSError with the kernel's errno.
    """
    return run_at(program_fd, _event(format_))


def open_asleep(format_: Format) -> int:
    """Open the tracepoint's event without running anything at it; raise OSError with the kernel's errno."""
    return open_event(_event(format_), disabled=True)


def _event(format_: Format) -> Event:
    return Event(f"tracepoint {format_.name}", _PERF_TYPE_TRACEPOINT, format_.number)


def c_structs(formats: Iterable[Format]) -> str:
    """Return the structs of several tracepoints, each once."""
    return "\n".join(c_struct(f) for f in sorted({f.name: f for f in formats}.values(), key=lambda f: f.name))
