"""How real processes were started, by prints; secrets of theirs by words; nothing of the lines themselves."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probes.host.cgroups import CgroupPaths, find_mounts
from probes.host.clock import now
from probes.host.command_lines import ACCEPTED, KEY_FILE, CommandLineSensor, accept, key_of
from probes.host.identity import Identifier
from probes.observation import BlindReason, ServerKind
from probes.observed.scope import CommandLine, CommandLines, CommandPart, SecretOption
from probes.recording import to_line
from probes.scopes import ScopeRule
from probes.sensor import SensorBlind
from probes.settings import CommandLineSettings

_CANARY = "nbcanary-51c0ffee"
_SLEEP = "import sys; print('up', flush=True); sys.stdin.read()"
_PORT = "--port", "18471"

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start real processes of Python that are named like servers; they end with the test."""
    running: list[subprocess.Popen[str]] = []

    def begin(name: str, *arguments: str, enter: Path | None = None) -> subprocess.Popen[str]:
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(_SLEEP)
        process = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        if enter is not None:
            (enter / "cgroup.procs").write_text(str(process.pid))
        return process

    yield begin
    for process in running:
        process.communicate()


def _sensor(folder: Path, *rules: ScopeRule) -> CommandLineSensor:
    root = find_mounts().unified
    identifier = Identifier(cgroups=CgroupPaths(root=root, monotonic=time.monotonic))
    sensor = CommandLineSensor(
        identifier=identifier,
        rules=rules,
        root=root,
        settings=CommandLineSettings(state_dir=str(folder)),
    )
    sensor.open()
    return sensor


def _look(sensor: CommandLineSensor) -> CommandLines:
    (seen,) = sensor.read(now())
    assert isinstance(seen, CommandLines)
    return seen


def _line(seen: CommandLines, process: subprocess.Popen[str]) -> CommandLine:
    return next(line for line in seen.lines if line.origin.pid == process.pid)


def _prints(line: CommandLine) -> dict[CommandPart, str]:
    return {part.part: part.print for part in line.parts}


def test_a_server_is_known_by_its_prints(tmp_path: Path, start: Start) -> None:
    """Kind, port, context and one print for all and for each part; the words stay where they are."""
    process = start("vllm", "serve", f"org/{_CANARY}", "--max-model-len", "4096", *_PORT)
    seen = _look(_sensor(tmp_path))
    line = _line(seen, process)
    assert (line.origin.server, line.port, line.context_tokens) == (ServerKind.VLLM, 18471, 4096)
    assert len(line.print) == 32
    prints = _prints(line)
    assert list(prints) == list(CommandPart)
    told = {part for part, text in prints.items() if text}
    assert told == {CommandPart.MODEL, CommandPart.CONTEXT, CommandPart.ADDRESS, CommandPart.EXECUTABLE}
    assert line.started.boot_ns <= seen.at.boot_ns
    assert _CANARY not in to_line(seen)


def test_a_process_in_uninterruptible_sleep_is_looked_at_when_it_wakes(tmp_path: Path) -> None:
    """Its command line may never come, so it is not asked for; however often it is found asleep."""
    proc = tmp_path / "proc"
    for pid, name, line in (("1", "init", b"init\0"), ("50", "vllm", b"python3\0/bin/vllm\0serve\0m\0")):
        (proc / pid).mkdir(parents=True)
        (proc / pid / "stat").write_text(f"{pid} ({name}) S 1 {'0 ' * 17}100 0 0\n")
        (proc / pid / "comm").write_text(f"{name}\n")
        (proc / pid / "cmdline").write_bytes(line)
    (proc / "self").symlink_to("1")
    sensor = CommandLineSensor(
        identifier=Identifier(cgroups=CgroupPaths(root=None, monotonic=lambda: 0.0), proc=proc),
        rules=(),
        root=None,
        settings=CommandLineSettings(state_dir=str(tmp_path)),
        proc=proc,
        monotonic=lambda: 0.0,
    )
    sensor.open()
    stat = proc / "50/stat"
    awake = stat.read_text()
    stat.write_text(awake.replace(") S ", ") D "))
    assert [_look(sensor).lines for _ in range(4)] == [()] * 4
    stat.write_text(awake)
    assert [line.origin.pid for line in _look(sensor).lines] == [50]
    stat.write_text(awake.replace(") S ", ") D "))
    assert [line.origin.pid for line in _look(sensor).lines] == [50]


