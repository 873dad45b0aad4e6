"""Recordings of a running agent: who may ask, what ends one, and what it then holds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from agent.config import AgentSettings
from agent.process import statusfile
from agent.recordings.commands import _knock, record
from agent.recordings.recorder import FOLDER, REQUEST, Recorder, RecordingFailed
from agent.testing import at, blind, death, seeing
from escalation.settings import parse
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


@pytest.fixture
def knocks(recorder: Recorder) -> Iterator[list[int]]:
    """Be the agent: at its signal this process records a death of a moment. Return the signals."""
    heard: list[int] = []

    def asked(number: int, _frame: object) -> None:
        heard.append(number)
        recorder.asked([seeing(1, "kernel.fatal_signal")], at(1))
        recorder.take([death(2, 11)], at(2))
        recorder.end("its time was over", at(3))

    before = signal.signal(signal.SIGUSR1, asked)
    yield heard
    signal.signal(signal.SIGUSR1, before)


def _running(tmp_path: Path, pid: int) -> tuple[Namespace, AgentSettings, Path]:
    """Write the status file of an agent; return how its recording is asked for."""
    (tmp_path / "run").mkdir(exist_ok=True)
    status = statusfile.Status(
        pid=pid,
        version="1",
        agent_id="spark-1",
        written_unix_s=time.time(),
        next_write_s=30,
        kernel_boot_id="x",
        sensors=(),
        open_cases=0,
        spool_open=True,
        spool_reports=0,
        spool_bytes=0,
        uncommitted=0,
        connected=True,
        last_ack_unix_s=None,
        uplink_error=None,
        supervised=False,
        watchdog_s=None,
        capabilities=0,
    )
    path = tmp_path / "run" / statusfile.NAME
    statusfile.write(path, status)
    settings = parse(
        f"[agent]\nstate_dir = '{tmp_path}'\n[sensors]\nsocket = '{tmp_path}/run/h.sock'\n",
        AgentSettings,
        name="a.toml",
    )
    return Namespace(out=tmp_path / "out.jsonl", seconds=5.0, bytes=1 << 20), settings, path


def test_the_command_asks_the_agent_and_fetches_what_it_wrote(
    tmp_path: Path, knocks: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is the caller's alone, and nothing of the asking is left."""
    options, settings, _ = _running(tmp_path, os.getpid())
    assert record(options, settings) == 0
    assert knocks == [signal.SIGUSR1]
    with options.out.open() as file:
        told = list(recording.read(recording.lines_of(file)))
    assert told == [seeing(1, "kernel.fatal_signal"), death(2, 11)]
    assert options.out.stat().st_mode & 0o777 == 0o600
    assert "2 observations" in capsys.readouterr().out
    assert [*(tmp_path / FOLDER).iterdir(), *(tmp_path / "run").glob(REQUEST)] == []


@pytest.mark.parametrize("pid", [1, 0, -1])
def test_the_command_signals_nobody_by_a_number_alone(tmp_path: Path, knocks: list[int], pid: int) -> None:
    """The first process, a group and everybody are no agent."""
    options, settings, _ = _running(tmp_path, pid)
    with pytest.raises(RecordingFailed, match="which is not the agent's"):
        record(options, settings)
    assert knocks == []


@pytest.mark.root
def test_the_command_signals_no_process_of_another_account(tmp_path: Path, knocks: list[int]) -> None:
    """Root is asked to end any process by an agent that was taken over, and does not."""
    options, settings, path = _running(tmp_path, os.getpid())
    os.chown(path, 65534, 65534)
    with pytest.raises(RecordingFailed, match="which is not the agent's"):
        record(options, settings)
    assert knocks == []
    assert not list((tmp_path / "run").glob(REQUEST))


@pytest.mark.root
def test_the_command_knows_an_agent_that_has_given_root_up(tmp_path: Path) -> None:
    """It was started as root, which proc(5) remembers of some of its files."""
    changed = "import os; os.setresuid(65534, 65534, 65534); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", changed], stdin=PIPE, stdout=PIPE) as agent:
        assert agent.stdout is not None
        agent.stdout.readline()
        _, _, path = _running(tmp_path, agent.pid)
        os.chown(path, 65534, 65534)
        _knock(path.parent, agent.pid)
        assert agent.wait(10) == -signal.SIGUSR1


@pytest.mark.parametrize("suffix", ["result", "jsonl"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_the_command_reads_plain_files_alone(
    tmp_path: Path, knocks: list[int], recorder: Recorder, suffix: str, kind: str
) -> None:
    """What lies in the agent's folder is the agent's doing: no link is followed, no pipe waited for."""
    options, settings, _ = _running(tmp_path, os.getpid())

    def replaced(number: int, _frame: object) -> None:
        knocks.append(number)
        recorder.asked([], at(1))
        recorder.end("its time was over", at(3))
        (made,) = (tmp_path / FOLDER).glob(f"*.{suffix}")
        made.rename(tmp_path / "elsewhere")
        os.mkfifo(made) if kind == "pipe" else made.symlink_to(tmp_path / "elsewhere")

    signal.signal(signal.SIGUSR1, replaced)
    with pytest.raises(RecordingFailed, match=r"no plain file|symbolic links"):
        record(options, settings)
    assert not options.out.exists()
