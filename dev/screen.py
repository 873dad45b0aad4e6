"""What a development run shows: its parts, what each sensor sees, the queue, where to look.

All of it is asked of the orchestrator's own HTTP API, so that what is on the screen has gone the whole way.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from escalation.inert import guarded


@dataclass(frozen=True, slots=True)
class PartRow:
    """One part: how it is, and with which privilege."""

    name: str
    state: str
    privilege: str
    well: bool


@dataclass(frozen=True, slots=True)
class SensorRow:
    """One sensor of this host: seeing, or blind and why."""

    name: str
    seeing: bool
    reason: str


@dataclass(frozen=True, slots=True)
class QueueRow:
    """One recommendation that waits for a person."""

    id: str
    severity: str
    fault_class: str
    subject: str
    count: int
    state: str
    headline: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is shown, at one moment."""

    url: str
    token_file: str
    parts: tuple[PartRow, ...]
    notes: tuple[str, ...] = ()
    sensors: tuple[SensorRow, ...] = ()
    queue: tuple[QueueRow, ...] = ()
    trouble: str = ""


@dataclass(slots=True)
class Lines:
    """The same for a pipe or a log file: a line for each thing that changed since the last snapshot."""

    _said: dict[str, str] = field(default_factory=dict)

    def changes(self, snapshot: Snapshot) -> list[str]:
        """Return the lines to print now."""
        now = {f"note {n}": text for n, text in enumerate(snapshot.notes)}
        now |= {
            f"part {p.name}": f"{p.name}: {p.state}" + (f" ({p.privilege})" if p.privilege else "")
            for p in snapshot.parts
        }
        now |= {
            f"sensor {s.name}": f"sensor {s.name}: " + ("seeing" if s.seeing else f"blind: {s.reason}")
            for s in snapshot.sensors
        }
        for q in snapshot.queue:
            what = f"{q.state}, {q.severity}, {q.fault_class}, {q.subject}, seen {q.count}: {q.headline}"
            now[f"queue {q.id}"] = f"queue {q.id}: {what}"
        if snapshot.trouble:
            now["trouble"] = snapshot.trouble
        fresh = [line for key, line in now.items() if self._said.get(key) != line]
        gone = [
            f"{key}: no longer waiting" for key in self._said if key.startswith("queue ") and key not in now
        ]
        self._said = now
        return fresh + gone


class Api:
    """The orchestrator's HTTP API, as much of it as the screen shows."""

    def __init__(self, *, url: str, token: str) -> None:
        self._url = url
        self._token = token

    def ready(self) -> bool:
        """Say whether the orchestrator says that it is ready."""
        try:
            with urllib.request.urlopen(f"{self._url}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def get(self, path: str) -> dict[str, Any]:
        """Return the JSON object at `path`; raise OSError or ValueError."""
        request = urllib.request.Request(
            f"{self._url}/api/v1/{path}", headers={"Authorization": f"Bearer {self._token}"}
        )
        with urllib.request.urlopen(request, timeout=3) as answer:
            found = json.load(answer)
        if not isinstance(found, dict):
            raise ValueError(f"{path}: not an object")  # noqa: TRY004 - of the answer, not of an argument
        return found


def ask(api: Api, *, host: str) -> tuple[tuple[SensorRow, ...], tuple[QueueRow, ...], str]:
    """Return the sensors of `host`, the queue, and what went wrong while asking."""
    try:
        hosts = api.get("hosts")["hosts"]
        entries = api.get("queue")["entries"]
    except (OSError, ValueError, KeyError) as error:
        return (), (), f"the orchestrator does not answer: {error}"
    sensors = tuple(
        SensorRow(guarded(str(row["sensor"])), bool(row["seeing"]), guarded(str(row.get("reason") or "")))
        for known in hosts
        if known["host"] == host
        for row in known["coverage"]
    )
    queue = tuple(
        QueueRow(
            id=guarded(str(entry["id"])),
            severity=str(entry["severity"]),
            fault_class=str(entry["fault_class"]),
            subject=guarded(f"{entry['subject']['kind']} {entry['subject']['name']}"),
            count=int(entry["count"]),
            state=str(entry["state"]),
            headline=guarded(str(entry.get("headline") or entry["summary"])),
        )
        for entry in entries
    )
    return sensors, queue, ""


def fitted(snapshot: Snapshot, console: Console) -> RenderableType:
    """Return as much of the live view as the terminal holds: what is below its edge nobody can scroll to."""

    def lines(view: RenderableType) -> int:
        return len(console.render_lines(view))

    whole = render(snapshot)
    if lines(whole) <= console.height:
        return whole
    left = console.height - lines(render(snapshot, brief=True, rows=0)) + 1
    waiting = len(snapshot.queue)
    return render(snapshot, brief=True, rows=waiting if waiting <= left else max(1, left - 1))


def render(snapshot: Snapshot, *, brief: bool = False, rows: int | None = None) -> RenderableType:
    """Return the live view; a brief one counts what sees, and the queue beyond `rows`."""
    parts = _table("part", "state", "privilege")
    for part in snapshot.parts:
        parts.add_row(part.name, Text(part.state, style="green" if part.well else "red"), part.privilege)
    notes: Sequence[str] = (
        *snapshot.notes,
        *((snapshot.trouble,) if snapshot.trouble else ()),
        f"web: {snapshot.url}/ (name operator, password in {snapshot.token_file})",
        "ask: .venv/bin/nanobotctl queue          end: Ctrl-C",
    )
    return Group(
        Panel(parts, title="Host Nanobot", title_align="left"),
        Panel(_sensors(snapshot.sensors, brief=brief), title="sensors", title_align="left"),
        Panel(_queue(snapshot.queue, rows=rows), title="queue", title_align="left"),
        Text("\n".join(notes)),
    )


def _sensors(sensors: Sequence[SensorRow], *, brief: bool) -> RenderableType:
    """Those that see, and those that are blind for each reason."""
    seeing = [sensor.name for sensor in sensors if sensor.seeing]
    blind: dict[str, list[str]] = {}
    for sensor in sensors:
        if not sensor.seeing:
            blind.setdefault(sensor.reason, []).append(sensor.name)
    if brief:
        lines = [f"{len(seeing)} see", *(f"{len(names)} blind: {reason}" for reason, names in blind.items())]
        return _cut(lines)
    shown = _table("", "sensors", "why not")
    shown.add_row(Text("seeing", style="green"), Text(", ".join(seeing)), "")
    for reason, names in blind.items():
        shown.add_row(Text("blind", style="yellow"), Text(", ".join(names)), Text(reason))
    return shown


def _queue(queue: Sequence[QueueRow], *, rows: int | None) -> RenderableType:
    """Every entry; or `rows` of them, a line each, and how many more there are."""
    if not queue:
        return Text("nothing waits for a person", style="dim")
    if rows is not None:
        lines = [
            f"{row.id[:8]} {row.severity} {row.fault_class} {row.subject}: {row.headline}" for row in queue
        ]
        more = [f"and {len(queue) - rows} more: nanobotctl queue"] if rows < len(queue) else []
        return _cut([*lines[:rows], *more])
    shown = _table("id", "severity", "fault", "subject", "seen", "state", "what")
    for row in queue:
        cells = (
            row.id[:8],
            row.severity,
            row.fault_class,
            row.subject,
            str(row.count),
            row.state,
            row.headline,
        )
        shown.add_row(*(Text(cell) for cell in cells))
    return shown


def _cut(lines: Sequence[str]) -> Text:
    return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, expand=True)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in {"", "id"})
    return table
