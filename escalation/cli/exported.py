"""What an exported file holds, read back: the links of its audit log, and where they begin."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

import msgspec

from escalation.cli.errors import CtlError, ExitCode
from escalation.cli.export import GENESIS, SCHEMA, Place
from escalation.view.entry import AuditView

T = TypeVar("T")

_FIRST: Final = b'{"kind":"export"'


class _About(msgspec.Struct, frozen=True):
    """The value of the first line."""

    schema: int
    after: Place
    head: Place


class _End(msgspec.Struct, frozen=True):
    """The value of the last line."""

    lines: int


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Any line of an exported file."""

    kind: Literal["export", "incident", "recommendation", "audit", "end"]
    value: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Exported:
    """The audit log of an exported file: its links, and the link that the first one follows."""

    links: tuple[AuditView, ...]
    after: Place


def exported(lines: Iterable[bytes], *, name: str) -> Exported:
    """Return the audit log of an exported file, or of a bare log; raise CtlError for what is neither."""
    written = [line for line in lines if line.strip()]
    if not written:
        raise CtlError(
            f"{name} is empty, and an audit log never is",
            code=ExitCode.USAGE,
            advice="export it again; a log that is gone proves nothing",
        )
    if not written[0].startswith(_FIRST):
        return Exported(tuple(_read(written, AuditView, name)), Place(0, GENESIS))
    parts = _read(written, _Line, name)
    about = _value(parts[0], _About, name, 1)
    if about.schema != SCHEMA:
        raise CtlError(
            f"{name} has schema {about.schema}, and this program knows {SCHEMA}",
            code=ExitCode.USAGE,
            advice="read it with the version that wrote it",
        )
    if parts[-1].kind != "end":
        raise CtlError(f"{name} is not whole: its end is missing", advice="export it again")
    told = _value(parts[-1], _End, name, len(parts)).lines
    if told != len(parts) - 1:
        raise CtlError(f"{name} is not whole: it has {len(parts) - 1} lines of {told}")
    links = tuple(
        _value(part, AuditView, name, number)
        for number, part in enumerate(parts, start=1)
        if part.kind == "audit"
    )
    newest = Place(links[-1].number, links[-1].digest) if links else about.after
    if newest != about.head:
        raise CtlError(f"{name} is not whole: its newest link is not the one that its first line names")
    return Exported(links, about.after)


def _read(lines: list[bytes], kind: type[T], name: str) -> list[T]:
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(msgspec.json.decode(line, type=kind))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _foreign(name, number) from error
    return found


def _value(part: _Line, kind: type[T], name: str, number: int) -> T:
    try:
        return msgspec.json.decode(part.value, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _foreign(name, number) from error


def _foreign(name: str, number: int) -> CtlError:
    return CtlError(f"{name}:{number} is not an entry of an exported audit log", code=ExitCode.USAGE)
