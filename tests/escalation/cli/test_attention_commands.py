"""ack, release, snooze, ask, answer, silence and maintenance, as a person and as a script run them."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any

import click
import pytest
from hypothesis import given, strategies as st

from escalation.cli.errors import ExitCode
from escalation.cli.spans import Span, moment_of
from escalation.inert import harmless
from tests.escalation.cli.conftest import Ctl

HOSTILE = "\x1b[31m<b>\u202e"


@pytest.fixture
def entry_id(served: Any) -> str:
    found: str = served.call(served.desk.opened()).recommendation.id
    return found


def test_ack_names_the_owner_and_release_gives_it_back(ctl: Ctl, entry_id: str) -> None:
    """By the beginning of an id, too; the queue says who has it."""
    done = ctl("ack", entry_id[:8], "--for", "2h")
    assert done.code == ExitCode.DONE
    assert done.out == f"{entry_id}: operator has it in hand until 2026-01-01T02:00:00.000Z\n"
    assert "operator until 2026-01-01T02:00:00.000Z" in ctl("queue").out
    assert "operator has it in hand until" in ctl("show", entry_id).out
    assert ctl("queue", "--state", "acknowledged", "--json").json[0]["attention"]["owner"] == "operator"
    assert ctl("release", entry_id).out == f"{entry_id} waits in the queue again\n"
    assert ctl("release", entry_id).code == ExitCode.REFUSED


def test_snooze_leaves_it_out_and_the_queue_says_so(ctl: Ctl, entry_id: str) -> None:
    """On standard error, so that a list stays a list."""
    assert ctl("snooze", entry_id, "--until", "2026-01-01T18:00:00Z").code == ExitCode.DONE
    queue = ctl("queue")
    assert queue.out == "Nothing waits for a decision.\n"
    assert queue.err == "left out: 1 snoozed, 0 silenced\n"
    assert entry_id in ctl("queue", "--state", "snoozed").out


def test_question_and_answer_stand_in_the_thread(ctl: Ctl, entry_id: str) -> None:
    """Hostile text is shown escaped, whoever wrote it."""
    assert ctl("ask", entry_id, f"why? {HOSTILE}", "--of", "grace").out.startswith(f"{entry_id}: asked")
    assert "asked of grace" in ctl("queue").out
    assert ctl("answer", entry_id, "it was me").out == f"{entry_id}: answered\n"
    shown = ctl("show", entry_id)
    assert "[1] 2026-01-01T00:00:00.000Z operator asks of grace: why? \\x1b[31m<b>\\u202e" in shown.out
    assert "[2] 2026-01-01T00:00:00.000Z operator answers 1: it was me" in shown.out
    assert all(harmless(line) for line in shown.out.splitlines())
    assert ctl("answer", entry_id, "again", "--question", "9").code == ExitCode.NOT_FOUND


def test_silence_from_its_preview_to_its_end(ctl: Ctl, entry_id: str) -> None:
    """Preview changes nothing; what is over stays in the list."""
    assert ctl("silence", "list").out == "Nothing is silenced.\n"
    preview = ctl("silence", "preview", "host=spark-1", "severity!=note")
    assert "spark-1" in preview.out
    assert ctl("silence", "preview", "host=spark-2", "--json").json["incidents"] == []
    begun = ctl("silence", "add", "host=spark-1", "--for", "1h", "--comment", HOSTILE, "--json").json
    assert (begun["state"], begun["incidents"]) == ("active", 1)
    assert "in maintenance" not in ctl("queue", "--state", "silenced").out
    assert entry_id in ctl("queue", "--state", "silenced").out
    assert ctl("silence", "list").out.count("\\x1b") == 1
    assert ctl("silence", "expire", begun["id"][:3]).code == ExitCode.NOT_FOUND
    ended = ctl("silence", "expire", begun["id"][:8])
    assert ended.code == ExitCode.DONE
    assert "is over; it covered 1 incidents: host=spark-1" in ended.out
    assert ctl("silence", "expire", begun["id"]).code == ExitCode.EXPIRED_OR_SUPERSEDED
    assert ctl("silence", "list", "--json").json[0]["ended_by"] == "operator"


def test_maintenance_from_its_start_to_its_end(ctl: Ctl, entry_id: str) -> None:
    """An entry of the host says so."""
    begun = ctl(
        "maintenance", "start", "spark-*", "--for", "2h", "--comment", "a fan", "--also", "monitor.blind"
    )
    assert "until 2026-01-01T02:00:00.000Z, covering 1 incidents now: host~spark-*" in begun.out
    assert "in maintenance by operator until" in ctl("show", entry_id).out
    (window,) = ctl("maintenance", "list", "--json").json
    assert window["also"] == ["monitor.blind"]
    assert ctl("maintenance", "end", window["id"]).code == ExitCode.DONE
    assert ctl("maintenance", "end", "nothing").code == ExitCode.NOT_FOUND


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("snooze", "ID"), ExitCode.USAGE),
        (("snooze", "ID", "--for", "2h", "--until", "18:30"), ExitCode.USAGE),
        (("ack", "ID", "--for", "tomorrow"), ExitCode.USAGE),
        (("ack", "ID", "--until", "2026-01-01"), ExitCode.USAGE),
        (("ack", "ID", "--for", "9h"), ExitCode.REFUSED),
        (("ack", "nothing"), ExitCode.NOT_FOUND),
        (("ask", "ID"), ExitCode.USAGE),
        (("answer", "ID", "there was none"), ExitCode.REFUSED),
        (("silence", "add", "--for", "1h", "--comment", "x"), ExitCode.USAGE),
        (("silence", "add", "host=a", "--for", "1h"), ExitCode.USAGE),
        (("silence", "add", "host=a", "--comment", "x"), ExitCode.USAGE),
        (("silence", "add", "host>a", "--for", "1h", "--comment", "x"), ExitCode.FAILED),
        (("silence", "add", "host~*", "--for", "1h", "--comment", "x"), ExitCode.REFUSED),
        (("maintenance", "start", "*", "--for", "1h", "--comment", "x"), ExitCode.REFUSED),
    ],
)
def test_what_cannot_be_meant_ends_with_its_exit_code(
    ctl: Ctl, entry_id: str, arguments: tuple[str, ...], code: ExitCode
) -> None:
    """And with words on standard error, and nothing on standard output."""
    done = ctl(*(entry_id if each == "ID" else each for each in arguments))
    assert done.code == code
    assert done.out == ""
    assert done.err


def test_viewers_see_all_of_it_and_do_none(ctl: Ctl, entry_id: str) -> None:
    """Looking needs a viewer; doing needs an operator."""
    assert ctl("silence", "list", as_="viewer").code == ExitCode.DONE
    assert ctl("silence", "preview", "host=a", as_="viewer").code == ExitCode.DONE
    for arguments in (
        ("ack", entry_id),
        ("snooze", entry_id, "--for", "1h"),
        ("ask", entry_id, "why?"),
        ("silence", "add", "host=a", "--for", "1h", "--comment", "x"),
        ("maintenance", "start", "a", "--for", "1h", "--comment", "x"),
    ):
        assert ctl(*arguments, as_="viewer").code == ExitCode.REFUSED


@given(
    days=st.integers(0, 99), hours=st.integers(0, 99), minutes=st.integers(0, 99), seconds=st.integers(1, 99)
)
def test_spans_are_the_sum_of_their_parts(days: int, hours: int, minutes: int, seconds: int) -> None:
    """In the order of days, hours, minutes and seconds; each may be left out."""
    text = "".join(
        f"{n}{unit}" for n, unit in ((days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s")) if n
    )
    assert Span().convert(text, None, None) == days * 86_400 + hours * 3600 + minutes * 60 + seconds


@given(st.text(max_size=20))
def test_any_text_is_a_span_or_a_usage_error(text: str) -> None:
    """Nothing else can come of it."""
    with contextlib.suppress(click.UsageError):
        assert Span().convert(text, None, None) >= 0


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("18:30", "2026-03-01T18:30:00+00:00"),
        ("9:05", "2026-03-02T09:05:00+00:00"),
        ("12:00", "2026-03-02T12:00:00+00:00"),
        ("2026-03-01T18:30:00+01:00", "2026-03-01T18:30:00+01:00"),
    ],
)
def test_hour_of_the_clock_is_the_next_one(text: str, means: str) -> None:
    """Half past six is today until then, and tomorrow after it."""
    assert moment_of(text, now=datetime(2026, 3, 1, 12, 0, tzinfo=UTC)) == means
