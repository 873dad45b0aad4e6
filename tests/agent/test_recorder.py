"""Recordings of a running agent: who may ask, what ends one, and what it then holds."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from agent.recorder import FOLDER, REQUEST, Recorder
from agent.testing import at, blind, death, seeing
from probes import recording


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    """One with folders of its own."""
    (tmp_path / "run").mkdir()
    return Recorder(requests=tmp_path / "run", recordings=tmp_path / FOLDER)


def ask(tmp_path: Path, *, seconds: float = 60, bytes_max: int = 1 << 20, name: str = "asked-1") -> Path:
    """Lay a request down; return where it lies."""
    path = tmp_path / "run" / REQUEST
    path.write_text(json.dumps({"name": name, "seconds": seconds, "bytes_max": bytes_max}))
    return path


def result(tmp_path: Path, name: str = "asked-1") -> dict[str, object]:
    """Return what became of a recording."""
    found: dict[str, object] = json.loads((tmp_path / FOLDER / f"{name}.result").read_text())
    return found


def test_writes_what_was_in_sight_and_what_was_seen(recorder: Recorder, tmp_path: Path) -> None:
    """The recording begins with each sensor's sight and reads back as the same observations."""
    ask(tmp_path)
    sight = (seeing(1, "kernel.fatal_signal"), blind(1, "kernel.xid"))
    assert recorder.asked(sight, at(1)) == 60
    recorder.take((death(2, 11), death(3, 6)), at(3))
    recorder.end("its time was over", at(61))
    path = tmp_path / FOLDER / "asked-1.jsonl"
    assert list(recording.read(path.read_text().splitlines())) == [*sight, death(2, 11), death(3, 6)]
    assert path.stat().st_mode & 0o777 == 0o600
    told = result(tmp_path)
    assert (told["observations"], told["seconds"], told["ended"]) == (4, 60.0, "its time was over")
    assert told["bytes"] == path.stat().st_size
    assert not recorder.is_on


def test_a_signal_without_a_request_ends_it(recorder: Recorder, tmp_path: Path) -> None:
    """Taking the request away and knocking again is how a recording is ended early."""
    ask(tmp_path).unlink() if recorder.asked((), at(1)) else None
    ask(tmp_path)
    recorder.asked((), at(1))
    (tmp_path / "run" / REQUEST).unlink()
    assert recorder.asked((), at(5)) is None
    assert result(tmp_path)["ended"] == "asked to"


def test_never_grows_beyond_its_measure(recorder: Recorder, tmp_path: Path) -> None:
    """What does not fit any more is not written in part."""
    ask(tmp_path, bytes_max=4096)
    recorder.asked((), at(0))
    for second in range(1, 100):
        recorder.take((death(second, 11),), at(second))
    assert not recorder.is_on
    assert result(tmp_path)["ended"] == "it reached its size"
    lines = (tmp_path / FOLDER / "asked-1.jsonl").read_text()
    assert len(lines) <= 4096
    assert len(list(recording.read(lines.splitlines()))) == result(tmp_path)["observations"]


@pytest.mark.parametrize(
    "request_text",
    [
        "",
        "{}",
        '{"name":"../../etc/x","seconds":1,"bytes_max":4096}',
        '{"name":"a","seconds":-1,"bytes_max":4096}',
        '{"name":"a","seconds":1,"bytes_max":1}',
        '{"name":"a","seconds":1,"bytes_max":4096,"command":"x"}',
        "\xff",
    ],
)
def test_a_request_that_is_none_begins_nothing(recorder: Recorder, tmp_path: Path, request_text: str) -> None:
    """Nothing is written, and nothing is raised."""
    (tmp_path / "run" / REQUEST).write_text(request_text)
    assert recorder.asked((), at(1)) is None
    assert not (tmp_path / FOLDER).exists()


@pytest.mark.root
def test_a_request_of_somebody_else_begins_nothing(recorder: Recorder, tmp_path: Path) -> None:
    """Only root and the agent itself may ask."""
    os.chown(ask(tmp_path), 65534, 65534)
    assert recorder.asked((), at(1)) is None


def test_a_request_behind_a_link_begins_nothing(recorder: Recorder, tmp_path: Path) -> None:
    """A link in the folder is not followed."""
    ask(tmp_path).rename(tmp_path / "elsewhere")
    (tmp_path / "run" / REQUEST).symlink_to(tmp_path / "elsewhere")
    assert recorder.asked((), at(1)) is None


def test_a_name_that_is_taken_is_not_overwritten(recorder: Recorder, tmp_path: Path) -> None:
    """A file that lies there already stays as it is."""
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "asked-1.part").write_text("mine")
    ask(tmp_path)
    assert recorder.asked((), at(1)) is None
    assert (tmp_path / FOLDER / "asked-1.part").read_text() == "mine"
