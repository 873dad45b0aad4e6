"""route.errors_rising, route.latency_rising: a route that has left what is usual for it.

What is usual is learnt per route and model (`agent.baselines`), so nobody sets a threshold for each model.
Four measures are followed, in buckets of a minute or more (`agent.baselines.series`): the share of failures,
the median time to the first token of streams, and the median pace at which tokens (where the server counts
them) or chunks then come.

A failure is the server's: a status from 500 on, an answer that was cut or never said it was done, an error
inside an answer. What other detectors judge is none (busy, rate-limited, cooling down, too long a prompt),
nor is what clients do (4xx, cancelled), nor a model that is being loaded. Those exchanges are left out of the
share altogether.

Both are changes without a cause: they say that something happened, and when. A route that was bad from the
first hour on is none of them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import ClassVar, Final, Self

from agent.baselines.series import PACES, Measure, Series, Shift, ShiftConfig
from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick
from agent.finding import Finding, Hysteresis, OpenCase, absent
from agent.routes.findings import gone_for_long, out_of_sight, present
from agent.routes.names import GENERATING, MODEL_ROUTES, SENSOR, route_id_of
from agent.routes.window import CountWindow, RouteTable
from agent.subjects import cut
from escalation.model import FaultClass, Reason, ReasonCode, RouteEvidence, Severity, Subject
from probes.http.facts import MODEL_BYTES, Ending, ErrorKind, ExchangeFacts, Route, RouteName
from probes.observation import Blind, Exchange, Gap, Instant, Observation, Origin, Unobserved

_ERRORS = FaultClass.ROUTE_ERRORS_RISING
_LATENCY = FaultClass.ROUTE_LATENCY_RISING

ROUTES: Final = 128
"""Routes followed: each may take 20 KB once all its measures are used."""

_PORTS: Final = 64
_UNOBSERVED_S: Final = 900.0
_COUNT_MAX: Final = 1_000_000
_LEAST_COUNTED: Final = 16
_LEAST_GENERATION_S: Final = 0.5
_LONGEST_S: Final = 86400.0

_LEFT_OUT: Final = frozenset(
    {
        ErrorKind.CONTEXT_OVERFLOW,
        ErrorKind.NO_DEPLOYMENTS,
        ErrorKind.RATE_LIMITED,
        ErrorKind.OVERLOADED,
        ErrorKind.LOADING,
        ErrorKind.UNKNOWN_MODEL,
        ErrorKind.UNAUTHORIZED,
        ErrorKind.BAD_REQUEST,
    }
)

_FAULT_OF: Final[Mapping[Measure, FaultClass]] = {
    Measure.FAILURES: _ERRORS,
    Measure.FIRST_TOKEN: _LATENCY,
    Measure.TOKEN_PACE: _LATENCY,
    Measure.CHUNK_PACE: _LATENCY,
}
_CODE_OF: Final[Mapping[Measure, ReasonCode]] = {
    Measure.FAILURES: ReasonCode.ERRORS_ABOVE_BASELINE,
    Measure.FIRST_TOKEN: ReasonCode.FIRST_TOKEN_ABOVE_BASELINE,
    Measure.TOKEN_PACE: ReasonCode.PACE_BELOW_BASELINE,
    Measure.CHUNK_PACE: ReasonCode.PACE_BELOW_BASELINE,
}

Config = ShiftConfig


class _Route:
    """What is followed of one route."""

    __slots__ = ("name", "origin", "series", "subject", "used_ns")

    def __init__(self, name: RouteName, subject: Subject) -> None:
        self.name = name
        self.subject = subject
        self.used_ns = 0
        self.origin = Origin()
        self.series: dict[Measure, Series] = {}


class RouteBaseline:
    """Says which routes fail more, or are slower, than is usual for them."""

    NAME: ClassVar[str] = "route_baseline"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_ERRORS,
            severity=(Severity.MEDIUM, Severity.HIGH),
            sensors=(SENSOR,),
            opens="The share of failed exchanges is `errors_rise` above what is usual on the route at this "
            "hour, `failing_in_a_row` buckets long, with at least `failures_min` failures that chance does "
            "not explain. High from one half on.",
            quiet="What clients do (4xx, cancelled); what other detectors judge (busy, rate-limited, cooling "
            "down, too long a prompt); a model that is being loaded; a share that was always so; too little "
            "traffic to tell (`exchanges_min` in `bucket_longest_s`); the first `warm_up_s`.",
            clears="The share is back within half of `errors_rise` of the usual, `back_in_a_row` buckets "
            "long, held for `clear_hold_s`.",
        ),
        FaultNote(
            fault_class=_LATENCY,
            severity=(Severity.MEDIUM,),
            sensors=(SENSOR,),
            opens="The median time to the first token is `slower_factor` times what is usual on the route at "
            "this hour, and `slower_s` more; or tokens come that much more slowly, so that an answer of 256 "
            "takes `answer_slower_s` longer; `slow_in_a_row` buckets long.",
            quiet="Larger prompts than usual (in proportion to their size); one huge prompt; the first "
            "requests after an idle time, which wait for the model; the same slow hour every day; too little "
            "traffic to tell; a level that has lasted for days, which becomes the usual one.",
            clears="Within 1.5 times the usual, `back_in_a_row` buckets long, held for `clear_hold_s`.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._around = surroundings
        self._table: RouteTable[_Route] = RouteTable(_Route, limit=ROUTES)
        self._unobserved: OrderedDict[int, CountWindow] = OrderedDict()

    def __repr__(self) -> str:
        return f"RouteBaseline({self._table!r})"

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Open at the first finding: the buckets in a row were counted here."""
        return dict.fromkeys((_ERRORS, _LATENCY), Hysteresis(clear_hold_s=self._config.clear_hold_s))

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Put one exchange into its buckets; they are judged with the time."""
        if isinstance(observation, Exchange):
            self._take(observation)
        elif isinstance(observation, Unobserved):
            self._miss(observation)
        elif isinstance(observation, Gap) and observation.sensor == SENSOR:
            if isinstance(observation.coverage, Blind):
                for route in self._table:
                    for series in route.series.values():
                        series.drop()
            return out_of_sight((_ERRORS, _LATENCY), observation)
        return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Judge the buckets that are full, then which of the open cases are over."""
        cases = {(case.fault_class, case.subject): case for case in tick.open_cases}
        found = [
            self._finding(route, series, shift, tick.now)
            for route in self._table
            for series in route.series.values()
            if (shift := series.judge(tick.now, was_usual=_was_usual(series.measure, route, cases)))
        ]
        over = (self._over(case, tick) for case in tick.open_cases)
        return [*found, *(finding for finding in over if finding)]

    def memory(self) -> dict[str, bytes]:
        """Return what was learnt, to be kept across a restart."""
        return {
            _key(route.name, series.measure): series.to_bytes()
            for route in self._table
            for series in route.series.values()
        }

    def recall(self, memory: Mapping[str, bytes]) -> int:
        """Take up what `memory` returned before; return how many entries could not be read."""
        unreadable = 0
        for key, raw in memory.items():
            try:
                name, measure = _named(key)
                series = Series(measure, self._config)
                series.recall(raw)
            except ValueError:
                unreadable += 1
            else:
                self._table.of(name, 0).series[measure] = series
        return unreadable

    def _take(self, exchange: Exchange) -> None:
        facts, now_ns = exchange.facts, exchange.at.boot_ns
        if facts.name.route not in MODEL_ROUTES:
            return
        failed = _failed(facts)
        if failed is None:
            return
        route = self._table.of(facts.name, now_ns)
        route.origin = exchange.origin
        self._series(route, Measure.FAILURES).filling.outcome(now_ns, failed=failed, streamed=facts.streamed)
        if failed or not facts.streamed or facts.name.route not in GENERATING:
            return
        waited_s = facts.first_token_s
        if waited_s is None or not 0.0 <= waited_s <= _LONGEST_S:
            return
        size = float(max(0, facts.request_bytes))
        self._series(route, Measure.FIRST_TOKEN).filling.sample(now_ns, waited_s, size)
        for measure, pace in _paces(facts, waited_s):
            self._series(route, measure).filling.sample(now_ns, pace, size)

    def _series(self, route: _Route, measure: Measure) -> Series:
        series = route.series.get(measure)
        if series is None:
            series = route.series[measure] = Series(measure, self._config)
        return series

    def _miss(self, seen: Unobserved) -> None:
        port = seen.facts.port
        window = self._unobserved.get(port)
        if window is None:
            window = self._unobserved[port] = CountWindow(1, window_s=_UNOBSERVED_S)
            while len(self._unobserved) > _PORTS:
                self._unobserved.popitem(last=False)
        window.add(0, seen.at.boot_ns, times=max(0, min(seen.facts.count, _COUNT_MAX)))

    def _finding(self, route: _Route, series: Series, shift: Shift, now: Instant) -> Finding:
        measure = series.measure
        window = self._unobserved.get(route.name.port)
        reason = Reason(
            _CODE_OF[measure],
            count=shift.affected,
            threshold=round(shift.limit, 4),
            window_s=round(shift.window_s, 3),
        )
        grave = measure is Measure.FAILURES and shift.measured >= 0.5
        return present(
            _FAULT_OF[measure],
            route.subject,
            at=now,
            origin=route.origin,
            around=self._around,
            severity=Severity.HIGH if grave else Severity.MEDIUM,
            count=shift.fresh,
            reasons=(reason,),
            evidence=RouteEvidence(
                id=route_id_of(route.name, route.origin),
                window_s=round(shift.window_s, 3),
                exchanges=shift.exchanges,
                affected=shift.affected,
                affected_streamed=shift.affected_streamed,
                unobserved=window.at(now.boot_ns)[0] if window else 0,
                measured=round(shift.measured, 4),
                baseline=round(shift.usual, 4),
            ),
        )

    def _over(self, case: OpenCase, tick: Tick) -> Finding | None:
        """Return that `case` is over where every measure that it accuses is back, and no other is off."""
        route = self._table.about(case.subject)
        if route is not None:
            mine = [one for one in route.series.values() if _FAULT_OF[one.measure] is case.fault_class]
            back = [one for one in mine if one.back >= self._config.back_in_a_row]
            accused = {_kind(item, case.fault_class) for item in _evidence(case)}
            cleared = {_group(one.measure) for one in back}
            if back and not any(one.off for one in mine) and accused <= cleared:
                count = min(one.back for one in back)
                usual = _evidence(case)[0].baseline if _evidence(case) else None
                reason = Reason(ReasonCode.BACK_AT_BASELINE, count=count, threshold=usual or 0.0)
                return absent(case.fault_class, case.subject, tick.now, reason)
        return gone_for_long(case, tick, self._config.gone_clear_after_s)


