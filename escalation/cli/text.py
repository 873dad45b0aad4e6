"""Views as text for people: the whole entry, and tables for queue, incidents and hosts.

Off a terminal the layout is plain and stable: no colour, nothing cut, columns two spaces apart. On a terminal
tables are drawn by rich, from text objects and never from markup, so that a name cannot style itself. What
the server made inert is guarded once more: this end does not have to trust that one.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import click

from escalation.inert import guarded
from escalation.model import ActionKind, Severity
from escalation.view import EntryView, HostView, IncidentView
from escalation.wording import action_headline, severity_symbol, times

Paint = Callable[[str, str], str]
"""Takes text and a style's name, returns the text so styled."""

_INDENT: Final = " " * 12
STYLES: Final = {
    "critical": "1;31",
    "high": "1;33",
    "medium": "33",
    "note": "32",
    "unknown": "2",
    "heading": "1",
    "command": "1",
    "quiet": "2",
}


def plain(text: str, _style: str) -> str:
    """Return the text as it is."""
    return text


def coloured(text: str, style: str) -> str:
    """Return the text in the colour of `style`."""
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m"


def on_terminal() -> bool:
    """Return whether a person reads standard output directly."""
    return sys.stdout.isatty()


def wants_colour() -> bool:
    """Return whether colour may be used: on a terminal, unless NO_COLOR is set or it is dumb."""
    return on_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def entry_text(entry: EntryView, *, paint: Paint = plain, width: int | None = None) -> str:
    """Return everything about an entry, the action whole; prose is wrapped to `width`, commands never are."""
    severity = Severity(entry.severity)
    mark = f"{severity_symbol(severity)} {entry.severity.upper()}"
    lines = [
        f"{paint(mark, entry.severity)}  {paint(guarded(entry.headline), 'heading')}",
        guarded(f"{entry.host}  {entry.subject.kind} {entry.subject.name}  {entry.fault_class}"),
        "",
    ]
    seen = f"{entry.first_seen}, last {entry.last_seen}, {times(entry.count)}"
    if entry.cleared_at:
        seen += f"; cleared {entry.cleared_at}"
    for label, values in (
        ("State", [f"{entry.state}: {entry.state_means}"]),
        ("Since", [seen]),
        ("Why", list(entry.reasons) or ["the agent gave no reason"]),
        ("Evidence", [str(each["fact"]) for each in entry.evidence] or ["none was sent"]),
        ("Advice", [entry.summary]),
    ):
        lines += _block(label, values, paint, width)
    lines += _action(entry, paint, width)
    cured = entry.cured_before
    history = f"cured {cured.cured} of {cured.tried} times" if cured.tried else "never tried"
    for label, values in (
        ("Costs", [entry.risk]),
        ("Not fixed", [entry.will_not_fix]),
        ("Verified", [entry.verify]),
        ("Before", [history]),
        ("History", _history(entry)),
        ("Id", [entry.id]),
        ("Incident", [entry.incident_id]),
        ("Digest", [entry.digest]),
    ):
        lines += _block(label, values, paint, width)
    if advice := _next_step(entry):
        lines += ["", *advice]
    return "\n".join(lines) + "\n"


def _action(entry: EntryView, paint: Paint, width: int | None) -> list[str]:
    action = entry.action
    words = action_headline(ActionKind(action.kind))
    lines = _block(
        "Action", [f"{words}: {action.target.kind} {action.target.name} on {action.host}"], paint, width
    )
    if action.command_line is not None and action.command:
        lines.append(f"{_INDENT}$ {paint(guarded(action.command_line), 'command')}")
    for number, element in enumerate(action.command, start=1):
        lines.append(f"{_INDENT}{paint(f'[{number}]', 'quiet')} {guarded(element)}")
    if action.refusal:
        lines += _block("", [f"cannot be approved: {action.refusal}"], paint, width)
    return lines


def _block(label: str, values: Sequence[str], paint: Paint, width: int | None) -> list[str]:
    lines = [line for value in values for line in _wrapped(guarded(value), width)]
    first = paint(f"{label:<10}", "heading") if label else " " * 10
    return [f"{first}  {lines[0]}", *(f"{_INDENT}{line}" for line in lines[1:])]


def _wrapped(text: str, width: int | None) -> list[str]:
    if width is None:
        return [text]
    room = max(width - len(_INDENT), 20)
    return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]


def _history(entry: EntryView) -> list[str]:
    steps = [f"{entry.created_at} proposed"]
    if entry.decided_at and entry.decided_by:
        who = " and ".join(entry.approvers) or entry.decided_by
        verb = "decided" if entry.state != "proposed" else "approved, as the first of two,"
        reason = f": {entry.decision_reason}" if entry.decision_reason else ""
        steps.append(f"{entry.decided_at} {verb} by {who}{reason}")
    if entry.done_at:
        steps.append(f"{entry.done_at} marked done{f' by {entry.done_by}' if entry.done_by else ''}")
    if entry.finished_at:
        steps.append(f"{entry.finished_at} {entry.state}")
    return steps


