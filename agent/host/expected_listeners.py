"""Which ports a host is used to have open: learned quietly at first, then what is new stands out.

A port that is open from the first day is as dangerous as one that opens on the tenth, so this silences
nothing: it tells an operator whether a listener is an old habit of the host or somebody's work of today. A
port is known by its number and by who holds it: the unit, "container", or nothing.
"""

from __future__ import annotations

import json
from typing import Any, Final

from probes.observation import Instant, Origin

KNOWN_MAX: Final = 512
_BYTES_MAX: Final = 128 << 10
_WHO_MAX: Final = 128

_Habit = tuple[int, str]


class ExpectedListeners:
    """Learns for `learn_s` from the first look, then knows what is new."""

    def __init__(self, *, learn_s: float) -> None:
        self._learn_s = learn_s
        self._since_unix_ns: int | None = None
        self._known: dict[_Habit, None] = {}

    def __repr__(self) -> str:
        return f"ExpectedListeners(known={len(self._known)}, since={self._since_unix_ns})"

    def is_new(self, port: int, origin: Origin, now: Instant) -> bool:
        """Return whether this host never had it while we learned; learn it while we do."""
        if self._since_unix_ns is None:
            self._since_unix_ns = now.unix_ns
        habit = (port, _who(origin))
        if habit in self._known:
            return False
        # A clock that was set back does not make a host learn anew for ever: it counts as within the time.
        if (now.unix_ns - self._since_unix_ns) / 1e9 <= self._learn_s and len(self._known) < KNOWN_MAX:
            self._known[habit] = None
            return False
        return True

    def memory(self) -> bytes | None:
        """Return what was learned; None before the first look."""
        if self._since_unix_ns is None:
            return None
        return json.dumps([self._since_unix_ns, sorted(self._known)], separators=(",", ":")).encode()

    def recall(self, raw: bytes) -> bool:
        """Take up what an earlier one learned; return False for what cannot be read."""
        try:
            said: Any = json.loads(raw) if len(raw) <= _BYTES_MAX else None
        except (ValueError, RecursionError):
            return False
        if not isinstance(said, list) or len(said) != 2 or type(said[0]) is not int:
            return False
        since, habits = said
        if not isinstance(habits, list) or len(habits) > KNOWN_MAX or not all(map(_is_habit, habits)):
            return False
        self._since_unix_ns = since
        self._known = dict.fromkeys((port, who) for port, who in habits)
        return True


def _who(origin: Origin) -> str:
    if origin.container_id is not None:
        return "container"
    return (origin.unit or "")[:_WHO_MAX].encode(errors="replace").decode()


def _is_habit(said: Any) -> bool:
    return (
        isinstance(said, list)
        and len(said) == 2
        and type(said[0]) is int
        and 0 < said[0] < 65536
        and isinstance(said[1], str)
        and len(said[1]) <= _WHO_MAX
    )
