"""Maintenance windows that the settings declare: once, or every week at a time of some zone.

A window that is in force, or begins within a day, becomes a silence; from there on it is one like any other.
"""

from __future__ import annotations

import datetime as dt
import re
import uuid
import zoneinfo
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from escalation.model import FaultClass
from escalation.server.attention.silences import (
    COMMENT_LIMIT,
    GUARDED,
    LONGEST_S,
    Origin,
    Silence,
    SilenceId,
    checked,
    for_host,
)

AUTHOR: Final = "orchestrator.toml"
"""Who declares: whoever may write the settings."""

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WEEKLY: Final = re.compile(
    r"((?:mon|tue|wed|thu|fri|sat|sun)(?:,(?:mon|tue|wed|thu|fri|sat|sun))*) "
    r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)"
)
_AHEAD_NS: Final = 86_400_000_000_000
_WINDOWS: Final = uuid.UUID("0f6d9a0e-3c57-5b0e-9d51-6f9a5a0c4d10")
_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One time that a window is open."""

    starts_ns: int
    ends_ns: int


class Window(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[maintenance]]`: a host or a pattern of hosts, and when; `zone` is where its times are told.

    Either `weekly`, as in "sat,sun 02:00-04:00", or `starts` and `ends`. `also` names the guarded classes
    that nobody has to be told of during the window: a host that restarts is blind, for example.
    """

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    comment: Annotated[str, msgspec.Meta(pattern=r"\S", max_length=COMMENT_LIMIT)]
    weekly: str | None = None
    starts: dt.datetime | None = None
    ends: dt.datetime | None = None
    zone: str = "UTC"
    also: tuple[FaultClass, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a window that is never open, always open, or of no known zone."""
        try:
            zoneinfo.ZoneInfo(self.zone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"zone: {self.zone!r} is no time zone, such as Europe/Berlin") from error
        _insist_guarded(self.also)
        if (self.weekly is None) is (self.starts is None) or (self.starts is None) is not (self.ends is None):
            raise ValueError("a window has either weekly, or starts and ends")
        if self.weekly is not None and _WEEKLY.fullmatch(self.weekly) is None:
            raise ValueError(f"weekly is days and hours such as sat,sun 02:00-04:00, not {self.weekly!r}")
        if self.starts is not None and self.ends is not None:
            length_ns = self._unix_ns(self.ends) - self._unix_ns(self.starts)
            if not 0 < length_ns <= LONGEST_S * _NS:
                raise ValueError("a window ends after it starts, and within 30 days")

    @property
    def id(self) -> str:
        """Return what makes it this window and no other."""
        told = [self.host, self.comment, self.weekly, str(self.starts), str(self.ends), self.zone]
        return str(uuid.uuid5(_WINDOWS, "\n".join([*map(str, told), *sorted(self.also)])))

    def occurrence(self, now_ns: int) -> Occurrence | None:
        """Return the time at which it is open now, or else the next one; None when there is none to come."""
        if self.starts is not None and self.ends is not None:
            once = Occurrence(self._unix_ns(self.starts), self._unix_ns(self.ends))
            return once if now_ns < once.ends_ns else None
        found = _WEEKLY.fullmatch(self.weekly or "")
        assert found is not None
        days = {_DAYS.index(each) for each in found[1].split(",")}
        begin, end = (dt.time(int(found[each]), int(found[each + 1])) for each in (2, 4))
        today = dt.datetime.fromtimestamp(now_ns / _NS, tz=zoneinfo.ZoneInfo(self.zone)).date()
        for ahead in range(-1, 9):
            day = today + dt.timedelta(days=ahead)
            if day.weekday() in days and now_ns < (open_then := self._on(day, begin, end)).ends_ns:
                return open_then
        return None

    def silence(self, occurrence: Occurrence, *, now_ns: int) -> Silence:
        """Return the silence of one time that it is open."""
        return Silence(
            id=SilenceId(str(uuid.uuid5(_WINDOWS, f"{self.id} {occurrence.starts_ns}"))),
            matchers=(for_host(self.host),),
            author=AUTHOR,
            comment=self.comment,
            created_ns=min(now_ns, occurrence.starts_ns),
            starts_ns=occurrence.starts_ns,
            ends_ns=occurrence.ends_ns,
            origin=Origin.DECLARED,
            also=tuple(sorted(self.also)),
            window=self.id,
        )

    def due(self, now_ns: int) -> Silence | None:
        """Return the silence of the time that it is open now, or within a day."""
        found = self.occurrence(now_ns)
        if found is None or found.starts_ns > now_ns + _AHEAD_NS:
            return None
        return self.silence(found, now_ns=now_ns)

    def _on(self, day: dt.date, begin: dt.time, end: dt.time) -> Occurrence:
        """Return the window of one day; where clocks are set meanwhile it is as long as it reads."""
        last = day if begin < end else day + dt.timedelta(days=1)
        starts, ends = dt.datetime.combine(day, begin), dt.datetime.combine(last, end)
        starts_ns, ends_ns = self._unix_ns(starts), self._unix_ns(ends)
        if ends_ns <= starts_ns:
            ends_ns = starts_ns + int((ends - starts).total_seconds()) * _NS
        return Occurrence(starts_ns, ends_ns)

    def _unix_ns(self, moment: dt.datetime) -> int:
        here = moment if moment.tzinfo is not None else moment.replace(tzinfo=zoneinfo.ZoneInfo(self.zone))
        return int(here.timestamp()) * _NS


def by_hand(
    silence_id: SilenceId,
    *,
    host: str,
    person: str,
    comment: str,
    also: tuple[FaultClass, ...],
    now_ns: int,
    ends_ns: int,
) -> Silence:
    """Return the maintenance that `person` starts on a host now; a ValueError says why it cannot be."""
    _insist_guarded(also)
    return Silence(
        id=silence_id,
        matchers=checked([for_host(host)]),
        author=person,
        comment=comment,
        created_ns=now_ns,
        starts_ns=now_ns,
        ends_ns=ends_ns,
        origin=Origin.MAINTENANCE,
        also=tuple(sorted(set(also))),
    )


def _insist_guarded(also: tuple[FaultClass, ...]) -> None:
    """Raise ValueError for a class that need not be named: who names it believes something else."""
    strangers = sorted(set(also) - GUARDED)
    if strangers:
        raise ValueError(f"also: {strangers[0].value} is silenced without being named")