def _next_step(entry: EntryView) -> list[str]:
    if entry.state == "proposed" and not entry.action.refusal:
        return [
            f"Decide until {entry.approve_by}:",
            f"  nanobotctl approve {entry.id} --reason '...'",
            f"  nanobotctl reject {entry.id} --reason '...'",
        ]
    if entry.state == "proposed":
        return ["When a person has dealt with it:", f"  nanobotctl reject {entry.id} --reason '...'"]
    if entry.state == "approved":
        until = f" until {entry.execute_by}" if entry.execute_by else ""
        return [f"Run the command on {entry.action.host}{until}, then:", f"  nanobotctl done {entry.id}"]
    return []


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under headings; `styles` holds one style's name a row."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    styles: tuple[str, ...]
    empty: str


def queue_table(entries: Sequence[EntryView]) -> Table:
    """Return the queue, one entry a row."""
    return Table(
        headings=("SEVERITY", "STATE", "HOST", "WHAT", "SUBJECT", "COUNT", "LAST SEEN", "ID"),
        rows=tuple(
            (
                f"{severity_symbol(Severity(each.severity))} {each.severity}",
                each.state,
                each.host,
                each.fault_class,
                f"{each.subject.kind} {each.subject.name}",
                str(each.count),
                each.last_seen,
                each.id,
            )
            for each in entries
        ),
        styles=tuple(each.severity for each in entries),
        empty="Nothing waits for a decision.",
    )


def incident_table(incidents: Sequence[IncidentView]) -> Table:
    """Return incidents, one a row."""
    return Table(
        headings=("SEVERITY", "OPEN", "HOST", "WHAT", "SUBJECT", "COUNT", "FIRST SEEN", "LAST SEEN", "ID"),
        rows=tuple(
            (
                f"{severity_symbol(Severity(each.severity))} {each.severity}",
                "open" if each.open else "cleared",
                each.host,
                each.fault_class,
                f"{each.subject.kind} {each.subject.name}",
                str(each.count),
                each.first_seen,
                each.last_seen,
                each.id,
            )
            for each in incidents
        ),
        styles=tuple(each.severity if each.open else "quiet" for each in incidents),
        empty="There are no incidents.",
    )


def hosts_table(hosts: Sequence[HostView]) -> Table:
    """Return hosts, and under each what it cannot see and what was lost."""
    rows: list[tuple[str, ...]] = []
    styles: list[str] = []
    for host in hosts:
        seeing = sum(coverage.seeing for coverage in host.coverage)
        heard = "◌ silent" if host.silent else "✓ heard"
        rows.append(
            (
                host.host,
                heard,
                host.last_heard,
                f"{seeing} of {len(host.coverage)} sensors see",
                host.agent_version,
            )
        )
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


def change_line(entry: EntryView, *, paint: Paint = plain) -> str:
    """Return one change as one line."""
    mark = f"{severity_symbol(Severity(entry.severity))} {entry.severity}"
    what = f"{entry.headline} ({entry.subject.kind} {entry.subject.name})"
    rest = guarded(f"{entry.state:<10} {entry.host}  {what}  {entry.id}")
    return f"{entry.last_seen}  {paint(f'{mark:<10}', entry.severity)} {rest}"


def print_table(table: Table) -> None:
    """Print a table: drawn on a terminal, in plain columns elsewhere."""
    if not table.rows:
        click.echo(table.empty)
    elif on_terminal():
        _draw(table)
    else:
        for row in _columns(table):
            click.echo(row)


def _columns(table: Table) -> list[str]:
    rows = [table.headings, *(tuple(map(guarded, row)) for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _draw(table: Table) -> None:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - 60 ms that only a drawn table costs
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table as Drawn  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    names = {
        "1;31": "bold red",
        "1;33": "bold yellow",
        "33": "yellow",
        "32": "green",
        "2": "dim",
        "1": "bold",
    }
    drawn = Drawn(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for heading in table.headings:
        drawn.add_column(heading, overflow="fold", no_wrap=heading in {"SEVERITY", "STATE", "COUNT"})
    for row, style in zip(table.rows, table.styles, strict=True):
        first, *rest = (Text(guarded(cell)) for cell in row)
        first.stylize(names[STYLES[style]])
        drawn.add_row(first, *rest)
    Console(no_color=not wants_colour(), highlight=False, emoji=False, markup=False).print(drawn)
