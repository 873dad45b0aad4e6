"""What a development run shows."""

from __future__ import annotations

import re
from dataclasses import replace

from rich.console import Console

from dev.screen import Lines, PartRow, QueueRow, SensorRow, Snapshot, fitted, render

PARTS = (PartRow("agent", "running", "uid 65534, capabilities none", well=True),)
SEEING = SensorRow("kernel.device_open", seeing=True, reason="")
BLIND = SensorRow("kernel.device_open", seeing=False, reason="no_headers")
ROW = QueueRow("r1", "critical", "gpu.access_revoked", "unit model.service", 3, "proposed", "lost its GPU")


def snapshot(sensor: SensorRow = SEEING, queue: tuple[QueueRow, ...] = ()) -> Snapshot:
    return Snapshot("http://127.0.0.1:9737", "/x/token", PARTS, sensors=(sensor,), queue=queue)


def test_prints_a_line_for_each_change_only() -> None:
    """A log file of a quiet run does not grow."""
    lines = Lines()
    assert lines.changes(snapshot()) == [
        "agent: running (uid 65534, capabilities none)",
        "sensor kernel.device_open: seeing",
    ]
    assert lines.changes(snapshot()) == []
    assert lines.changes(snapshot(BLIND, (ROW,))) == [
        "sensor kernel.device_open: blind: no_headers",
        "queue r1: proposed, critical, gpu.access_revoked, unit model.service, seen 3: lost its GPU",
    ]
    assert lines.changes(snapshot(BLIND)) == ["queue r1: no longer waiting"]


def test_markup_in_a_name_is_shown_not_obeyed() -> None:
    """What came from a host is text, also on the live view."""
    row = QueueRow("r1", "high", "gpu.access_revoked", "unit [red]x[/red]", 1, "proposed", "[bold]a[/bold]")
    console = Console(width=200, record=True, file=None, force_terminal=False)
    with console.capture() as shown:
        console.print(render(snapshot(SensorRow("s", seeing=False, reason="[b]why[/b]"), (row,))))
    for text in ("[red]x[/red]", "[bold]a[/bold]", "[b]why[/b]"):
        assert text in shown.get()


def test_a_small_terminal_still_shows_what_waits() -> None:
    """Nobody can scroll a live view: sensors and entries give way until it ends on the last line."""
    sensors = [SensorRow(f"kernel.sensor_{n}", seeing=n > 12, reason="not_handed_over") for n in range(35)]
    queue = [replace(ROW, id=f"{n:08d}-0000-4000-8000-000000000000") for n in range(30)]
    whole = Snapshot("http://127.0.0.1:9737", "/x/token", PARTS, sensors=tuple(sensors), queue=tuple(queue))
    for few in (whole, replace(whole, queue=whole.queue[:3]), replace(whole, queue=())):
        console = Console(width=80, height=24, force_terminal=False)
        with console.capture() as captured:
            console.print(fitted(few, console))
        shown = captured.get().splitlines()
        assert len(shown) <= 24
        assert "end: Ctrl-C" in shown[-1]
        assert any("not_handed_over" in line for line in shown)
        listed = [line for line in shown if re.match(r"│ 0{6}\d\d critical gpu.access_revoked unit ", line)]
        assert (
            len(listed) == len(few.queue)
            or f"and {30 - len(listed)} more: nanobotctl queue" in captured.get()
        )
        assert bool(listed) == bool(few.queue)
