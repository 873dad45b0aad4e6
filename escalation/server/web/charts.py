"""Numbers that people would rather look at than read: a value beside what is usual for it or what it may be.

A chart is a bar of shares, made on the server: `Chart` holds the numbers, the template draws them. Each says
its numbers in words too, and tells its parts apart by their place and pattern, not by colour alone. A `Strip`
draws what was seen when.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from escalation.model import (
    Evidence,
    FlightEvidence,
    GpuEvidence,
    Incident,
    MemoryEvidence,
    PlacementEvidence,
    PressureEvidence,
    PromptSizeEvidence,
    RouteEvidence,
    RunDelayEvidence,
    SessionsEvidence,
    StorageEvidence,
    ThrottleEvidence,
)
from escalation.wording.moments import moment
from escalation.wording.quantities import counted, duration, size

_DRAWN_FROM: Final = 3
"""From how many sightings on a drawing says more than the first and the last of them."""


@dataclass(frozen=True, slots=True)
class Chart:
    """One bar: `value` of its width (up to 1.0), with a line at `mark` (None: none); `words` say the same."""

    title: str
    value: float
    mark: float | None
    words: str


def charts_of(evidence: Sequence[Evidence]) -> tuple[Chart, ...]:
    """Return the charts of what can be drawn; most evidence is better read, and has none."""
    return tuple(chart for piece in evidence for chart in _charts(piece))


def against(title: str, value: float, mark: float, words: str) -> tuple[Chart, ...]:
    """Return `value` beside the `mark` that it should keep to; nothing when either is no quantity."""
    most = max(value, mark)
    if not 0 < most < float("inf") or min(value, mark) < 0:
        return ()
    return (Chart(title, value / most, mark / most, words),)


def share(title: str, part: float, whole: float, words: str) -> tuple[Chart, ...]:
    """Return `part` of a `whole`; nothing when it is not one."""
    if not 0 < whole < float("inf") or not 0 <= part <= whole:
        return ()
    return (Chart(title, part / whole, None, words),)


def _charts(piece: Evidence) -> tuple[Chart, ...]:  # noqa: C901, PLR0912 -- one case per kind that is drawn
    match piece:
        case MemoryEvidence():
            used, whole = piece.total_bytes - piece.available_bytes, piece.total_bytes
            return share("Memory in use", used, whole, f"{size(used)} of {size(whole)}")
        case StorageEvidence(total_bytes=int(whole), free_bytes=int(free)):
            return share("Space in use", whole - free, whole, f"{size(whole - free)} of {size(whole)}")
        case SessionsEvidence(limit=int(limit)):
            return share("Connections", piece.sessions, limit, f"{piece.sessions} of {limit}")
        case GpuEvidence(sm_mhz=int(mhz), usual_mhz=int(usual)):
            return against("Clock beside the usual", mhz, usual, f"{mhz} MHz, usually {usual} MHz")
        case RunDelayEvidence(p99_s=float(wait), baseline_s=float(usual)):
            words = f"{duration(wait)}, usually {duration(usual)}"
            return against("Wait for the processor beside the usual", wait, usual, words)
        case ThrottleEvidence():
            held, periods = piece.throttled_periods, piece.periods
            return share("Periods held back by the quota", held, periods, f"{held} of {periods}")
        case PressureEvidence(some_percent=float(some)):
            name = piece.resource.value
            words = f"some tasks {some:.0f} % of {duration(piece.window_s)}"
            return share(f"Time waited for {name}", some, 100, words)
        case FlightEvidence():
            words = f"silent for {duration(piece.silent_s)}, patience {duration(piece.patience_s)}"
            return against("Silence beside the patience", piece.silent_s, piece.patience_s, words)
        case RouteEvidence(measured=float(measured), baseline=float(usual)):
            return against("Measured beside the usual", measured, usual, f"{measured:g}, usually {usual:g}")
        case RouteEvidence():
            words = f"{piece.affected} of {piece.exchanges} in {duration(piece.window_s)}"
            return share("Answers affected", piece.affected, piece.exchanges, words)
        case PlacementEvidence(measured=float(measured), baseline=float(usual)):
            return against("Measured beside the usual", measured, usual, f"{measured:g}, usually {usual:g}")
        case PromptSizeEvidence():
            small = f"{piece.small_failed} of {piece.small}"
            large = f"{piece.large_failed} of {piece.large}"
            return share("Small prompts that failed", piece.small_failed, piece.small, small) + share(
                "Large prompts that failed", piece.large_failed, piece.large, large
            )
        case _:
            return ()


@dataclass(frozen=True, slots=True)
class Strip:
    """Columns side by side, each as high as its part of the highest (up to 1.0); `words` say the same."""

    heights: tuple[float, ...]
    words: str


def strip_of(incident: Incident, *, now_ns: int) -> Strip | None:
    """Return when an incident was seen how often, up to now while it is open; None where that is little."""
    seen = incident.sightings
    if sum(seen.counts) < _DRAWN_FROM:
        return None
    if incident.open:
        seen = seen.until(now_ns)
    if len(seen.counts) == 1:
        return None
    most = max(seen.counts)
    quiet = next(place for place, count in enumerate(reversed(seen.counts)) if count)
    words = (
        f"From {moment(seen.start_ns)} in steps of {duration(seen.step_s)}: "
        f"{counted(sum(seen.counts), 'sighting')}, at most {most} in one step"
    )
    if incident.open and quiet > 1:
        words += f", none for the last {duration((quiet - 1) * seen.step_s)}"
    return Strip(tuple(count / most for count in seen.counts), f"{words}.")


def axis(moments_ns: Sequence[int]) -> tuple[float, ...]:
    """Return where each moment stands between the first (0.0) and the last (1.0)."""
    first, last = min(moments_ns, default=0), max(moments_ns, default=0)
    return tuple((each - first) / (last - first) if last > first else 0.0 for each in moments_ns)
