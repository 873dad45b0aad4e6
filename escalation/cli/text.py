"""An entry as text for people, whole; and one change of it as a line.

Off a terminal nothing is wrapped or coloured. What the server made inert is guarded once more: this end does
not have to trust that one. Kinds and severities that a newer orchestrator knows are shown as it names them.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Final

from escalation import model_text
from escalation.inert import guarded
from escalation.model import ActionKind, Severity
from escalation.view.attention import AttentionView
from escalation.view.entry import EntryView, shell_line
from escalation.view.weighing import result_symbol, since_proposal
from escalation.wording.codes import action_headline, severity_symbol
from escalation.wording.quantities import times

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
    return f"\x1b[{STYLES.get(style, '0')}m{text}\x1b[0m"


def on_terminal() -> bool:
    """Return whether a person reads standard output directly."""
    return sys.stdout.isatty()


def wants_colour() -> bool:
    """Return whether colour may be used: on a terminal, unless NO_COLOR is set or it is dumb."""
    return on_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def severity_words(severity: str) -> str:
    """Return a severity with its symbol; one that is not known here has the symbol of the unknown."""
    known = Severity(severity) if severity in set(Severity) else Severity.UNKNOWN
    return f"{severity_symbol(known)} {guarded(severity)}"


def entry_text(entry: EntryView, *, paint: Paint = plain, width: int | None = None) -> str:
    """Return everything about an entry, the action whole; prose is wrapped to `width`, commands never are."""
    mark = severity_words(entry.severity).upper()
    lines = [
        f"{paint(mark, entry.severity)}  {paint(guarded(entry.headline), 'heading')}",
        guarded(f"{entry.host}  {entry.subject.kind} {entry.subject.name}  {entry.fault_class}"),
        "",
    ]
    seen = f"{entry.first_seen}, last {entry.last_seen}, {times(entry.count)}"
    if entry.cleared_at:
        seen += f"; cleared {entry.cleared_at}"
    if entry.returns:
        seen += f"; came back {times(entry.returns)} soon after it had cleared"
    for label, values in (
        ("State", [f"{entry.state}: {entry.state_means}"]),
        ("Since", [seen]),
        ("Why", list(entry.reasons) or ["the agent gave no reason"]),
        ("Evidence", [str(each["fact"]) for each in entry.evidence] or ["none was sent"]),
        ("Cause", _cause(entry)),
        ("Explains", _consequences(entry)),
        ("Attention", _attention(entry)),
        ("Thread", _thread(entry)),
        ("Advice", [entry.summary]),
    ):
        if values:
            lines += block(label, values, paint, width)
    lines += _action(entry, paint, width)
    for label, values in (
        ("Costs", [entry.risk, *_price(entry)]),
        ("Checked", _preconditions(entry)),
        ("Set aside", [f"{each.title}, by {each.person}: {each.reason}" for each in entry.set_aside]),
        ("Not fixed", [entry.will_not_fix]),
        ("Verified", [entry.verify]),
        ("Or", _alternatives(entry)),
        ("Before", _before(entry)),
        ("History", _history(entry)),
        ("Signed", [f"{each.person}: {each.words}" for each in entry.approvals]),
        ("Id", [entry.id]),
        ("Incident", [entry.incident_id]),
        ("Digest", [entry.digest]),
        ("Model", [] if entry.model_text is None else list(model_text.lines(entry.model_text))),
    ):
        if values:
            lines += block(label, values, paint, width)
    if advice := _next_step(entry):
        lines += ["", *advice]
    return "\n".join(lines) + "\n"


def attention_words(attention: AttentionView) -> str:
    """Return in few words what people do about an entry; empty when nobody does anything."""
    words = []
    if attention.owner is not None:
        words.append(f"{attention.owner} until {attention.acknowledged_until}")
    if attention.snoozed_until is not None:
        words.append(f"snoozed until {attention.snoozed_until}")
    if attention.asked:
        words.append("asked" + (f" of {', '.join(attention.asked_of)}" if attention.asked_of else ""))
    if attention.silenced_by:
        words.append("in maintenance" if attention.in_maintenance else "silenced")
    return "; ".join(words)


def _attention(entry: EntryView) -> list[str]:
    attention = entry.attention
    lines = []
    if attention.owner is not None:
        lines.append(f"{attention.owner} has it in hand until {attention.acknowledged_until}")
    if attention.snoozed_until is not None:
        lines.append(f"{attention.snoozed_by} put it off until {attention.snoozed_until}")
    for each in attention.silenced_by:
        noun = "silenced" if each.origin == "silence" else "in maintenance"
        lines.append(f"{noun} by {each.author} until {each.ends_at}: {each.comment}")
    return lines


def _thread(entry: EntryView) -> list[str]:
    lines = []
    for each in entry.attention.thread:
        of = f" of {', '.join(each.to)}" if each.to else ""
        what = f"asks{of}" if each.answers is None else f"answers {each.answers}"
        lines.append(f"[{each.number}] {each.at} {each.person} {what}: {each.text}")
    return lines


def _cause(entry: EntryView) -> list[str]:
    if entry.explained_by is None:
        return []
    return [f"another incident explains it; decide on that one: nanobotctl show {entry.explained_by}"]


def _consequences(entry: EntryView) -> list[str]:
    return [
        f"{each.host}  {each.subject.kind} {each.subject.name}  {each.fault_class}: {each.headline}"
        for each in entry.explains
    ]


def _price(entry: EntryView) -> list[str]:
    return [] if entry.price is None else [f"Now: {'; '.join(entry.price.words)}."]


def _preconditions(entry: EntryView) -> list[str]:
    lines = []
    for each in entry.preconditions:
        before = since_proposal(each)
        changed = f" (changed: {before})" if before else ""
        lines.append(f"{result_symbol(each.result)} {each.title}: {each.words}{changed}")
    return lines


def _alternatives(entry: EntryView) -> list[str]:
    return [
        f"{each.title}: {each.words} Costs: {each.costs} Not first: {each.why_not}"
        for each in entry.alternatives
    ]


def _before(entry: EntryView) -> list[str]:
    if entry.history is None:
        cured = entry.cured_before
        return [f"cured {cured.cured} of {cured.tried} times" if cured.tried else "never tried"]
    return [entry.history.words] + [
        f"{each.at} {'cured' if each.cured else 'did not cure'} {each.target} on {each.host}"
        f"{', approved by ' + ' and '.join(each.approved_by) if each.approved_by else ''}"
        for each in entry.history.last
    ]


def _action(entry: EntryView, paint: Paint, width: int | None) -> list[str]:
    action = entry.action
    known = action.kind in set(ActionKind)
    words = action_headline(ActionKind(action.kind)) if known else action.kind
    lines = block(
        "Action", [f"{words}: {action.target.kind} {action.target.name} on {action.host}"], paint, width
    )
    if action.whole and (line := shell_line(action.command)):
        lines.append(f"{_INDENT}$ {paint(line, 'command')}")
    for number, element in enumerate(action.command, start=1):
        lines.append(f"{_INDENT}{paint(f'[{number}]', 'quiet')} {guarded(element)}")
    if action.refusal:
        lines += block("", [f"cannot be approved: {action.refusal}"], paint, width)
    return lines


def block(label: str, values: Sequence[str], paint: Paint, width: int | None) -> list[str]:
    """Return values under a label, one a line, wrapped to `width`."""
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
    if entry.state == "proposed" and entry.drill:
        return [
            "A drill: it clears when the drill ends. Sooner:",
            f"  nanobotctl reject {entry.id} --reason '...'",
        ]
    if entry.state == "proposed":
        return ["When a person has dealt with it:", f"  nanobotctl reject {entry.id} --reason '...'"]
    if entry.state == "approved":
        until = f" until {entry.execute_by}" if entry.execute_by else ""
        return [f"Run the command on {entry.action.host}{until}, then:", f"  nanobotctl done {entry.id}"]
    if entry.state == "done" and entry.done_by is None:
        return [
            "It cleared, and nobody said that it was carried out. Who did:",
            f"  nanobotctl done {entry.id}",
        ]
    return []


def change_line(entry: EntryView, *, paint: Paint = plain) -> str:
    """Return one change as one line."""
    mark = severity_words(entry.severity)
    what = f"{entry.headline} ({entry.subject.kind} {entry.subject.name})"
    doing = [attention_words(entry.attention)]
    if entry.state == "proposed" and entry.approvers:
        doing.insert(0, f"approved by {' and '.join(entry.approvers)}, and a second person has to")
    words = "; ".join(filter(None, doing))
    rest = guarded(f"{entry.state:<10} {entry.host}  {what}  {entry.id}" + (f"  ({words})" if words else ""))
    return f"{entry.last_seen}  {paint(f'{mark:<10}', entry.severity)} {rest}"
