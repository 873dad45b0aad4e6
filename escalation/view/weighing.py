"""What a person weighs before deciding, ready to be shown: other ways, conditions, price, history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from escalation.inert import shown
from escalation.model import (
    Alternative,
    Check,
    Condition,
    History,
    Past,
    Price,
    Result,
    Verdict,
    Way,
    Weighed,
)
from escalation.wording.moments import moment
from escalation.wording.quantities import LABEL_LIMIT, counted, duration


@dataclass(frozen=True, slots=True, kw_only=True)
class AlternativeView:
    """Another way: what it is, what it costs, and why it is not the first choice."""

    way: str
    title: str
    words: str
    costs: str
    why_not: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PreconditionView:
    """One condition by the newest facts; `result` is holds, fails or unknown.

    One that is `in_the_way` refuses the approval, unless it may be set aside and is, by name. `at_proposal`
    is the result when it was proposed, where one entry that waits is shown alone.
    """

    condition: str
    title: str
    result: str
    words: str
    in_the_way: bool
    may_be_set_aside: bool
    at_proposal: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OverrideView:
    """A condition that somebody set aside when approving, and why."""

    condition: str
    title: str
    person: str
    at: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceView:
    """What the action interrupts; a number that is null is not known. `words` says all of it."""

    requests: int | None
    waiting: int | None
    exchanges: int | None
    streamed: int | None
    window_s: float | None
    seen_at: str | None
    reload_median_s: float | None
    reload_longest_s: float | None
    reload_count: int
    also_ends: tuple[str, ...]
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PastView:
    """One earlier use of this remedy."""

    at: str
    host: str
    target: str
    cured: bool
    approved_by: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryView:
    """How this remedy ended for this fault class, here and in the fleet. `words` says it as a sentence."""

    cured_here: int
    tried_here: int
    cured: int
    tried: int
    last: tuple[PastView, ...]
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictView:
    """What a person says of an incident: whether there was a fault, and why."""

    fault: bool
    person: str
    at: str
    reason: str


def alternative_views(alternatives: Sequence[Alternative]) -> tuple[AlternativeView, ...]:
    """Return the other ways, in the order in which they are to be considered."""
    return tuple(
        AlternativeView(
            way=each.way.value,
            title=way_title(each.way),
            words=shown(each.words),
            costs=shown(each.costs),
            why_not=shown(each.why_not),
        )
        for each in alternatives
    )


def precondition_views(
    checks: Sequence[Check], at_proposal: Sequence[Check] = ()
) -> tuple[PreconditionView, ...]:
    """Return conditions with their results, now and at the proposal, in the order of the checks."""
    before = {each.condition: each.result.value for each in at_proposal}
    return tuple(
        PreconditionView(
            condition=each.condition.value,
            title=condition_title(each.condition),
            result=each.result.value,
            words=shown(each.words),
            in_the_way=each.in_the_way,
            may_be_set_aside=each.may_be_set_aside,
            at_proposal=before.get(each.condition),
        )
        for each in checks
    )


def override_views(weighed: Sequence[Weighed]) -> tuple[OverrideView, ...]:
    """Return what was set aside, by whom and why."""
    return tuple(
        OverrideView(
            condition=each.condition.value,
            title=condition_title(each.condition),
            person=shown(found.person),
            at=moment(found.at_ns),
            reason=shown(each.reason),
        )
        for found in weighed
        for each in found.overrides
    )


def price_view(price: Price) -> PriceView:
    """Return a price with its words."""
    reload = price.reload
    return PriceView(
        requests=price.requests,
        waiting=price.waiting,
        exchanges=price.exchanges,
        streamed=price.streamed,
        window_s=price.window_s,
        seen_at=None if price.seen_ns is None else moment(price.seen_ns),
        reload_median_s=None if reload is None else reload.median_s,
        reload_longest_s=None if reload is None else reload.longest_s,
        reload_count=0 if reload is None else reload.count,
        also_ends=tuple(shown(each, limit=LABEL_LIMIT) for each in price.also_ends),
        words=_price_words(price),
    )


def _price_words(price: Price) -> tuple[str, ...]:
    words = [_flight_words(price)]
    if price.exchanges is not None and price.window_s is not None:
        streams = "" if price.streamed is None else f", at least {price.streamed} of them as streams"
        words.append(f"{counted(price.exchanges, 'request')} in {duration(price.window_s)}{streams}")
    if price.reload is None:
        words.append("how long it takes to serve again is not measured")
    else:
        reload = price.reload
        words.append(
            f"it served again after {duration(reload.median_s)} (median), {duration(reload.longest_s)} at "
            f"the most, of {counted(reload.count, 'earlier restart')}"
        )
    if price.also_ends:
        ends = ", ".join(shown(each, limit=LABEL_LIMIT) for each in price.also_ends)
        words.append(f"with it ends: {ends}")
    return tuple(words)


def _flight_words(price: Price) -> str:
    if price.requests is None:
        return "requests in flight are not known"
    seen = "" if price.seen_ns is None else f", as seen at {moment(price.seen_ns)}"
    waiting = f", {price.waiting} without a first byte" if price.waiting else ""
    return f"{counted(price.requests, 'request')} in flight{waiting}{seen}"


def history_view(history: History) -> HistoryView:
    """Return a history with its sentence."""
    here, fleet = history.here, history.fleet
    words = "never tried"
    if fleet.tried:
        words = f"cured {fleet.cured} of {fleet.tried} in the fleet"
        words = (
            f"cured {here.cured} of {here.tried} here, {words[6:]}" if here.tried else f"{words}, never here"
        )
    return HistoryView(
        cured_here=here.cured,
        tried_here=here.tried,
        cured=fleet.cured,
        tried=fleet.tried,
        last=tuple(_past_view(each) for each in history.last),
        words=words,
    )


def _past_view(past: Past) -> PastView:
    return PastView(
        at=moment(past.at_ns),
        host=shown(past.host),
        target=shown(past.target, limit=LABEL_LIMIT),
        cured=past.cured,
        approved_by=tuple(map(shown, past.approved_by)),
    )


def verdict_view(verdict: Verdict) -> VerdictView:
    """Return a verdict."""
    return VerdictView(
        fault=verdict.fault,
        person=shown(verdict.person),
        at=moment(verdict.at_ns),
        reason=shown(verdict.reason),
    )


def result_symbol(result: str) -> str:
    """Return one character that tells results apart without colour."""
    return {Result.HOLDS.value: "✓", Result.FAILS.value: "✗"}.get(result, "?")


def since_proposal(view: PreconditionView) -> str:
    """Return in words how a condition stood when it was proposed; empty where nothing changed since."""
    if view.at_proposal in {None, view.result}:
        return ""
    before = {Result.HOLDS.value: "it held", Result.FAILS.value: "it failed"}
    return f"{before.get(view.at_proposal or '', 'it was not known')} when this was proposed"


def way_title(way: Way) -> str:
    """Return what kind of way an alternative is."""
    match way:
        case Way.DO_NOTHING:
            return "do nothing"
        case Way.WAIT:
            return "wait"
        case Way.RESTART:
            return "restart"
        case Way.REMOVE_ROUTE:
            return "take the route out"
        case Way.LESS_LOAD:
            return "send it less"
        case Way.LOOK_FIRST:
            return "look first"
        case Way.BY_HAND:
            return "by hand"
        case _:
            assert_never(way)


def condition_title(condition: Condition) -> str:
    """Return what a condition asks for."""
    match condition:
        case Condition.SAME_LIFE:
            return "the target is still the same one"
        case Condition.NOT_BUSY:
            return "it is dead, and not only busy"
        case Condition.OTHER_REPLICA:
            return "it is not the last healthy replica"
        case Condition.OTHERS_TAKE_LOAD:
            return "other routes can take its load"
        case Condition.RANKS_FRESH:
            return "the evidence of every rank is fresh"
        case Condition.EVIDENCE_FRESH:
            return "the evidence still stands"
        case Condition.BUDGET_LEFT:
            return "the restart budget is not spent"
        case Condition.NO_MAINTENANCE:
            return "no maintenance is under way"
        case _:
            assert_never(condition)
