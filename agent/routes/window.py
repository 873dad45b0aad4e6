"""What is remembered of a route: counts of a sliding window, and a table that holds only so many routes.

Everything is O(1) per route and per exchange. The window is a ring of buckets, so it covers between
(buckets - 1) / buckets of its length and all of it; keeping each exchange instead would let a busy route
decide how much memory it costs.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator
from math import sqrt
from typing import Final, Generic, Protocol, TypeVar

from agent.routes.names import subject_of_route
from escalation.model import Subject
from probes.http.facts import RouteName

ROUTES: Final = 256
"""Routes kept by one detector."""

_KEPT_NS: Final = 3_600_000_000_000
"""A route that was used within this time is not forgotten for a new name."""

Z_ONE_SIDED_95: Final = 1.645


def share_at_least(affected: float, total: float, z: float = Z_ONE_SIDED_95) -> float:
    """Return the share that is certainly exceeded: Wilson's lower bound, at 95 % unless told otherwise."""
    if total <= 0:
        return 0.0
    share = affected / total
    middle = share + z * z / (2 * total)
    spread = z * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, (middle - spread) / (1 + z * z / total))


def share_at_most(affected: float, total: float, z: float = Z_ONE_SIDED_95) -> float:
    """Return the share that is certainly not exceeded: Wilson's upper bound; 1 where nothing is known."""
    return 1.0 - share_at_least(total - affected, total, z)


class CountWindow:
    """How often each of `width` things happened in the last `window_s`."""

    __slots__ = ("_bucket", "_buckets", "_counts", "_step_ns", "totals")

    def __init__(self, width: int, *, window_s: float, buckets: int = 12) -> None:
        self._step_ns = max(1, int(window_s * 1e9) // buckets)
        self._buckets = buckets
        self._bucket = 0
        self._counts = array("I", bytes(4 * width * buckets))
        self.totals = [0] * width

    def __repr__(self) -> str:
        return f"CountWindow({self.totals})"

    def add(self, index: int, at_ns: int, *, times: int = 1) -> None:
        """Count `times` more; what comes late counts as of now."""
        bucket = at_ns // self._step_ns
        if bucket > self._bucket:
            self._turn(bucket)
        self._counts[self._bucket % self._buckets * len(self.totals) + index] += times
        self.totals[index] += times

    def at(self, at_ns: int) -> list[int]:
        """Return the counts as they are at that moment."""
        bucket = at_ns // self._step_ns
        if bucket > self._bucket:
            self._turn(bucket)
        return self.totals

    def forget(self, index: int) -> None:
        """Begin one of the counts anew."""
        width = len(self.totals)
        for row in range(self._buckets):
            self._counts[row * width + index] = 0
        self.totals[index] = 0

    def _turn(self, bucket: int) -> None:
        width = len(self.totals)
        for old in range(max(self._bucket + 1, bucket - self._buckets + 1), bucket + 1):
            row = old % self._buckets * width
            for index in range(width):
                self.totals[index] -= self._counts[row + index]
                self._counts[row + index] = 0
        self._bucket = bucket


class Tracked(Protocol):
    """What a table keeps per route."""

    subject: Subject
    used_ns: int


_S = TypeVar("_S", bound=Tracked)


class RouteTable(Generic[_S]):
    """A state per route, of at most `limit` routes; the one that is unused for the longest is forgotten.

    Models' names come from clients, and a server may answer to any. While every known route is in use, a new
    name is therefore not kept: it is judged as its endpoint without a model.
    """

    def __init__(self, make: Callable[[RouteName, Subject], _S], *, limit: int = ROUTES) -> None:
        self._make = make
        self._limit = limit
        self._routes: OrderedDict[RouteName, _S] = OrderedDict()
        self._subjects: dict[Subject, _S] = {}

    def __len__(self) -> int:
        return len(self._routes)

    def __repr__(self) -> str:
        return f"RouteTable({len(self._routes)} of {self._limit})"

    def __iter__(self) -> Iterator[_S]:
        return iter(self._routes.values())

    def of(self, name: RouteName, now_ns: int) -> _S:
        """Return the state of `name`, made if need be."""
        state = self._routes.get(name)
        if state is None:
            state = self._new(name, now_ns)
        else:
            self._routes.move_to_end(name)
        state.used_ns = now_ns
        return state

    def known(self, name: RouteName) -> _S | None:
        """Return the state of `name` if there is one; asking makes and moves nothing."""
        return self._routes.get(name)

    def about(self, subject: Subject) -> _S | None:
        """Return the state of the route that a case is about, if there is one."""
        return self._subjects.get(subject)

    def _new(self, name: RouteName, now_ns: int) -> _S:
        if len(self._routes) >= self._limit:
            oldest, state = next(iter(self._routes.items()))
            if name.model is not None and now_ns - state.used_ns < _KEPT_NS:
                return self.of(RouteName(name.port, name.route, None), now_ns)
            del self._routes[oldest]
            if self._subjects.get(state.subject) is state:
                del self._subjects[state.subject]
        subject = subject_of_route(name)
        state = self._make(name, subject)
        self._routes[name] = state
        self._subjects[subject] = state
        return state
