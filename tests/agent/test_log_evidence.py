"""What of a log line becomes evidence: its pattern and typed captures, as the wire carries them."""

from __future__ import annotations

import pytest

from agent.host.log_evidence import log_evidence
from agent.testing import at, origin
from escalation.model import Capture
from escalation.wire.fields import fit_word
from probes.logs.patterns import PATTERNS
from probes.observation import LogLine, SensorName
from probes.observed.logs import LogCapture


def _line(*captures: LogCapture) -> LogLine:
    return LogLine(
        sensor=SensorName("host.logs"),
        at=at(1),
        origin=origin(name="gcs_server"),
        pattern="ray.node_ended",
        captures=captures,
        count=3,
    )


def test_numbers_and_words_are_told_and_the_address_is_not() -> None:
    """The address is the case's subject; a word is told in small letters."""
    line = _line(
        LogCapture("address", 167_772_161.0),
        LogCapture("missed", 5.0),
        LogCapture("reason", word="EXPECTED end"),
    )
    evidence = log_evidence(line, count=7, window_s=60.0)
    assert evidence.captures == (Capture("missed", 5.0), Capture("reason", None, "expected-end"))
    assert (evidence.pattern, evidence.count, evidence.process_name) == ("ray.node_ended", 7, "gcs_server")


def test_no_more_captures_than_the_wire_takes() -> None:
    """What is too much is left out here, not refused there."""
    line = _line(*(LogCapture(f"n{number}", float(number)) for number in range(20)))
    assert len(log_evidence(line, count=1, window_s=1.0).captures) == 6


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.id)
def test_every_capture_of_the_table_passes_the_wire_unchanged(pattern: object) -> None:
    """Names and folded words of each pattern are words of the wire, so none becomes a hash."""
    words = dict(getattr(pattern, "words", ()))
    for name, choices in words.items():
        line = _line(*(LogCapture(name, word=choice) for choice in (*choices[:5], "other")))
        for capture in log_evidence(line, count=1, window_s=1.0).captures:
            assert fit_word("Capture.name", capture.name) == capture.name
            assert fit_word("Capture.word", capture.word) == capture.word
