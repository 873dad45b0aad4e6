"""All of one incident as text for people, and the topology as a table."""

from __future__ import annotations

from collections.abc import Sequence

from escalation.cli.tables import Table
from escalation.cli.text import Paint, block, plain, severity_words
from escalation.inert import guarded
from escalation.view.entry import ConsequenceView
from escalation.view.incident import AccountView, ChangeView, NodeView, TopologyView
from escalation.wording.quantities import duration, times


def account_text(account: AccountView, *, paint: Paint = plain, width: int | None = None) -> str:
    """Return everything about an incident; what waits for a decision comes last, with its command."""
    incident = account.incident
    mark = severity_words(incident.severity).upper()
    seen = f"{incident.first_seen}, last {incident.last_seen}, {times(incident.count)}"
    lines = [
        f"{paint(mark, incident.severity)}  {paint(guarded(incident.headline), 'heading')}",
        guarded(f"{incident.host}  {incident.subject.kind} {incident.subject.name}  {incident.fault_class}"),
        "",
    ]
    for label, values in (
        ("State", ["open" if incident.open else f"cleared {incident.cleared_at}"]),
        ("Since", [seen]),
        ("Why", list(incident.reasons) or ["the agent gave no reason"]),
        ("Evidence", [str(each["fact"]) for each in incident.evidence] or ["none was sent"]),
        ("Cause", [_named(account.cause)] if account.cause is not None else []),
        ("Explains", [_named(each) for each in account.consequences]),
        ("Path", [_node(each) for each in account.path]),
        ("Changed", [_change(each) for each in account.changes]),
        ("Together", [_named(each) for each in account.together]),
        ("Timeline", [f"{each.at}  {each.words}  ({each.actor})" for each in account.timeline]),
        ("Advice", [f"{each.state}: nanobotctl show {each.id}" for each in account.recommendations]),
        ("Id", [incident.id]),
    ):
        if values:
            lines += block(label, values, paint, width)
    return "\n".join(lines) + "\n"


def topology_table(topology: TopologyView) -> Table:
    """Return the nodes, one a row, each with what it needs."""
    names = {each.id: _short(each) for each in topology.nodes}
    needs: dict[str, list[str]] = {}
    for link in topology.links:
        needs.setdefault(link.above, []).append(names.get(link.below, link.below))
    return Table(
        headings=("KIND", "NAME", "HOST", "KNOWN", "NOW", "NEEDS"),
        rows=tuple(
            (
                each.kind,
                each.name,
                each.host or "",
                _known(each),
                _now(each),
                ", ".join(needs.get(each.id, ())),
            )
            for each in topology.nodes
        ),
        styles=tuple(each.worst or "quiet" for each in topology.nodes),
        empty="Nothing is declared, and no host was heard yet.",
    )


def suggestion_lines(topology: TopologyView) -> list[str]:
    """Return what is not declared as comments, with the lines of TOML that would say it."""
    lines: list[str] = []
    for each in topology.suggestions:
        lines += [f"# {guarded(each.why)}", *map(guarded, each.lines), ""]
    return lines[:-1]


def _named(incident: ConsequenceView) -> str:
    subject = f"{incident.subject.kind} {incident.subject.name}"
    words = f"{incident.host}  {subject}  {incident.fault_class}: {incident.headline}"
    return f"{words} (nanobotctl incident {incident.incident_id})"


def _node(node: NodeView) -> str:
    at = f" on {node.host}" if node.host and node.kind != "host" else ""
    now = _now(node)
    return f"{'>' if node.here else ' '} {node.kind} {node.name}{at}{f'  {now}' if now else ''}"


def _change(change: ChangeView) -> str:
    apart = duration(abs(change.after_s))
    when = f"{apart} {'before' if change.after_s < 0 else 'after'}"
    return f"{change.at}  {when}  {change.host}  {change.words}"


def _now(node: NodeView) -> str:
    return f"{node.open} open, {severity_words(node.worst)}" if node.open and node.worst else ""


def _known(node: NodeView) -> str:
    words: Sequence[str] = [word for word, so in (("declared", node.declared), ("seen", node.seen)) if so]
    return ", ".join(words)


def _short(node: NodeView) -> str:
    return f"{node.kind} {node.name}" + (f" on {node.host}" if node.host and node.kind != "host" else "")
