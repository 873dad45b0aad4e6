"""For how long and until when, as people type it: `90m`, `1h30m`, `2d`; RFC 3339, or `18:30`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from datetime import datetime

_SPAN: Final = re.compile(r"(?:(\d{1,4})d)?(?:(\d{1,5})h)?(?:(\d{1,6})m)?(?:(\d{1,8})s)?")
_CLOCK: Final = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_SECONDS: Final = (86_400, 3600, 60, 1)


class Span(click.ParamType[float]):
    """A length of time, of `least_s` seconds or more."""

    name = "span"

    def __init__(self, *, least_s: float = 0.0) -> None:
        """Take nothing shorter."""
        self._least_s = least_s

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        if isinstance(value, float):
            return value
        found = _SPAN.fullmatch(value.strip())
        if not value.strip() or found is None:
            self.fail(f"{value!r} is no length of time, such as 30m, 2h or 1d12h", param, ctx)
        seconds = float(
            sum(int(each or 0) * unit for each, unit in zip(found.groups(), _SECONDS, strict=True))
        )
        if seconds < self._least_s:
            self.fail(f"{value!r} is shorter than {self._least_s:g} seconds", param, ctx)
        return seconds


class Time(click.ParamType[str]):
    """A moment: RFC 3339 with its zone, or `18:30`, the next one by the clock of this machine."""

    name = "time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return RFC 3339."""
        from datetime import datetime  # noqa: PLC0415 - only who says a time pays for it

        try:
            return moment_of(value.strip(), now=datetime.now())  # noqa: DTZ005 - the clock that they look at
        except ValueError:
            self.fail(f"{value!r} is no time, such as 18:30 or 2026-03-01T18:30:00Z", param, ctx)


def moment_of(text: str, *, now: datetime) -> str:
    """Return what `text` means as RFC 3339, where the clock shows `now`; raise ValueError for no time."""
    from datetime import datetime, timedelta  # noqa: PLC0415

    clock = _CLOCK.fullmatch(text)
    if clock is None:
        found = datetime.fromisoformat(text)
        if found.tzinfo is None:
            raise ValueError("a time has its zone")
        return found.isoformat()
    here = now.replace(hour=int(clock[1]), minute=int(clock[2]), second=0, microsecond=0)
    if here <= now:
        here += timedelta(days=1)
    return (here if here.tzinfo is not None else here.astimezone()).isoformat()


FOR: Final = click.option(
    "--for", "for_s", type=Span(least_s=60), metavar="SPAN", help="For how long, as in 30m or 2h."
)
UNTIL: Final = click.option(
    "--until", type=Time(), metavar="TIME", help="Until when: 18:30, or RFC 3339 with its zone."
)


def end_of(for_s: float | None, until: str | None, *, required: bool) -> dict[str, Any]:
    """Return what the API is asked for; a usage error when it is said twice, or not at all."""
    if for_s is not None and until is not None:
        raise click.UsageError("say either --for or --until")
    if required and for_s is None and until is None:
        raise click.UsageError("say for how long: --for 2h, or --until 18:30")
    return {key: value for key, value in (("for_s", for_s), ("until", until)) if value is not None}
