"""What a person reads: the text of an entry, tables at any width, and the questions of a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from escalation.cli.tables import print_table, queue_table
from escalation.cli.text import coloured, entry_text, plain
from escalation.model import FaultClass, State, Subject, SubjectKind
from escalation.testing import an_entry
from escalation.view.attention import AttentionView
from escalation.view.entry import entry_view
from tests.escalation.cli.conftest import HOSTILE, Ctl

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.mark.parametrize("fault_class", FaultClass)
def test_the_operator_view_reads_as_reviewed(fault_class: FaultClass) -> None:
    """The text of `show` for each fault class is the one in the golden file."""
    path = GOLDEN / f"show-{fault_class.value}.txt"
    text = entry_text(entry_view(an_entry(fault_class)))
    if os.environ.get("NANOBOT_WRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def test_colour_adds_nothing_but_colour() -> None:
    """The coloured view is the plain one with colour codes in it."""
    view = entry_view(an_entry())
    assert re.sub("\x1b\\[[0-9;]*m", "", entry_text(view, paint=coloured)) == entry_text(view, paint=plain)


def test_wrapping_cuts_nothing_and_leaves_commands_alone() -> None:
    """On a narrow terminal prose is wrapped; the command stays on its line, and every word is there."""
    view = entry_view(an_entry(command=("echo", "word " * 30)))
    wide, narrow = entry_text(view), entry_text(view, width=60)
    assert wide.split() == narrow.split()
    assert f"$ echo '{'word ' * 30}'" in narrow
    prose = [line for line in narrow.splitlines() if not re.search("word|0000|4f4f", line)]
    assert max(map(len, prose)) <= 80


def test_words_of_a_newer_orchestrator_are_shown_as_they_are() -> None:
    """A severity, state or kind of action that this version does not know breaks nothing."""
    view = entry_view(an_entry())
    newer = replace(view, severity="dire", state="paused", action=replace(view.action, kind="drain"))
    text = entry_text(newer, paint=coloured)
    assert "? DIRE" in text
    assert "drain: container" in text
    assert queue_table([newer]).rows[0][1:3] == ("? dire", "paused")


def test_a_consequence_names_the_incident_that_explains_it() -> None:
    """What was withdrawn because of another incident says which, so that nobody searches at night."""
    text = entry_text(replace(entry_view(an_entry(state=State.WITHDRAWN)), explained_by="inc-9"))
    assert "Cause       another incident explains it; decide on that one: nanobotctl show inc-9\n" in text
    assert "Cause " not in entry_text(entry_view(an_entry()))


def test_ids_are_cut_only_as_far_as_they_differ() -> None:
    """On a terminal ids keep at least eight characters, and more where two begin alike."""
    views = [replace(entry_view(an_entry()), id=text) for text in ("aaaaaaaa-1111", "aaaaaaaa-1222")]
    now = datetime(2026, 11, 18, 12, 9, 40, tzinfo=UTC)
    assert [row[0] for row in queue_table(views, now=now).rows] == ["aaaaaaaa-11", "aaaaaaaa-12"]
    assert [row[0] for row in queue_table(views).rows] == ["aaaaaaaa-1111", "aaaaaaaa-1222"]
    row = queue_table(views[:1], now=now).rows[0]
    assert (row[0], row[5], row[7]) == ("aaaaaaaa", "container 4f4f4f4f4f4f", "1 h")


@pytest.mark.parametrize("columns", [40, 78, 100, 112, 140])
def test_no_width_of_a_terminal_crops_a_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int
) -> None:
    """Times, ids and states stand whole, drawn or in plain columns; a cut one would read as another."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))
    views = [
        replace(
            entry_view(an_entry(number=number, state=state)),
            id=f"{number}aaaaaaa-1111",
            host="a-host-with-a-name",
            last_seen="2026-11-18T11:24:40.000Z",
            attention=AttentionView(owner="ada", acknowledged_until="2026-11-18T12:24:40.000Z"),
        )
        for number, state in enumerate((State.PROPOSED, State.NOT_CURED))
    ]
    print_table(queue_table(views, now=datetime(2026, 11, 18, 12, 9, 40, tzinfo=UTC)))
    shown = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out)
    for whole in ("0aaaaaaa ", "‼ critical ", "not_cured ", "a-host-with-a-name ", "45 min"):
        assert whole in shown
    assert columns < 112 or max(map(len, shown.splitlines())) <= columns


def _in_terminal(arguments: list[str], environment: dict[str, str], answer: bytes = b"") -> tuple[int, str]:
    """Run nanobotctl on a pseudo terminal of 100 columns and return its exit code and what it showed."""
    ours, theirs = pty.openpty()
    program = [sys.executable, "-m", "escalation.cli", *arguments]
    process = subprocess.Popen(
        program,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | environment | {"COLUMNS": "100"},
        start_new_session=True,
    )
    os.close(theirs)
    shown, answered, until = b"", False, time.monotonic() + 30
    while time.monotonic() < until:
        if not select.select([ours], [], [], 0.2)[0]:
            if process.poll() is not None:
                break
            continue
        try:
            piece = os.read(ours, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
        if answer and not answered and b"[y/N]" in shown:
            os.write(ours, answer)
            answered = True
    os.close(ours)
    return process.wait(10), shown.decode()


def test_a_terminal_gets_a_drawn_table_with_inert_names(ctl: Ctl, served: Any) -> None:
    """On a terminal the table is coloured, NO_COLOR turns that off, and names cannot style themselves."""
    served.call(served.desk.opened(subject=Subject(SubjectKind.PROCESS, HOSTILE)))
    code, shown = _in_terminal(["queue"], {"TERM": "xterm-256color", "NO_COLOR": ""})
    assert code == 0
    assert "\x1b[1;31m" in shown
    assert "\x1b[31m[red]" not in shown
    assert "\u202e" not in shown
    code, shown = _in_terminal(["queue"], {"TERM": "xterm-256color", "NO_COLOR": "1"})
    assert code == 0
    assert "\x1b[1;31m" not in shown


@pytest.mark.parametrize(("answer", "code", "state"), [(b"y\n", 0, "approved"), (b"n\n", 1, "proposed")])
def test_on_a_terminal_the_person_is_asked(
    ctl: Ctl, served: Any, answer: bytes, code: int, state: str
) -> None:
    """The whole action and its digest are shown before the question; only yes approves."""
    entry = served.call(served.desk.opened())
    outcome, shown = _in_terminal(["approve", entry.recommendation.id, "--reason", "ok"], {}, answer)
    assert outcome == code
    assert entry.recommendation.digest in shown.partition("[y/N]")[0]
    assert served.call(served.desk.entry(entry.recommendation.id)).recommendation.state == state
