"""Tables that hold only so many keys: what was not used for the longest is forgotten first."""

from __future__ import annotations

from collections import OrderedDict

from agent.bounded import entry, keep


def test_what_was_not_used_for_the_longest_is_forgotten_first() -> None:
    """Asking for an entry is a use, whether it is made or was there."""
    table: OrderedDict[str, list[int]] = OrderedDict()
    first = entry(table, "a", list, limit=2)
    entry(table, "b", list, limit=2).append(1)
    assert entry(table, "a", list, limit=2) is first
    assert entry(table, "c", list, limit=2) == []
    assert list(table.items()) == [("a", []), ("c", [])]


def test_what_is_kept_anew_replaces_what_was_there_and_is_the_newest() -> None:
    """One key has one value, and no other gives way to it."""
    table = OrderedDict(a=1, b=2)
    assert keep(table, "a", 3, limit=2) == 3
    assert list(table.items()) == [("b", 2), ("a", 3)]
    keep(table, "c", 4, limit=1)
    assert dict(table) == {"c": 4}
