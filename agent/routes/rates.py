"""When bad answers are a case: a share of a route's exchanges, in a window, that chance does not explain.

One bad answer is a fact and no case. A case takes `affected_min` of them in the window, and so many of all
that were judged that the share is above `share_min` even at the lower end of its confidence interval
(Wilson, 95 %). Streamed and whole answers are looked at together and each alone, because a parser may break
one and leave the other.

It is over when so many exchanges in a row were good that the share which the fault had cannot still be there:
ten divided by it, between `good_min` and `good_max`, in the mode that had failed and after the last bad one.
(Three would be the usual rule for one look; here every bad answer begins another.) It is over too when
`removed_min` requests in a row are refused because there is no such model: the route was taken away. Silence
changes nothing. A route that nobody uses stays open, until the cgroup that served it has been gone for
`gone_clear_after_s`.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median_low
from typing import Annotated, Final

from msgspec import Meta

from agent.detector import DetectorConfig, Surroundings, Tick
from agent.finding import Finding, Hysteresis, OpenCase, absent
from agent.routes.findings import gone_for_long, out_of_sight, present
from agent.routes.names import SENSOR, route_id_of
from agent.routes.window import CountWindow, RouteTable, share_at_least
from escalation.model import FaultClass, Reason, ReasonCode, RouteEvidence, Severity, Subject
from probes.http.facts import RouteName
from probes.observation import Blind, Exchange, Gap, Observation, Unobserved

_PORTS: Final = 64
_COUNT_MAX: Final = 1_000_000
_SAY_AGAIN_NS: Final = 1_000_000_000
_RECENT: Final = 31
"""Affected exchanges of which a little is kept: for the medians of the evidence and the share of late."""

_GOOD_FOR_EACH_BAD: Final = 10
"""How often a fault would have been expected among the good answers that end it."""


class RateConfig(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a share of bad exchanges becomes a case, and how many good ones end it."""

    window_s: Annotated[float, Meta(ge=60, le=86400)] = 3600.0
    affected_min: Annotated[int, Meta(ge=1)] = 5
    share_min: Annotated[float, Meta(ge=0, le=1)] = 0.1
    good_min: Annotated[int, Meta(ge=1)] = 10
    good_max: Annotated[int, Meta(ge=1)] = 200
    removed_min: Annotated[int, Meta(ge=1)] = 3
    clear_hold_s: Annotated[float, Meta(ge=0)] = 30.0
    gone_clear_after_s: Annotated[float, Meta(gt=0)] = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How many, and how large a share of what was judged."""

    affected_min: int
    share_min: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """One way in which an exchange is bad, and the fault that it speaks for.

    Signs of one fault are counted together, but for one that stands `apart`. `witnessed` is whether the
    exchange itself shows it twice; where most of the signs do not, the case is a note. `weight` is less than
    1 for a sign that proves less.
    """

    fault: FaultClass
    code: ReasonCode
    severity: Severity
    witnessed: bool = True
    apart: bool = False
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class _Bad:
    """One affected exchange: its tokens, its mode, and how many were good before it, whole and streamed."""

    completion_tokens: int | None
    max_tokens: int | None
    streamed: bool
    good: tuple[int, int]


@dataclass(slots=True)
class _Fault:
    """What one route shows of one fault: how much since it was last said, how many were good before it."""

    good_before: list[int] = field(default_factory=lambda: [0, 0])
    unsaid: int = 0
    said_ns: int | None = None
    recent: deque[_Bad] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def share(self) -> float:
        """Return the share of late: of the affected mode where there is only one, else of all.

        It is what was good between the first and the last of the recent bad ones that counts, so a long good
        time before the fault makes it no smaller.
        """
        first, last, more = self.recent[0], self.recent[-1], len(self.recent) - 1
        if not more:
            return 1.0
        whole, streamed = (now - then for now, then in zip(last.good, first.good, strict=True))
        modes = {bad.streamed for bad in self.recent}
        good = whole * (modes != {True}) + streamed * (modes != {False})
        return more / (more + good)


@dataclass(slots=True)
class _Route:
    name: RouteName
    subject: Subject
    window: CountWindow
    used_ns: int = 0
    served: bool = False
    good: list[int] = field(default_factory=lambda: [0, 0])
    unknown: int = 0  # refusals in a row that say there is no such model
    faults: dict[FaultClass, _Fault] = field(default_factory=dict)


class RouteRates:
    """Counts what a detector calls good and bad, and turns the counts into findings.

    `signs` are numbered by their place. Index 0 of the window is good whole answers, 1 good streamed ones;
    sign number n has 2n + 2 and 2n + 3.
    """

    def __init__(self, *, config: RateConfig, surroundings: Surroundings, signs: Sequence[Sign]) -> None:
        self._config = config
        self._around = surroundings
        self._signs = tuple(signs)
        self._faults = tuple(dict.fromkeys(sign.fault for sign in signs))
        self._groups = tuple(
            tuple(
                number
                for number, other in enumerate(signs)
                if other is sign or (other.fault is sign.fault and not (sign.apart or other.apart))
            )
            for sign in signs
        )
        self._table: RouteTable[_Route] = RouteTable(self._made)
        self._unobserved: OrderedDict[int, CountWindow] = OrderedDict()

    def __repr__(self) -> str:
        return f"RouteRates({self._table!r})"

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Open at the first finding and hold a clearing shortly: the counting was done here."""
        rule = Hysteresis(clear_hold_s=self._config.clear_hold_s)
        return dict.fromkeys(self._faults, rule)

    def good(self, exchange: Exchange) -> None:
        """Count an exchange that was as it should be."""
        facts = exchange.facts
        now_ns = exchange.at.boot_ns
        route = self._table.of(facts.name, now_ns)
        route.window.add(facts.streamed, now_ns)
        route.good[facts.streamed] += 1
        route.unknown = 0
        route.served = True

    def unknown(self, exchange: Exchange) -> None:
        """Count a refusal that says that there is no such model: neither good nor bad, but an end of both."""
        route = self._table.known(exchange.facts.name)
        if route is not None:
            route.unknown += 1

    def was_good(self, name: RouteName) -> bool:
        """Whether any exchange of `name` was good, as far as is remembered."""
        route = self._table.known(name)
        return route is not None and route.served

    def bad(
        self, exchange: Exchange, number: int, *, rule: Rule | None = None, also: Sequence[Reason] = ()
    ) -> Finding | None:
        """Count an exchange with sign `number`; return the finding where that makes a case.

        `also` are further reasons, given as they are.
        """
        facts = exchange.facts
        now_ns = exchange.at.boot_ns
        route = self._table.of(facts.name, now_ns)
        sign = self._signs[number]
        route.window.add(2 * number + 2 + facts.streamed, now_ns)
        route.unknown = 0
        memory = route.faults.get(sign.fault)
        if memory is None:
            memory = route.faults[sign.fault] = _Fault()
        memory.good_before = list(route.good)
        memory.unsaid += 1
        good = (route.good[0], route.good[1])
        memory.recent.append(_Bad(facts.completion_tokens, facts.max_tokens, facts.streamed, good))
        if memory.said_ns is not None and now_ns - memory.said_ns < _SAY_AGAIN_NS:
            return None  # the next one says it, with this one counted
        config = self._config
        rule = rule or Rule(affected_min=config.affected_min, share_min=config.share_min)
        if not self._holds(route.window.totals, self._groups[number], rule):
            return None
        return self._finding(exchange, route, number, rule, also)

    def unseen(self, observation: Observation) -> Sequence[Finding]:
        """Take note of what was not seen, for whoever judges every exchange: single ones, or all."""
        if isinstance(observation, Unobserved):
            self.unobserved(observation)
        elif isinstance(observation, Gap) and observation.sensor == SENSOR:
            return self.sight(observation)
        return ()

    def unobserved(self, seen: Unobserved) -> None:
        """Count what could not be judged, for the evidence."""
        port = seen.facts.port
        window = self._unobserved.get(port)
        if window is None:
            window = self._unobserved[port] = CountWindow(1, window_s=self._config.window_s)
            while len(self._unobserved) > _PORTS:
                self._unobserved.popitem(last=False)
        window.add(0, seen.at.boot_ns, times=max(0, min(seen.facts.count, _COUNT_MAX)))

    def sight(self, gap: Gap) -> list[Finding]:
        """Take note of blindness: the good answers before it are no longer in a row with those after it."""
        if isinstance(gap.coverage, Blind):
            for route in self._table:
                route.good = [0, 0]
                for memory in route.faults.values():
                    memory.good_before = [0, 0]
                    memory.recent.clear()
        return out_of_sight(self._faults, gap)

    def tick(self, tick: Tick) -> list[Finding]:
        """Return which of the open cases are over."""
        found = (self._over(case, tick) for case in tick.open_cases if case.fault_class in self._faults)
        return [finding for finding in found if finding]

    def _made(self, name: RouteName, subject: Subject) -> _Route:
        width = 2 * len(self._signs) + 2
        return _Route(name, subject, CountWindow(width, window_s=self._config.window_s))

    def _holds(self, totals: Sequence[int], group: Iterable[int], rule: Rule) -> bool:
        whole = sum(self._signs[number].weight * totals[2 * number + 2] for number in group)
        streamed = sum(self._signs[number].weight * totals[2 * number + 3] for number in group)
        if whole + streamed < rule.affected_min:
            return False
        all_whole, all_streamed = sum(totals[::2]), sum(totals[1::2])
        return any(
            affected >= rule.affected_min and share_at_least(affected, total) >= rule.share_min
            for affected, total in (
                (whole + streamed, all_whole + all_streamed),
                (streamed, all_streamed),
                (whole, all_whole),
            )
        )

    def _finding(
        self, exchange: Exchange, route: _Route, number: int, rule: Rule, also: Sequence[Reason]
    ) -> Finding:
        totals = route.window.totals
        group = self._groups[number]
        sign = self._signs[number]
        whole = sum(totals[2 * each + 2] for each in group)
        streamed = sum(totals[2 * each + 3] for each in group)
        witnessed = sum(
            totals[2 * each + 2] + totals[2 * each + 3] for each in group if self._signs[each].witnessed
        )
        reasons = self._reasons(totals, group, rule)
        if whole and streamed:
            reasons.append(Reason(ReasonCode.BOTH_STREAMED_AND_WHOLE, count=whole + streamed))
        reasons.extend(also)
        certain = 2 * witnessed >= whole + streamed
        if not certain:
            reasons.append(Reason(ReasonCode.SECOND_LAYER_UNKNOWN))
        memory = route.faults[sign.fault]
        count, memory.unsaid = memory.unsaid, 0
        memory.said_ns = exchange.at.boot_ns
        return present(
            sign.fault,
            route.subject,
            at=exchange.at,
            origin=exchange.origin,
            around=self._around,
            severity=sign.severity if certain else Severity.NOTE,
            count=count,
            reasons=reasons,
            evidence=self._evidence(exchange, route, memory, whole, streamed),
        )

    def _reasons(self, totals: Sequence[int], group: Iterable[int], rule: Rule) -> list[Reason]:
        counts: dict[ReasonCode, int] = {}
        for each in group:
            code = self._signs[each].code
            counts[code] = counts.get(code, 0) + totals[2 * each + 2] + totals[2 * each + 3]
        return [
            Reason(code, count=count, threshold=rule.share_min, window_s=self._config.window_s)
            for code, count in counts.items()
            if count
        ]

    def _evidence(
        self, exchange: Exchange, route: _Route, memory: _Fault, whole: int, streamed: int
    ) -> RouteEvidence:
        exchanges = sum(route.window.totals)
        window = self._unobserved.get(route.name.port)
        completion = [bad.completion_tokens for bad in memory.recent if bad.completion_tokens is not None]
        allowed = [bad.max_tokens for bad in memory.recent if bad.max_tokens is not None]
        return RouteEvidence(
            id=route_id_of(route.name, exchange.origin),
            window_s=self._config.window_s,
            exchanges=exchanges,
            affected=whole + streamed,
            affected_streamed=streamed,
            unobserved=window.at(exchange.at.boot_ns)[0] if window else 0,
            completion_tokens=median_low(completion) if completion else None,
            max_tokens=median_low(allowed) if allowed else None,
            measured=round(memory.share(), 4),
        )

    def _over(self, case: OpenCase, tick: Tick) -> Finding | None:
        route = self._table.about(case.subject)
        last = next((item for item in case.evidence if isinstance(item, RouteEvidence)), None)
        needed = good_needed(last.measured if last else None, self._config)
        good = self._good_since(route, case.fault_class, last) if route else 0
        if route is not None and route.unknown >= self._config.removed_min:
            reason = Reason(ReasonCode.ROUTE_UNUSED, count=route.unknown, threshold=self._config.removed_min)
            return absent(case.fault_class, case.subject, tick.now, reason)
        if route is None or good < needed:
            return gone_for_long(case, tick, self._config.gone_clear_after_s)
        for number, sign in enumerate(self._signs):
            if sign.fault is case.fault_class:
                route.window.forget(2 * number + 2)
                route.window.forget(2 * number + 3)
        route.faults.pop(case.fault_class, None)
        return absent(
            case.fault_class,
            case.subject,
            tick.now,
            Reason(ReasonCode.ANSWERS_GOOD_AGAIN, count=good, threshold=needed),
        )

    def _good_since(self, route: _Route, fault: FaultClass, last: RouteEvidence | None) -> int:
        memory = route.faults.get(fault)
        before = memory.good_before if memory else [0, 0]
        whole, streamed = (now - then for now, then in zip(route.good, before, strict=True))
        if last is None or 0 < last.affected_streamed < last.affected:
            return whole + streamed
        return streamed if last.affected_streamed else whole


def good_needed(share: float | None, config: RateConfig) -> int:
    """Return how many good exchanges in a row end a fault that had met `share` of them (None: unknown)."""
    wanted = math.ceil(_GOOD_FOR_EACH_BAD / share) if share else config.good_max
    return max(config.good_min, min(config.good_max, wanted))
