"""What is seen of one incident: one view for the command line, the page and the API."""

from __future__ import annotations

from dataclasses import dataclass

from escalation.inert import shown
from escalation.server.incident_desk import Account
from escalation.server.timeline import Moment
from escalation.view import (
    ConsequenceView,
    EntryView,
    IncidentView,
    consequence_view,
    entry_view,
    incident_view,
    moment,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentView:
    """One moment of a timeline; `about` is the id of the incident or recommendation that is spoken of."""

    at: str
    kind: str
    words: str
    actor: str
    about: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountView:
    """All of one incident. The timeline and the recommendations are oldest first."""

    incident: IncidentView
    cause: ConsequenceView | None
    consequences: tuple[ConsequenceView, ...]
    recommendations: tuple[EntryView, ...]
    timeline: tuple[MomentView, ...]


def account_view(account: Account) -> AccountView:
    """Return what a person sees of an incident and all that belongs to it."""
    return AccountView(
        incident=incident_view(account.incident),
        cause=None if account.cause is None else consequence_view(account.cause),
        consequences=tuple(consequence_view(each) for each in account.consequences),
        recommendations=tuple(entry_view(each) for each in account.entries),
        timeline=tuple(moment_view(each) for each in account.moments),
    )


def moment_view(told: Moment) -> MomentView:
    """Return one moment of a timeline."""
    return MomentView(
        at=moment(told.at_ns),
        kind=told.kind.value,
        words=shown(told.words),
        actor=shown(told.actor),
        about=shown(told.about) if told.about else None,
    )
