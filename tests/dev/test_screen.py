"""What a development run shows."""

from __future__ import annotations

from rich.console import Console

from dev.screen import Lines, PartRow, QueueRow, SensorRow, Snapshot, render

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
