"""Times as everybody reads them: RFC 3339, UTC, with milliseconds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_NS_PER_S: Final = 1_000_000_000
_YEAR_10000_NS: Final = 253_402_300_800 * _NS_PER_S


def moment(at_ns: int) -> str:
    """Return Unix nanoseconds as RFC 3339 UTC with milliseconds; times outside the calendar are said so."""
    if not 0 <= at_ns < _YEAR_10000_NS:
        return "0000-00-00T00:00:00Z"
    whole = datetime.fromtimestamp(at_ns // _NS_PER_S, UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{at_ns % _NS_PER_S // 1_000_000:03d}Z"


def read_moment(text: str) -> int:
    """Return an RFC 3339 time as Unix nanoseconds; raise ValueError for one without its zone, or no time."""
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("a time has its zone, such as 2026-03-01T18:00:00Z")
    return int(found.timestamp() * 1000) * 1_000_000