def _key(name: RouteName, measure: Measure) -> str:
    """Return under which key a series is kept; what it is about can be read from it again."""
    model = "" if name.model is None else f"/{cut(name.model, MODEL_BYTES)}"
    return f"{measure.value}/{name.port}/{name.route.value}{model}"


def _named(key: str) -> tuple[RouteName, Measure]:
    """Return what `_key` made the key of; raise ValueError where it did not."""
    measure, port, route, *model = key.split("/", 3)
    return RouteName(int(port), Route(route), model[0] if model else None), Measure(measure)


def _failed(facts: ExchangeFacts) -> bool | None:
    """Whether the server failed; None where the exchange says nothing about that."""
    if facts.ending in {Ending.CANCELLED, Ending.IDLE} or facts.error in _LEFT_OUT:
        return None
    if facts.status >= 500 or facts.error_in_answer or facts.ending is not Ending.COMPLETE:
        return True
    return False if 200 <= facts.status < 400 else None


def _paces(facts: ExchangeFacts, waited_s: float) -> Iterable[tuple[Measure, float]]:
    """Return how fast the answer came after its first token, by each count that there is."""
    generation_s = facts.duration_s - waited_s
    if not isfinite(generation_s) or generation_s < _LEAST_GENERATION_S:
        return
    if facts.completion_tokens is not None and facts.completion_tokens >= _LEAST_COUNTED:
        yield Measure.TOKEN_PACE, facts.completion_tokens / generation_s
    elif facts.chunks >= _LEAST_COUNTED:
        yield Measure.CHUNK_PACE, facts.chunks / generation_s


def _group(measure: Measure) -> str:
    """Return the name under which a measure can be told from the evidence of a case."""
    return "pace" if measure in PACES else measure.value


def _kind(evidence: RouteEvidence, fault: FaultClass) -> str:
    """Return which measure a piece of evidence is about: of a pace, less is worse."""
    if fault is _ERRORS:
        return Measure.FAILURES.value
    if evidence.measured is None or evidence.baseline is None or evidence.measured >= evidence.baseline:
        return Measure.FIRST_TOKEN.value
    return "pace"


def _evidence(case: OpenCase) -> list[RouteEvidence]:
    return [item for item in case.evidence if isinstance(item, RouteEvidence)]


def _was_usual(
    measure: Measure, route: _Route, cases: Mapping[tuple[FaultClass, Subject], OpenCase]
) -> float | None:
    """Return what an open case about this measure says was usual."""
    case = cases.get((_FAULT_OF[measure], route.subject))
    if case is None:
        return None
    return next(
        (item.baseline for item in _evidence(case) if _kind(item, case.fault_class) == _group(measure)),
        None,
    )
