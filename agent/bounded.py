"""Tables that hold only so many keys: the host decides how many there are, so the oldest give way.

The order of a table is that of use: what was not used for the longest is forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")


def entry(table: OrderedDict[_K, _V], key: _K, make: Callable[[], _V], *, limit: int) -> _V:
    """Return what `table` holds of `key`, made where there is nothing yet; it was used last now."""
    known = table.pop(key, None)
    return keep(table, key, make() if known is None else known, limit=limit)


def keep(table: OrderedDict[_K, _V], key: _K, value: _V, *, limit: int) -> _V:
    """Let `table` hold `value` of `key`, used last, and no more than `limit` keys; return the value."""
    table[key] = value
    table.move_to_end(key)
    while len(table) > limit:
        table.popitem(last=False)
    return value
