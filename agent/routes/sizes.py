"""Whether failures come with the size of the request: what one route did with small and with large ones.

Requests fall into classes by powers of two, from under 4 KB to 512 KB and more. Of all places to split, the
one is taken that parts the shares of failures best. A case takes large requests that certainly fail for a
good part while small ones certainly fail less, and small successes *between* the failures (`rounds_min`): an
outage during which only large requests happened to come is not a matter of size.

It is over when as many requests at least as large as the split succeeded in a row as end any other fault of
that share (`agent.routes.rates`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final

from msgspec import Meta

from agent.detector import Surroundings, Tick
from agent.finding import Finding, OpenCase, absent
from agent.routes.findings import gone_for_long, present
from agent.routes.names import route_id_of
from agent.routes.rates import RateConfig, good_needed
from agent.routes.window import CountWindow, RouteTable, share_at_least, share_at_most
from escalation.model import FaultClass, PromptSizeEvidence, Reason, ReasonCode, Severity, Subject
from probes.http.facts import RouteName
from probes.observation import Blind, Exchange, Gap

FAULT: Final = FaultClass.ROUTE_FAILS_REAL_TRAFFIC

_SMALLEST: Final = 4096
_CLASSES: Final = 9
_ROUNDS: Final = 2 * _CLASSES


class SizeConfig(RateConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When failures count as failures of large requests."""

    small_min: Annotated[int, Meta(ge=1)] = 10
    large_failed_min: Annotated[int, Meta(ge=1)] = 4
    large_share_min: Annotated[float, Meta(ge=0, le=1)] = 0.3
    rounds_min: Annotated[int, Meta(ge=0)] = 3


def size_class(request_bytes: int) -> int:
    """Return which class a request falls into: 0 is below 4 KB, and each further one doubles."""
    return min(_CLASSES - 1, max(0, request_bytes // _SMALLEST).bit_length())


@dataclass(frozen=True, slots=True)
class Split:
    """A size that parts a route's requests, and how they ended below it and from there on."""

    at_bytes: int
    small: int
    small_failed: int
    large: int
    large_failed: int

    @property
    def distance(self) -> float:
        """By how much the share of failures certainly differs."""
        return share_at_least(self.large_failed, self.large) - share_at_most(self.small_failed, self.small)


@dataclass(slots=True)
class _Sizes:
    """Index 2c of the window counts successes of class c, 2c + 1 failures, the last one rounds."""

    name: RouteName
    subject: Subject
    window: CountWindow
    used_ns: int = 0
    unsaid: int = 0
    smallest_good: int = _CLASSES  # the smallest class with a success since the last failure
    good: list[int] = field(default_factory=lambda: [0] * _CLASSES)


class PromptSizes:
    """Counts successes and failures by size, and says when size is what makes the difference."""

    def __init__(self, *, config: SizeConfig, surroundings: Surroundings) -> None:
        self._config = config
        self._around = surroundings
        self._table: RouteTable[_Sizes] = RouteTable(self._made)

    def __repr__(self) -> str:
        return f"PromptSizes({self._table!r})"

    def good(self, exchange: Exchange) -> None:
        """Count a request that succeeded."""
        facts = exchange.facts
        sizes = self._table.of(facts.name, exchange.at.boot_ns)
        its_class = size_class(facts.request_bytes)
        sizes.window.add(2 * its_class, exchange.at.boot_ns)
        sizes.good[its_class] += 1
        sizes.smallest_good = min(sizes.smallest_good, its_class)

    def failed(self, exchange: Exchange) -> Finding | None:
        """Count a request that failed; return the finding where size is what failures have in common."""
        facts = exchange.facts
        now_ns = exchange.at.boot_ns
        sizes = self._table.of(facts.name, now_ns)
        its_class = size_class(facts.request_bytes)
        sizes.window.add(2 * its_class + 1, now_ns)
        if sizes.smallest_good < its_class:
            sizes.window.add(_ROUNDS, now_ns)
        sizes.smallest_good = _CLASSES
        sizes.unsaid += 1
        if its_class:
            sizes.good = [0] * _CLASSES
        split = self._split(sizes.window.totals)
        if split is None or facts.request_bytes < split.at_bytes:
            return None
        return self._finding(exchange, sizes, split)

    def sight(self, gap: Gap) -> None:
        """Take note of blindness: successes before it are no longer in a row with those after it."""
        if isinstance(gap.coverage, Blind):
            for sizes in self._table:
                sizes.good = [0] * _CLASSES

    def tick(self, tick: Tick) -> list[Finding]:
        """Return which of the open cases are over."""
        found = (self._over(case, tick) for case in tick.open_cases if case.fault_class is FAULT)
        return [finding for finding in found if finding]

    def _made(self, name: RouteName, subject: Subject) -> _Sizes:
        return _Sizes(name, subject, CountWindow(_ROUNDS + 1, window_s=self._config.window_s))

    def _split(self, totals: Sequence[int]) -> Split | None:
        """Return the size that parts failures from successes best, None where none does certainly."""
        config = self._config
        if totals[_ROUNDS] < config.rounds_min:
            return None
        best = None
        good, failed = totals[0:_ROUNDS:2], totals[1:_ROUNDS:2]
        for at in range(1, _CLASSES):
            small, large = sum(good[:at]) + sum(failed[:at]), sum(good[at:]) + sum(failed[at:])
            split = Split(_SMALLEST << (at - 1), small, sum(failed[:at]), large, sum(failed[at:]))
            if (
                small >= config.small_min
                and split.large_failed >= config.large_failed_min
                and share_at_least(split.large_failed, large) >= config.large_share_min
                and split.distance > (best.distance if best else 0.0)
            ):
                best = split
        return best

    def _finding(self, exchange: Exchange, sizes: _Sizes, split: Split) -> Finding:
        config = self._config
        count, sizes.unsaid = sizes.unsaid, 0
        return present(
            FAULT,
            sizes.subject,
            at=exchange.at,
            origin=exchange.origin,
            around=self._around,
            severity=Severity.HIGH,
            count=count,
            reasons=(
                Reason(
                    ReasonCode.LARGE_PROMPTS_FAIL,
                    count=split.large_failed,
                    threshold=config.large_share_min,
                    window_s=config.window_s,
                ),
                Reason(
                    ReasonCode.SMALL_PROMPTS_SUCCEED,
                    count=split.small - split.small_failed,
                    window_s=config.window_s,
                ),
            ),
            evidence=PromptSizeEvidence(
                id=route_id_of(sizes.name, exchange.origin),
                window_s=config.window_s,
                split_bytes=split.at_bytes,
                small=split.small,
                small_failed=split.small_failed,
                large=split.large,
                large_failed=split.large_failed,
            ),
        )

    def _over(self, case: OpenCase, tick: Tick) -> Finding | None:
        sizes = self._table.about(case.subject)
        last = next((item for item in case.evidence if isinstance(item, PromptSizeEvidence)), None)
        needed = good_needed(last.large_failed / last.large if last and last.large else None, self._config)
        split_class = size_class(last.split_bytes) if last else 1
        good = sum(sizes.good[split_class:]) if sizes else 0
        if sizes is None or good < needed:
            return gone_for_long(case, tick, self._config.gone_clear_after_s)
        for index in range(_ROUNDS + 1):
            sizes.window.forget(index)
        return absent(
            case.fault_class,
            case.subject,
            tick.now,
            Reason(ReasonCode.ANSWERS_GOOD_AGAIN, count=good, threshold=needed),
        )