def test_the_same_line_has_the_same_print_after_a_restart(tmp_path: Path, start: Start) -> None:
    """Of the server, with another secret, and of the agent."""
    first = start("vllm", "serve", "m", "--api-key", "a", *_PORT)
    before = _line(_look(_sensor(tmp_path)), first)
    first.communicate()
    again = start("vllm", "serve", "m", "--api-key=b", *_PORT)
    after = _line(_look(_sensor(tmp_path)), again)
    assert after.print == before.print
    assert after.origin.start_ticks != before.origin.start_ticks or after.origin.pid != before.origin.pid


def test_of_several_workers_the_eldest_is_told(tmp_path: Path, start: Start) -> None:
    """One cgroup, one kind and one port are one server, whose first process speaks for it."""
    eldest = start("vllm", "serve", "m", *_PORT)
    worker = start("vllm", "serve", "m", "--dtype", "half", *_PORT)
    told = {line.origin.pid for line in _look(_sensor(tmp_path)).lines}
    assert eldest.pid in told
    assert worker.pid not in told


def test_another_flag_changes_its_part_alone(tmp_path: Path, start: Start) -> None:
    """The print of the part and of the whole, and of nothing else."""
    one = start("vllm", "serve", "m", "--dtype", "half", "--port", "18472")
    other = start("vllm", "serve", "m", "--dtype", "auto", "--port", "18473")
    seen = _look(_sensor(tmp_path))
    before, after = _prints(_line(seen, one)), _prints(_line(seen, other))
    assert {part for part in CommandPart if before[part] != after[part]} == {
        CommandPart.QUANTIZATION,
        CommandPart.ADDRESS,
    }


