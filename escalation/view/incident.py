"""What is seen of one incident and of the topology: one view for the command line, the page and the API."""

from __future__ import annotations

from dataclasses import dataclass

from escalation.inert import shown
from escalation.server.causality.topology_graph import Graph, Node, Standing
from escalation.server.causality.topology_suggestions import Suggestion
from escalation.server.incident.host_history import Near
from escalation.server.incident.incident_desk import Account
from escalation.server.incident.timeline import Moment
from escalation.view.entry import (
    ConsequenceView,
    EntryView,
    IncidentView,
    consequence_view,
    entry_view,
    incident_view,
    moment,
)
from escalation.wording.history import history_words


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentView:
    """One moment of a timeline; `about` is the id of the incident or recommendation that is spoken of."""

    at: str
    kind: str
    words: str
    actor: str
    about: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeView:
    """A change near an incident: `after_s` seconds after its first sight, before it where that is below 0."""

    at: str
    host: str
    kind: str
    words: str
    after_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """One node of the topology; `id` names it in links. `worst` is the severity of what is open there."""

    id: str
    kind: str
    name: str
    host: str | None
    declared: bool
    seen: bool
    open: int
    worst: str | None
    here: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkView:
    """What stands above needs what stands below."""

    above: str
    below: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountView:
    """All of one incident. The timeline and the recommendations are oldest first, changes nearest first."""

    incident: IncidentView
    cause: ConsequenceView | None
    consequences: tuple[ConsequenceView, ...]
    recommendations: tuple[EntryView, ...]
    timeline: tuple[MomentView, ...]
    path: tuple[NodeView, ...] = ()
    changes: tuple[ChangeView, ...] = ()
    together: tuple[ConsequenceView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SuggestionView:
    """What was seen and is not declared: why, and the lines that would say it."""

    why: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologyView:
    """Every node in order of its level, every link, and what is not declared yet."""

    nodes: tuple[NodeView, ...]
    links: tuple[LinkView, ...]
    suggestions: tuple[SuggestionView, ...]


def account_view(account: Account) -> AccountView:
    """Return what a person sees of an incident and all that belongs to it."""
    return AccountView(
        incident=incident_view(account.incident),
        cause=None if account.cause is None else consequence_view(account.cause),
        consequences=tuple(consequence_view(each) for each in account.consequences),
        recommendations=tuple(entry_view(each) for each in account.entries),
        timeline=tuple(moment_view(each) for each in account.moments),
        path=tuple(_node(standing, here=here) for standing, here in account.path),
        changes=tuple(change_view(each) for each in account.changes),
        together=tuple(consequence_view(each) for each in account.together),
    )


def topology_view(graph: Graph, suggestions: tuple[Suggestion, ...]) -> TopologyView:
    """Return what a person sees of the topology."""
    return TopologyView(
        nodes=tuple(_node(each) for each in graph.nodes),
        links=tuple(LinkView(above=_id(above), below=_id(below)) for above, below in graph.links),
        suggestions=tuple(
            SuggestionView(why=shown(each.why), lines=tuple(map(shown, each.lines))) for each in suggestions
        ),
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


def change_view(near: Near) -> ChangeView:
    """Return one change near an incident."""
    return ChangeView(
        at=moment(near.change.at_ns),
        host=shown(near.host),
        kind=near.change.kind.value,
        words=history_words(near.change),
        after_s=round(near.after_s, 3),
    )


def _node(standing: Standing, *, here: bool = False) -> NodeView:
    node = standing.node
    return NodeView(
        id=_id(node),
        kind=node.kind.value,
        name=shown(node.name),
        host=shown(node.host) if node.host else None,
        declared=standing.declared,
        seen=standing.seen,
        open=standing.open,
        worst=None if standing.worst is None else standing.worst.value,
        here=here,
    )


def _id(node: Node) -> str:
    return shown(f"{node.kind.value}:{node.host}:{node.name}")
