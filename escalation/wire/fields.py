"""The fields of a message: fitted into their limits when written, checked against them when read.

Enums are matched by name (`FaultClass.GPU_UVM_LOST` <-> `FAULT_CLASS_GPU_UVM_LOST`); the tables are built
from both sides when they are loaded, so there is no third list to keep.

Error tree: `WireError`.
"""

from __future__ import annotations

import enum
import hashlib
import math
import re
from collections.abc import Sequence
from typing import Any, Final, Generic, TypeVar

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from escalation.model import BootId
from escalation.wire.limits import INTEGER_MAX, LIST_ENTRIES, PORT_MAX, TEXT_BYTES

E = TypeVar("E", bound=enum.StrEnum)
T = TypeVar("T")

_BOOT_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MARK_CHARACTERS: Final = 9  # "~" and eight hexadecimal digits
_WORD: Final = re.compile(r"(?:[a-z0-9][a-z0-9._-]*)?")
_PRINT: Final = re.compile(r"[0-9a-f]*")


class WireError(Exception):
    """Bytes that are no message of ours, or a field outside its limit; the message names which."""


class Names(Generic[E]):
    """One enum of the model beside its enum of the wire, matched by name; UNKNOWN is UNSPECIFIED (0)."""

    __slots__ = ("_members", "_numbers", "_unknown")

    def __init__(self, kind: type[E], wire: EnumTypeWrapper) -> None:
        prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", wire.DESCRIPTOR.name).upper() + "_"
        self._unknown = kind["UNKNOWN"]
        self._numbers = {
            member: 0 if member is self._unknown else int(wire.Value(prefix + member.name)) for member in kind
        }
        self._members = {number: member for member, number in self._numbers.items()}

    def number(self, member: E) -> Any:
        """Return the wire's number of `member`: an int, of a type that only the generated stub has."""
        return self._numbers[member]

    def member(self, number: int) -> E:
        """Return the member of `number`, UNKNOWN for one that we do not know."""
        return self._members.get(number, self._unknown)


def fit(field: str, value: str) -> str:
    """Return `value` as text that `field` can hold; equal when it already is."""
    limit = TEXT_BYTES[field]
    raw = value.encode(errors="backslashreplace").replace(b"\0", b"\\x00")
    if len(raw) <= limit:
        return raw.decode()
    mark = "~" + hashlib.blake2b(raw, digest_size=4).hexdigest()
    return raw[: limit - _MARK_CHARACTERS].decode(errors="ignore") + mark


def fit_word(field: str, value: str) -> str:
    """Return `value` where it is a word that `field` can hold, else one made of its hash."""
    return _fit_pattern(_WORD, field, value, "x-")


def fit_digits(field: str, value: str) -> str:
    """Return `value` where it is hexadecimal digits that `field` can hold, else those of its hash."""
    return _fit_pattern(_PRINT, field, value, "")


def _fit_pattern(pattern: re.Pattern[str], field: str, value: str, mark: str) -> str:
    if len(value) <= TEXT_BYTES[field] and pattern.fullmatch(value) is not None:
        return value
    raw = value.encode(errors="backslashreplace")
    return mark + hashlib.blake2b(raw, digest_size=8).hexdigest()


def fit_u64(value: int) -> int:
    """Return `value` held within 0 and what is accepted for a 64-bit number."""
    return min(max(value, 0), INTEGER_MAX)


def fit_u32(value: int) -> int:
    """Return `value` held within an unsigned 32-bit number."""
    return min(max(value, 0), 2**32 - 1)


def fit_s32(value: int) -> int:
    """Return `value` held within a signed 32-bit number."""
    return min(max(value, -(2**31)), 2**31 - 1)


def fit_optional(value: int | None) -> int | None:
    """Return `value` held within what is accepted for a 64-bit number; None stays None."""
    return None if value is None else fit_u64(value)


def fit_float(value: float) -> float:
    """Return `value`, or 0 when it is not finite."""
    return value if math.isfinite(value) else 0.0


def fit_measure(value: float | None) -> float | None:
    """Return `value`, or None when it is not finite: what is no number was not measured."""
    return value if value is not None and math.isfinite(value) else None


def fit_port(value: int) -> int:
    """Return `value` held within the numbers of ports."""
    return min(max(value, 0), PORT_MAX)


def fit_list(field: str, values: Sequence[T]) -> Sequence[T]:
    """Return the first entries of `values` that `field` can hold."""
    return values[: LIST_ENTRIES[field]]


def text(field: str, value: str) -> str:
    """Return `value`; raise WireError when it is longer than `field` may be or holds a NUL."""
    limit = TEXT_BYTES[field]
    if len(value) > limit or (not value.isascii() and len(value.encode()) > limit):
        raise WireError(f"{field}: {len(value.encode())} bytes, at most {limit}")
    if "\0" in value:
        raise WireError(f"{field}: holds a NUL character")
    return value


def word(field: str, value: str) -> str:
    """Return `value`; raise WireError when it is no word: lower-case letters, digits, dot, _ and -."""
    return _matching(_WORD, field, value, "is no word of a-z, 0-9, dot, underscore and hyphen")


def digits(field: str, value: str) -> str:
    """Return `value`; raise WireError when it is no hexadecimal digits."""
    return _matching(_PRINT, field, value, "is no lower-case hexadecimal digits")


def _matching(pattern: re.Pattern[str], field: str, value: str, otherwise: str) -> str:
    if pattern.fullmatch(text(field, value)) is None:
        raise WireError(f"{field}: {otherwise}")
    return value


def bounded(field: str, value: int, maximum: int = INTEGER_MAX) -> int:
    """Return `value`; raise WireError when it is negative or above `maximum`."""
    if 0 <= value <= maximum:
        return value
    raise WireError(f"{field}: is {value}, must be 0 to {maximum}")


def finite(field: str, value: float) -> float:
    """Return `value`; raise WireError when it is not a finite number."""
    if math.isfinite(value):
        return value
    raise WireError(f"{field}: is {value}, must be a finite number")


def entries(field: str, count: int) -> None:
    """Raise WireError when a list of `count` is longer than `field` may be."""
    if count > LIST_ENTRIES[field]:
        raise WireError(f"{field}: {count} entries, at most {LIST_ENTRIES[field]}")


def boot_id(field: str, value: str) -> BootId:
    """Return `value` as a BootId; raise WireError when it is no lower-case UUID."""
    if _BOOT_ID.fullmatch(value) is None:
        raise WireError(f"{field}: is not a lower-case UUID")
    return BootId(value)


def port(field: str, value: int) -> int:
    """Return `value`; raise WireError when it is no number of a port."""
    return bounded(field, value, PORT_MAX)


def number(field: str, message: Any) -> int | None:
    """Return the optional number `field` of `message`; raise WireError when it is negative."""
    name = field.rpartition(".")[2]
    return bounded(field, getattr(message, name)) if message.HasField(name) else None


def measure(field: str, message: Any) -> float | None:
    """Return the optional measure `field` of `message`; raise WireError when it is not a finite number."""
    name = field.rpartition(".")[2]
    return finite(field, getattr(message, name)) if message.HasField(name) else None


def optional_pid(field: str, message: Any) -> int | None:
    """Return the `pid` of `message` where it has one; raise WireError when it is negative."""
    return bounded(field, message.pid) if message.HasField("pid") else None


def unknown_bytes(message: Any) -> int:
    """Return how many bytes of `message` are fields that this version does not know."""
    known = type(message)()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    return int(message.ByteSize() - known.ByteSize())
