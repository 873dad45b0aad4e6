"""Real faults, recorded once (`python -m dev.record_incidents`), judged again: the same cases, told the same.

What is expected stands beside each recording as people would read it; NANOBOT_WRITE_GOLDEN=1 writes it anew.
"""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path

import pytest

from agent.command import SENSOR_NAMES
from agent.config import read
from agent.recordings.commands import replay
from dev.record_incidents import INCIDENTS

FOLDER = Path(__file__).parents[1] / "recorded" / "replayed"
QUIET_S = 120.0


@pytest.mark.parametrize("name", sorted(INCIDENTS))
def test_a_recorded_incident_is_judged_as_it_was(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The case of the incident's own class opens; nothing else is said than what stands in the file."""
    config = tmp_path / "agent.toml"
    config.write_text("")
    options = Namespace(file=FOLDER / f"{name}.jsonl", further=QUIET_S, json=False)
    replay(options, read(config, sensors=SENSOR_NAMES), None)
    told = capsys.readouterr().out
    expected = FOLDER / f"{name}.txt"
    if os.environ.get("NANOBOT_WRITE_GOLDEN"):
        expected.write_text(told)
    assert f" {name}: " in told
    assert told == expected.read_text()


def test_every_recording_is_of_a_known_incident() -> None:
    """No recording lies there that nobody judges."""
    assert {path.stem for path in FOLDER.glob("*.jsonl")} == set(INCIDENTS)
