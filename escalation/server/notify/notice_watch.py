"""Writes what is to be told into the outbox, in the transaction of the change itself.

A piece of work is given a ledger that remembers how each incident and recommendation stood before its first
change; when the work is done, the differences become notices. The alternative, a call at every place that
changes something, would be forgotten at the next such place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, cast

from escalation.model import Incident, IncidentId, Recommendation, RecommendationId
from escalation.server.attention import quiet
from escalation.server.incident.incidents import RETURNS_WITHIN_S
from escalation.server.notify import notices
from escalation.server.notify.notices import RAISING, Event, Happening, Notice, NoticeState
from escalation.server.storage.store import Ledger

T = TypeVar("T")


class Routing(Protocol):
    """Who is told."""

    def receivers(self, happening: Happening, *, now_ns: int) -> list[tuple[str, int]]:
        """Return the receivers of `happening`, and from when on each may be told."""


class _Watched:
    """A ledger that remembers what was changed; everything else passes through."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.before_incidents: dict[IncidentId, Incident | None] = {}
        self.before_recommendations: dict[RecommendationId, Recommendation | None] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def put_incident(self, incident: Incident) -> None:
        if incident.id not in self.before_incidents:
            self.before_incidents[incident.id] = self._ledger.incident(incident.id)
        self._ledger.put_incident(incident)

    def put_recommendation(self, recommendation: Recommendation, incident: Incident) -> None:
        if recommendation.id not in self.before_recommendations:
            self.before_recommendations[recommendation.id] = self._ledger.recommendation(recommendation.id)
        self._ledger.put_recommendation(recommendation, incident)


def telling(work: Callable[[Ledger], T], *, routing: Routing, now_ns: int) -> Callable[[Ledger], T]:
    """Return `work` with the notices of what it changes."""

    def done(ledger: Ledger) -> T:
        watched = _Watched(ledger)
        result = work(cast("Ledger", watched))
        for incident_id, before in watched.before_incidents.items():
            after = ledger.incident(incident_id)
            happening = None if after is None else notices.of_incident(before, after)
            if happening is not None:
                tell(ledger, happening, routing=routing, now_ns=now_ns)
        for recommendation_id, stood in watched.before_recommendations.items():
            now = ledger.recommendation(recommendation_id)
            event = None if now is None else notices.of_recommendation(stood, now)
            incident = None if now is None else ledger.incident(now.incident_id)
            if event is not None and incident is not None:
                tell(ledger, Happening(event, incident, recommendation_id), routing=routing, now_ns=now_ns)
        return result

    return done


def saying(
    work: Callable[[Ledger], tuple[T, Sequence[Happening]]], *, routing: Routing | None, now_ns: int
) -> Callable[[Ledger], T]:
    """Return `work`, which says itself what there is to tell, with the notices of that."""

    def done(ledger: Ledger) -> T:
        result, happenings = work(ledger)
        if routing is not None:
            for each in happenings:
                tell(ledger, each, routing=routing, now_ns=now_ns)
        return result

    return done


def tell(ledger: Ledger, happening: Happening, *, routing: Routing, now_ns: int) -> None:
    """Keep a notice for each receiver; of an end, for those that were told of the beginning.

    What is silenced is held back, and told when the silence is over. What comes and goes is told as gone only
    when it stays away; to whom that is not told yet, its return is no news.
    """
    told = routing.receivers(happening, now_ns=now_ns)
    if happening.event is Event.RETURNED:
        unaware = _take_back_ends(ledger, happening.incident.id)
        told = [(receiver, due_ns) for receiver, due_ns in told if receiver not in unaware]
    if told and quiet.holds_back(ledger, happening, now_ns=now_ns):
        return
    if happening.event is Event.CLEARED:
        known = ledger.notices.of(happening.incident.id)
        due_ns = dict(told)
        heard = [receiver for receiver, stands in _newest_words(known).items() if stands]
        stays_ns = now_ns + (int(RETURNS_WITHIN_S * 1e9) if happening.incident.returns else 0)
        told = [(receiver, max(stays_ns, due_ns.get(receiver, now_ns))) for receiver in heard]
    for receiver, due_ns_of_it in told:
        ledger.notices.add(
            notices.of(happening, receiver=receiver, now_ns=now_ns, due_ns=max(now_ns, due_ns_of_it))
        )


def _take_back_ends(ledger: Ledger, incident_id: IncidentId) -> frozenset[str]:
    """Tell nobody of an end that is none, and return who has not heard of it."""
    ends = [
        each
        for each in ledger.notices.of(incident_id)
        if each.event is Event.CLEARED and each.state is NoticeState.WAITING
    ]
    for each in ends:
        ledger.notices.settle(each, NoticeState.FOLDED)
    return frozenset(each.receiver for each in ends)


def _newest_words(known: Sequence[Notice]) -> dict[str, bool]:
    """Return for each receiver whether the newest that it was or will be told is that something stands."""
    words: dict[str, bool] = {}
    for each in known:
        if each.event in RAISING:
            words[each.receiver] = True
        elif each.event is Event.CLEARED and each.state is not NoticeState.FOLDED:
            words[each.receiver] = False
    return words
