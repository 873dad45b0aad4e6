"""What one model server did in the last minutes: the cores that it kept busy, its requests, its pace.

Cores and requests are told by two sensors that know nothing of each other, in any order; here they are laid
over each other. A stretch of time counts as work if a request was under way in it that belongs on the GPU,
and is left out if one was that does not: what both burnt together cannot be told apart.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Final

from probes.http.facts import ExchangeFacts, Route, RouteName
from probes.observation import Instant, ServerUsage

_STRETCHES: Final = 64
_REQUESTS: Final = 256
_ROUTES: Final = 16
_PACES: Final = 31
LEARNT_FROM: Final = 5
"""So many paces make a usual one."""

_LEAST_TOKENS: Final = 32
_LEAST_BYTES: Final = 16 * 1024
_LEAST_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Stretch:
    """One stretch of time, and the cores that were busy in it."""

    begin_ns: int
    end_ns: int
    cores: float


@dataclass(frozen=True, slots=True)
class _Request:
    begin_ns: int
    end_ns: int
    on_gpu: bool


@dataclass(frozen=True, slots=True)
class Burn:
    """How busy the cores were over the stretches with requests: their mean, their time, the requests."""

    cores: float
    window_s: float
    stretches: int
    requests: int


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the last answer of a route came, against what is usual for it."""

    measured: float
    usual: float


@dataclass(frozen=True, slots=True)
class LearntPace:
    """The last paces of a route, newest last, as they are kept."""

    port: int
    route: Route
    model: str | None
    paces: tuple[float, ...]


class ServerWork:
    """Remembers a bounded past of one server."""

    def __init__(self) -> None:
        self._stretches: deque[Stretch] = deque(maxlen=_STRETCHES)
        self._requests: deque[_Request] = deque(maxlen=_REQUESTS)
        self._usual: OrderedDict[RouteName, deque[float]] = OrderedDict()
        self._paces: OrderedDict[RouteName, tuple[Instant, float]] = OrderedDict()

    def __repr__(self) -> str:
        return f"ServerWork(stretches={len(self._stretches)}, requests={len(self._requests)})"

    def used(self, usage: ServerUsage) -> None:
        """Take the cores of one stretch."""
        end_ns = usage.at.boot_ns
        self._stretches.append(Stretch(end_ns - int(usage.window_s * 1e9), end_ns, usage.cores))

    def asked(self, end_ns: int, lasted_s: float, *, on_gpu: bool) -> None:
        """Take a request that was under way for `lasted_s` until `end_ns`."""
        self._requests.append(_Request(end_ns - int(lasted_s * 1e9), end_ns, on_gpu))

    def answered(self, at: Instant, facts: ExchangeFacts, *, learn: bool) -> None:
        """Take the pace of one answer; `learn` it as usual while the server is known to work on a GPU."""
        measured = pace_of(facts)
        if measured is None:
            return
        self._paces[facts.name] = (at, measured)
        self._paces.move_to_end(facts.name)
        if learn:
            self._usual.setdefault(facts.name, deque(maxlen=_PACES)).append(measured)
            self._usual.move_to_end(facts.name)
        for table in (self._paces, self._usual):
            while len(table) > _ROUTES:
                table.popitem(last=False)

    def learnt(self) -> tuple[LearntPace, ...]:
        """Return the usual paces, to be kept across a restart."""
        return tuple(
            LearntPace(name.port, name.route, name.model, tuple(paces)) for name, paces in self._usual.items()
        )

    def recall(self, learnt: Iterable[LearntPace]) -> None:
        """Take up usual paces that an earlier one had learnt."""
        for each in learnt:
            paces = [pace for pace in each.paces if math.isfinite(pace) and pace > 0]
            self._usual[RouteName(each.port, each.route, each.model)] = deque(paces, maxlen=_PACES)
        while len(self._usual) > _ROUTES:
            self._usual.popitem(last=False)

    def burn(self, now: Instant, window_s: float) -> Burn | None:
        """Return how busy the cores were while requests were under way; None without any such stretch."""
        since_ns = now.boot_ns - int(window_s * 1e9)
        told = [stretch for stretch in self._stretches if stretch.begin_ns >= since_ns]
        kept = [stretch for stretch in told if self._is_work(stretch)]
        time_s = sum((stretch.end_ns - stretch.begin_ns) / 1e9 for stretch in kept)
        if time_s <= 0:
            return None
        used_s = sum(stretch.cores * (stretch.end_ns - stretch.begin_ns) / 1e9 for stretch in kept)
        requests = sum(request.on_gpu and request.end_ns >= since_ns for request in self._requests)
        return Burn(used_s / time_s, time_s, len(kept), requests)

    def slow(self, now: Instant, window_s: float, fraction: float) -> Pace | None:
        """Return the worst of the latest paces that is below `fraction` of its usual; None if none is."""
        found: list[Pace] = []
        for name, (at, measured) in self._paces.items():
            usual = self._usual.get(name, ())
            if now.since_s(at) <= window_s and len(usual) >= LEARNT_FROM:
                middle = median(usual)
                if measured < fraction * middle:
                    found.append(Pace(measured, middle))
        return min(found, key=lambda pace: pace.measured / pace.usual, default=None)

    def _is_work(self, stretch: Stretch) -> bool:
        over = [r for r in self._requests if r.begin_ns < stretch.end_ns and r.end_ns > stretch.begin_ns]
        return bool(over) and all(request.on_gpu for request in over)


def pace_of(facts: ExchangeFacts) -> float | None:
    """Return tokens a second of a text, bytes of audio a second of a transcription; None where too short.

    The duration of an answer holds that of its prompt, so the pace of a short answer says little.
    """
    if not 200 <= facts.status < 300 or facts.error_in_answer:
        return None
    if facts.name.route is Route.TRANSCRIPTIONS:
        enough = facts.request_bytes >= _LEAST_BYTES and facts.duration_s >= _LEAST_S
        return facts.request_bytes / facts.duration_s if enough else None
    if facts.completion_tokens is None or facts.completion_tokens < _LEAST_TOKENS:
        return None
    writing_s = facts.duration_s - (facts.first_token_s or 0.0)
    return facts.completion_tokens / writing_s if writing_s >= _LEAST_S else None
