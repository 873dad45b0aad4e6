"""A recording is judged as the living agent judged: the same cases at the same moments."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.command import SENSOR_NAMES, main
from agent.config import AgentSettings, read
from agent.recordings.commands import replay
from agent.recordings.recorder import RecordingFailed
from agent.testing import at, blind, death, oom_kill, origin, seeing
from probes import recording
from probes.observation import Observation


def settings(tmp_path: Path, text: str = "", name: str = "agent.toml") -> AgentSettings:
    """Return a configuration."""
    path = tmp_path / name
    path.write_text(text)
    return read(path, sensors=SENSOR_NAMES)


def written(tmp_path: Path, observations: Sequence[Observation]) -> Path:
    """Write a recording."""
    path = tmp_path / "recording.jsonl"
    path.write_text("".join(f"{recording.to_line(seen)}\n" for seen in observations))
    return path


def options(path: Path, *, further: float = 0.0, as_json: bool = False) -> Namespace:
    """Return what the command line would give."""
    return Namespace(file=path, further=further, json=as_json)


STORY = (
    seeing(10, "kernel.fatal_signal"),
    seeing(10, "kernel.oom_kill"),
    blind(10, "kernel.xid"),
    oom_kill(20),
    death(25, 11, where=origin(unit="vllm.service", container=None)),
)


HUGE = "\n".join(
    recording.to_line(seeing(0, "a")).replace(str(at(0).boot_ns), str(number)) for number in (1, 10**400)
).encode()


def test_tells_each_case_at_its_moment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Time is the recording's own, not the clock's."""
    replay(options(written(tmp_path, STORY), as_json=True), settings(tmp_path), None)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    opened = [(each["after_s"], each["fault_class"]) for each in told if each["phase"] == "opened"]
    assert opened == [(10.0, "memory.cgroup_oom_kill"), (15.0, "process.killed_by_signal")]


def test_says_what_the_recording_could_not_see(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sensor that was blind then is named, because silence of it proves nothing."""
    replay(options(written(tmp_path, STORY)), settings(tmp_path), None)
    out = capsys.readouterr().out
    assert "not seen: kernel.xid (read_failed)" in out
    assert "5 observations over 15 s; 2 cases open at the end" in out


def test_goes_on_in_silence_for_as_long_as_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A case that quiet time clears is seen to clear, and one second earlier it is not."""
    quiet = options(written(tmp_path, STORY[:2] + STORY[4:]), further=3600 * 2, as_json=True)
    replay(quiet, settings(tmp_path), None)
    phases = [json.loads(line)["phase"] for line in capsys.readouterr().out.splitlines()]
    assert phases[0] == "opened"


def test_tells_what_another_configuration_would_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines of one configuration alone carry its sign; what both say is left out."""
    other = settings(tmp_path, "[detectors.fatal_signal]\nenabled = false\n", "other.toml")
    replay(options(written(tmp_path, STORY)), settings(tmp_path), other)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("- ") and "process.killed_by_signal" in line for line in lines)
    assert not any("memory.cgroup_oom_kill" in line for line in lines)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"type":"OomKill"}\n', "line 1: OomKill.sensor: missing"),
        (b"\n\nno json\n", "line 3: not JSON"),
        (b"\xff\xfe\n", "recording.jsonl"),
        (b'{"type":"OomKill","\\u001b[2J":1}\n', r"line 1: OomKill\.\\x1b\[2J: no such field"),
        (b"x" * recording.LINE_MAX, "line 1: longer than any observation"),
        (HUGE, "a Gap at a time that cannot be"),
    ],
    ids=["missing", "no json", "no text", "escape", "no end", "huge"],
)
def test_refuses_what_is_no_recording(tmp_path: Path, content: bytes, says: str) -> None:
    """The message names the file and the line."""
    path = tmp_path / "recording.jsonl"
    path.write_bytes(content)
    with pytest.raises(RecordingFailed, match=says):
        replay(options(path), settings(tmp_path), None)


@pytest.mark.parametrize("as_json", [False, True])
def test_a_hostile_recording_is_told_inert(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    """Names of sensors and processes reach the terminal escaped, halves of characters too."""
    hostile = "\x1b]0;owned\x07\u202e\ud800"
    dead = death(25, 11, where=origin(unit=None, container=None, name=hostile))
    replay(options(written(tmp_path, [blind(10, hostile), dead]), as_json=as_json), settings(tmp_path), None)
    out = capsys.readouterr().out
    assert out.isascii()
    assert out.replace("\n", "").isprintable()
    assert "owned" in out


@pytest.mark.parametrize("further", ["nan", "inf", "-1", "1e99", "x"])
def test_a_span_that_is_none_is_wrong_usage(tmp_path: Path, further: str) -> None:
    """It is refused before anything is read."""
    with pytest.raises(SystemExit) as ended:
        main(["replay", str(tmp_path / "none.jsonl"), f"--further={further}"])
    assert ended.value.code == 2


def test_the_command_ends_with_one_for_a_missing_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback, and the file's name."""
    config = tmp_path / "agent.toml"
    config.write_text("")
    assert main(["replay", str(tmp_path / "none.jsonl"), "--config", str(config)]) == 1
    assert "none.jsonl" in capsys.readouterr().err
