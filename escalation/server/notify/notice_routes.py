"""Who is told of what: the `[[notify.route]]` tables, applied in order, each adding its receivers.

Nothing is routed by default. During the quiet hours of a route its notices wait for their end; they are not
dropped.
"""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Final

import msgspec

from escalation.model import SEVERITY_ORDER, Severity
from escalation.server.notify.notices import Event, Happening

_HOURS: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_NS: Final = 1_000_000_000

Glob = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
ReceiverName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9_-]{0,30}[a-z0-9])?\Z")]


class Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[notify.route]]`: what has at least this severity and fits both globs goes to `receivers`."""

    receivers: Annotated[tuple[ReceiverName, ...], msgspec.Meta(min_length=1, max_length=16)]
    severity: Severity = Severity.HIGH
    fault_class: Glob = "*"
    host: Glob = "*"
    drills: bool = True
    quiet: str | None = None

    def __post_init__(self) -> None:
        """Refuse quiet hours that are none."""
        if self.quiet is not None and _HOURS.fullmatch(self.quiet) is None:
            raise ValueError(f"quiet is hours such as 22:00-07:00, not {self.quiet!r}")

    def takes(self, happening: Happening) -> bool:
        """Return whether this route is for `happening`."""
        incident = happening.incident
        return (
            SEVERITY_ORDER.index(incident.severity) >= SEVERITY_ORDER.index(self.severity)
            and fnmatchcase(incident.fault_class.value, self.fault_class)
            and fnmatchcase(incident.agent_id, self.host)
            and (self.drills or not incident.drill)
        )

    def due_ns(self, now_ns: int, zone: zoneinfo.ZoneInfo) -> int:
        """Return from when on this route tells what happens at `now_ns`."""
        hours = _HOURS.fullmatch(self.quiet or "")
        if hours is None:
            return now_ns
        begin, end = (dt.time(int(hours[each]), int(hours[each + 1])) for each in (1, 3))
        now = dt.datetime.fromtimestamp(now_ns / _NS, tz=zone)
        time = now.time()
        quiet = begin <= time < end if begin <= end else time >= begin or time < end
        if not quiet:
            return now_ns
        day = now.date() if time < end else now.date() + dt.timedelta(days=1)
        return int(dt.datetime.combine(day, end, tzinfo=zone).timestamp()) * _NS


class Router:
    """The routes of one configuration."""

    def __init__(
        self, *, routes: Sequence[Route], events: Mapping[str, frozenset[Event]], zone: zoneinfo.ZoneInfo
    ) -> None:
        """Route by `routes`; `events` says what each receiver takes."""
        self._routes = tuple(routes)
        self._events = events
        self._zone = zone

    def __repr__(self) -> str:
        return f"Router(routes={len(self._routes)}, receivers={len(self._events)})"

    def receivers(self, happening: Happening, *, now_ns: int) -> list[tuple[str, int]]:
        """Return the receivers of `happening`, and from when on each may be told."""
        told: dict[str, int] = {}
        for route in self._routes:
            if route.takes(happening):
                due_ns = route.due_ns(now_ns, self._zone)
                for receiver in route.receivers:
                    if happening.event in self._events[receiver]:
                        told[receiver] = min(due_ns, told.get(receiver, due_ns))
        return list(told.items())
