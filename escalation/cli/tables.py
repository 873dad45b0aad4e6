"""Lists as tables: plain columns off a terminal, drawn and shortened on one.

Off a terminal the layout is stable: whole values, columns two spaces apart, no colour. On a terminal rich
draws, from text objects and never from markup, so that a name cannot style itself; ids are cut to what is
unique (every command takes the beginning of an id), container ids to twelve digits, times become ages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from shutil import get_terminal_size
from typing import Final

import click

from escalation.cli.text import STYLES, attention_words, on_terminal, severity_words, wants_colour
from escalation.inert import guarded
from escalation.server.notify.notice_desk import ReceiverStatus
from escalation.view.attention import SilenceView
from escalation.view.entry import EntryView, HostView, IncidentView, SubjectView
from escalation.view.persons import PersonView
from escalation.view.policy import PolicyRow
from escalation.view.rule import RuleView
from escalation.wording.codes import marked
from escalation.wording.quantities import duration

_CONTAINER_ID: Final = re.compile(r"[0-9a-f]{64}")
_SHORT_ID: Final = 8
_LEFT_OUT: Final = frozenset({"COUNT", "FIRST SEEN"})
_NEVER_FOLDED: Final = frozenset({"ID", "SEVERITY", "STATE", "OPEN", "HOST", "SIGHT", "LAST SEEN"})
_LEAST_WIDTH: Final = {"WHAT": 16, "SUBJECT": 14}
_LEAST_FOLDED: Final = 10
_BETWEEN: Final = 2
_RICH_STYLES: Final = {
    "1;31": "bold red",
    "1;33": "bold yellow",
    "33": "yellow",
    "32": "green",
    "2": "dim",
    "1": "bold",
}


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under headings; `styles` holds one style's name a row."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    styles: tuple[str, ...]
    empty: str


def queue_table(entries: Sequence[EntryView], *, now: datetime | None = None) -> Table:
    """Return the queue, one entry a row; shortened when `now` is given."""
    ids = _ids([each.id for each in entries], short=now is not None)
    return Table(
        headings=("ID", "SEVERITY", "STATE", "HOST", "WHAT", "SUBJECT", "COUNT", "LAST SEEN", "ATTENTION"),
        rows=tuple(
            (
                entry_id,
                severity_words(each.severity),
                each.state,
                each.host,
                marked(each.fault_class, drill=each.drill),
                _subject(each.subject, short=now is not None),
                str(each.count),
                _when(each.last_seen, now),
                attention_words(each.attention),
            )
            for entry_id, each in zip(ids, entries, strict=True)
        ),
        styles=tuple(each.severity for each in entries),
        empty="Nothing waits for a decision.",
    )


def silence_table(silences: Sequence[SilenceView], *, now: datetime | None = None) -> Table:
    """Return silences or maintenance, one a row; shortened when `now` is given."""
    ids = _ids([each.id for each in silences], short=now is not None)
    return Table(
        headings=("ID", "STATE", "ENDS", "COVERS", "INCIDENTS", "HELD BACK", "BY", "COMMENT"),
        rows=tuple(
            (
                silence_id,
                each.state,
                each.ends_at,
                " ".join((*each.matchers, *(f"also={name}" for name in each.also))),
                str(each.incidents),
                str(each.notices),
                each.author if each.ended_by is None else f"{each.author}, ended by {each.ended_by}",
                each.comment,
            )
            for silence_id, each in zip(ids, silences, strict=True)
        ),
        styles=tuple("quiet" if each.state == "over" else "heading" for each in silences),
        empty="Nothing is silenced.",
    )


def incident_table(incidents: Sequence[IncidentView], *, now: datetime | None = None) -> Table:
    """Return incidents, one a row; shortened when `now` is given."""
    ids = _ids([each.id for each in incidents], short=now is not None)
    return Table(
        headings=("ID", "SEVERITY", "OPEN", "HOST", "WHAT", "SUBJECT", "COUNT", "FIRST SEEN", "LAST SEEN"),
        rows=tuple(
            (
                incident_id,
                severity_words(each.severity),
                _standing(each),
                each.host,
                marked(each.fault_class, drill=each.drill),
                _subject(each.subject, short=now is not None),
                str(each.count),
                _when(each.first_seen, now),
                _when(each.last_seen, now),
            )
            for incident_id, each in zip(ids, incidents, strict=True)
        ),
        styles=tuple(each.severity if each.open else "quiet" for each in incidents),
        empty="There are no incidents.",
    )


def _standing(incident: IncidentView) -> str:
    if not incident.open:
        return "cleared"
    if incident.shadow:
        return "in shadow"
    return "explained" if incident.explained_by else "open"


def hosts_table(hosts: Sequence[HostView], *, now: datetime | None = None) -> Table:
    """Return hosts, and under each what it cannot see and what was lost."""
    rows: list[tuple[str, ...]] = []
    styles: list[str] = []
    for host in hosts:
        seeing = sum(coverage.seeing for coverage in host.coverage)
        sight = "◌ silent" if host.silent else "✓ heard"
        seen = f"{seeing} of {len(host.coverage)} sensors see"
        rows.append((host.host, sight, _when(host.last_heard, now), seen, host.agent_version))
        styles.append("critical" if host.silent else "heading")
        for coverage in host.coverage:
            if not coverage.seeing:
                rows.append(("", "◌ blind", coverage.sensor, coverage.words, ""))
                styles.append("high")
        for loss in host.losses:
            rows.append(("", "✕ lost", loss.sensor, loss.words, ""))
            styles.append("medium")
    return Table(
        headings=("HOST", "SIGHT", "LAST HEARD", "WHAT IS SEEN", "AGENT"),
        rows=tuple(rows),
        styles=tuple(styles),
        empty="No host was heard yet.",
    )


def receiver_table(receivers: Sequence[ReceiverStatus]) -> Table:
    """Return receivers of notifications, one a row."""
    return Table(
        headings=("RECEIVER", "KIND", "NOW", "WAITING", "SENT", "FOLDED", "GIVEN UP"),
        rows=tuple(
            (
                each.name,
                each.kind,
                f"✕ {each.error}" if each.error else "✓ works",
                *map(str, (each.waiting, each.sent, each.folded, each.given_up)),
            )
            for each in receivers
        ),
        styles=tuple("high" if each.error else "heading" for each in receivers),
        empty="Nobody is told anything: the settings have no receiver.",
    )


def person_table(persons: Sequence[PersonView]) -> Table:
    """Return persons, one a row."""
    return Table(
        headings=("PERSON", "ROLE", "TOKEN", "PASSWORD", "PASSKEYS", "SESSIONS", "INVITED"),
        rows=tuple(
            (
                each.name,
                each.role,
                *("yes" if has else "no" for has in (each.token, each.password)),
                *map(str, (each.passkeys, each.sessions)),
                "yes" if each.invited else "no",
            )
            for each in persons
        ),
        styles=tuple("heading" for _ in persons),
        empty="The settings name nobody.",
    )


def rule_table(rules: Sequence[RuleView]) -> Table:
    """Return rules, one a row."""
    return Table(
        headings=("RULE", "OPENED", "IN SHADOW", "RIGHT", "NOW"),
        rows=tuple(
            (
                each.rule,
                str(each.opened),
                str(each.in_shadow),
                each.precision,
                "told" if each.shadow is None else f"in shadow until {each.shadow.until}",
            )
            for each in rules
        ),
        styles=tuple("quiet" if each.shadow else "high" if each.suggestion else "heading" for each in rules),
        empty="No rule has found anything yet.",
    )


def policy_table(rows: Sequence[PolicyRow]) -> Table:
    """Return what policy says, one kind of action a row."""
    return Table(
        headings=("KIND", "MAY APPROVE", "NEEDS", "MAY NOT", "POLICIES"),
        rows=tuple(
            (
                each.kind,
                ", ".join(each.may) or "nobody",
                "; ".join(each.needs) or "nothing more",
                "; ".join(f"{no.person}: {no.why}" for no in each.may_not) or "-",
                ", ".join(each.policies) or "-",
            )
            for each in rows
        ),
        styles=tuple("heading" if each.may else "quiet" for each in rows),
        empty="There is no kind of action.",
    )


def print_table(table: Table) -> None:
    """Print a table: drawn on a terminal that has room for it, in plain columns elsewhere.

    Where it has no room rich would crop cells, and `45 min` read as `4`; the terminal wraps plain columns.
    """
    if not table.rows:
        click.echo(table.empty)
        return
    shown = _essential(table) if on_terminal() else table
    needed = sum(_least_widths(shown)) + _BETWEEN * len(shown.headings)
    if on_terminal() and needed <= get_terminal_size().columns:
        _draw(shown)
        return
    for row in _columns(shown):
        click.echo(row)


def _least_widths(table: Table) -> list[int]:
    """Return how wide each column has to be drawn so that nothing of it is cropped."""
    widths = []
    for heading, *cells in zip(table.headings, *table.rows, strict=True):
        longest = max(len(heading), *(len(guarded(cell)) for cell in cells))
        least = max(len(heading), _LEAST_WIDTH.get(heading, _LEAST_FOLDED))
        widths.append(longest if heading in _NEVER_FOLDED else min(longest, least))
    return widths


def _ids(ids: Sequence[str], *, short: bool) -> list[str]:
    """Return ids cut to the shortest length, eight or more, at which all of them differ."""
    longest = max(map(len, ids), default=0)
    length = _SHORT_ID if short else longest
    while length < longest and len({each[:length] for each in ids}) < len(set(ids)):
        length += 1
    return [each[:length] for each in ids]


def _subject(subject: SubjectView, *, short: bool) -> str:
    name = subject.name[:12] if short and _CONTAINER_ID.fullmatch(subject.name) else subject.name
    return f"{subject.kind} {name}"


def _when(moment: str, now: datetime | None) -> str:
    """Return a time as it is, or how long ago it was."""
    if now is None:
        return moment
    try:
        age = duration(max(0.0, (now - datetime.fromisoformat(moment)).total_seconds()))
        return " ".join(age.split()[:2])  # its largest unit
    except ValueError:
        return moment


def _essential(table: Table) -> Table:
    """Return the table without what a terminal has no room for, and without a state that all rows share."""
    columns = list(zip(table.headings, *table.rows, strict=True))
    kept = [
        column
        for column in columns
        if column[0] not in _LEFT_OUT
        and not (column[0] == "STATE" and set(column[1:]) == {"proposed"})
        and not (column[0] == "ATTENTION" and not any(column[1:]))
    ]
    headings, *rows = zip(*kept, strict=True)
    return Table(headings=headings, rows=tuple(rows), styles=table.styles, empty=table.empty)


def _columns(table: Table) -> list[str]:
    rows = [table.headings, *(tuple(map(guarded, row)) for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _draw(table: Table) -> None:
    from rich.console import Console  # noqa: PLC0415 - 60 ms that only a drawn table costs
    from rich.table import Table as Drawn  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    drawn = Drawn(box=None, pad_edge=False, padding=(0, _BETWEEN, 0, 0), header_style="bold")
    for heading, width in zip(table.headings, _least_widths(table), strict=True):
        drawn.add_column(heading, overflow="fold", no_wrap=heading in _NEVER_FOLDED, min_width=width)
    for row, style in zip(table.rows, table.styles, strict=True):
        cells = [Text(guarded(cell)) for cell in row]
        marked = table.headings.index("SEVERITY") if "SEVERITY" in table.headings else 0
        cells[marked].stylize(_RICH_STYLES.get(STYLES.get(style, ""), ""))
        drawn.add_row(*cells)
    Console(no_color=not wants_colour(), highlight=False, emoji=False, markup=False).print(drawn)