def test_prints_of_another_host_are_other_prints(tmp_path: Path, start: Start) -> None:
    """The key is made at the first start, private, and told by a print of its own."""
    process = start("vllm", "serve", "m", *_PORT)
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for folder in (here, elsewhere):
        folder.mkdir()
    one, other = _look(_sensor(here)), _look(_sensor(elsewhere))
    assert one.key != other.key
    assert _line(one, process).print != _line(other, process).print
    assert _look(_sensor(here)).key == one.key
    assert (here / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert key_of(here / KEY_FILE).hex() not in to_line(one)


def test_a_secret_is_told_by_its_option(tmp_path: Path, start: Start) -> None:
    """Not by its value, in no form; a dummy is none."""
    carrier = start("vllm", "serve", "m", "--api-key", _CANARY, "--port", "18474")
    dummy = start("litellm", "--api-key", "dummy", "--port", "18475")
    sensor = _sensor(tmp_path)
    seen = _look(sensor)
    assert _line(seen, carrier).secrets == (SecretOption.API_KEY,)
    assert _line(seen, dummy).secrets == ()
    for text in (to_line(seen), repr(sensor), *map(str, vars(sensor).values())):
        assert _CANARY not in text
    for file in tmp_path.glob("*"):
        assert not file.is_file() or _CANARY.encode() not in file.read_bytes()


def test_who_is_no_server_is_not_looked_at(tmp_path: Path, start: Start) -> None:
    """Neither a client of the same program, nor a title that a process wrote over its line, nor anybody."""
    others = [
        start("vllm", "chat", "--api-key", _CANARY),
        start("curl", "--token", _CANARY),
        start("VLLM::EngineCore"),
    ]
    seen = {line.origin.pid for line in _look(_sensor(tmp_path)).lines}
    assert not seen & {process.pid for process in others}


@pytest.mark.root
def test_processes_of_a_scope_are_looked_at_for_secrets(tmp_path: Path, start: Start) -> None:
    """Whatever they are; one without a secret is not told."""
    root = find_mounts().unified
    if root is None:
        pytest.skip("needs a cgroup v2 hierarchy")
    name = f"/nanobot-lines-{os.getpid()}"
    folder = Path(f"{root}{name}")
    folder.mkdir()
    try:
        carrier = start("agent", "--token", _CANARY, enter=folder)
        quiet = start("agent", "--verbose", enter=folder)
        server = start("vllm", "serve", "m", "--hf-token", _CANARY, "--port", "18476", enter=folder)
        rule = ScopeRule(name="agents", cgroup=name, listeners=())
        seen = _look(_sensor(tmp_path, rule))
        assert (_line(seen, carrier).scope, _line(seen, carrier).secrets) == ("agents", (SecretOption.TOKEN,))
        assert _line(seen, carrier).print == ""
        assert _line(seen, server).secrets == (SecretOption.HF_TOKEN,)
        assert (_line(seen, server).scope, len(_line(seen, server).print)) == ("agents", 32)
        assert quiet.pid not in {line.origin.pid for line in seen.lines}
        assert seen.complete
        assert _CANARY not in to_line(seen)
    finally:
        for process in (carrier, quiet, server):
            process.communicate()
        end = time.monotonic() + 5
        while folder.exists() and time.monotonic() < end:
            with contextlib.suppress(OSError):  # what died in there a moment ago is still being counted
                folder.rmdir()


def test_an_acceptance_is_taken_once(tmp_path: Path) -> None:
    """A file beside the key, written by the command, read and removed by the sensor."""
    sensor = _sensor(tmp_path)
    accept(tmp_path, "vllm.service")
    accept(tmp_path, "vllm:8000")
    assert sorted(_look(sensor).accepted) == ["vllm.service", "vllm:8000"]
    assert _look(sensor).accepted == ()
    assert not list(tmp_path.glob(f"{ACCEPTED}*"))


def test_an_acceptance_does_not_follow_where_the_agent_could_lead_it(tmp_path: Path) -> None:
    """The folder is the agent's: root writes into it by name alone, and through no link."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "link").symlink_to(elsewhere)
    with pytest.raises(OSError, match="link"):
        accept(tmp_path / "link", "vllm.service")
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_key_that_is_none_blinds(tmp_path: Path, content: bytes) -> None:
    """It is not made anew over the old one: every server would seem changed."""
    (tmp_path / KEY_FILE).write_bytes(content)
    with pytest.raises(SensorBlind) as caught:
        _sensor(tmp_path)
    assert caught.value.blind.reason is BlindReason.READ_FAILED
    assert (tmp_path / KEY_FILE).read_bytes() == content


def test_a_key_that_found_no_room_is_made_when_there_is_some(tmp_path: Path) -> None:
    """A disk that is full at the first start leaves no half a key behind."""
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, unlimited[1]))  # no file may grow: EFBIG, as on a full disk
    try:
        with pytest.raises(SensorBlind) as caught:
            key_of(tmp_path / KEY_FILE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert caught.value.blind.reason is BlindReason.READ_FAILED
    key = key_of(tmp_path / KEY_FILE)
    assert len(key) == 32
    assert key_of(tmp_path / KEY_FILE) == key
    assert [each.name for each in tmp_path.iterdir()] == [KEY_FILE]


def test_without_a_folder_for_the_key_it_is_blind(tmp_path: Path) -> None:
    """And says which file it could not keep."""
    with pytest.raises(SensorBlind, match=r"prints\.key"):
        _sensor(tmp_path / "none")


def test_hostile_processes_harm_nothing(tmp_path: Path, start: Start) -> None:
    """Undecodable bytes, newlines and very long lines of what calls itself a server."""
    script = tmp_path / "vllm"
    script.write_text(_SLEEP)
    line: list[bytes] = [sys.executable.encode(), str(script).encode(), b"serve", b"\xff\xfe", b"a\nb"]
    line += [b"--x=" + b"y" * 1000 for _ in range(100)]
    process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        seen = _look(_sensor(tmp_path))
        found = next(each for each in seen.lines if each.origin.pid == process.pid)
        assert len(found.print) == 32
        assert len(to_line(seen)) < 20_000
    finally:
        process.communicate()
