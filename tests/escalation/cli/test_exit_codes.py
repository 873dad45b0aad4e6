"""What each exit code means, by every command, against a real orchestrator in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from escalation.cli.app import run
from escalation.cli.errors import ExitCode
from escalation.cli.spans import Span, Time
from escalation.model import CasePhase, Subject, SubjectKind
from escalation.server.testing import case_report
from tests.escalation.cli.test_output import commands
from tests.escalation.server.site import Authority
from tests.security.house import House, Told, receiver, standing, token

Call = Callable[..., int]

_UNIT = Subject(SubjectKind.UNIT, "ollama.service")
_LOCAL = {
    ("completion",),
    ("man",),
    ("password", "hash"),
    ("pki", "init"),
    ("pki", "issue", "agent"),
    ("pki", "issue", "orchestrator"),
    ("pki", "renew"),
    ("token",),
    ("version",),
}
"""What needs no orchestrator."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """An orchestrator's process that lives as long as these tests."""
    folder = tmp_path_factory.mktemp("exit-codes")
    told = Told()
    with (
        receiver(told) as hook,
        standing(House(folder, Authority(folder / "pki"), told, hook)) as running,
    ):
        yield running.house


@pytest.fixture
def ctl(house: House, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run one command line as a person, and return its exit code."""

    def call(*arguments: str, as_: str = "ada", url: str = house.url) -> int:
        file = house.folder / f"{as_}.token"
        file.write_text(f"{token(as_)}\n")
        file.chmod(0o600)
        code = run(["--url", url, "--token-file", str(file), "--no-input", *arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert bool(err.startswith("nanobotctl: ") or "\nnanobotctl: " in err) is (code != 0) or code == 2
        assert token(as_) not in out + err
        return code

    return call


def test_0_is_done(ctl: Call, house: House) -> None:
    """Looking and deciding, one after the other."""
    entry = house.opened()["id"]
    for arguments in (
        ("queue",), ("show", entry), ("incidents",), ("hosts",), ("audit", "list"),
        ("audit", "verify"), ("audit", "export"), ("export",), ("notify", "status"), ("version",),
        ("completion", "bash"), ("approve", entry, "--reason", "quiet"), ("command", entry),
        ("done", entry),
        ("notify", "test", "hook"), ("queue", "--state", "all", "-o", "jsonl"),
    ):  # fmt: skip
        assert ctl(*arguments) == ExitCode.DONE, arguments


def test_1_is_failed(ctl: Call, tmp_path: Path) -> None:
    """Nobody answers, a log is broken, a file is there already."""
    assert ctl("queue", url="http://127.0.0.1:9") == ExitCode.FAILED
    assert ctl("audit", "verify", "--head", "ab" * 32) == ExitCode.FAILED
    there = tmp_path / "there"
    there.write_text("x")
    assert ctl("token", str(there), "--name", "kim") == ExitCode.FAILED


@pytest.mark.parametrize("path", [path for path, _ in commands()], ids="-".join)
def test_2_is_usage_and_help_is_0(ctl: Call, path: tuple[str, ...]) -> None:
    """Of every command: an option that there is not is 2, --help is 0."""
    assert ctl(*path, "--no-such-option") == ExitCode.USAGE
    assert ctl(*path, "--help") == ExitCode.DONE
    assert ctl(*path[:-1], "no-such-command") == ExitCode.USAGE


def test_3_is_not_found(ctl: Call) -> None:
    """An id or a receiver that nobody knows, whatever is to be done with it."""
    for arguments in (
        ("show", "nothing"), ("command", "nothing"), ("done", "nothing"), ("notify", "test", "nothing"),
        ("approve", "nothing", "--reason", "x"), ("reject", "nothing", "--reason", "x"),
    ):  # fmt: skip
        assert ctl(*arguments) == ExitCode.NOT_FOUND, arguments


@pytest.mark.parametrize(
    "named",
    [(path, each) for path, each in commands() if path not in _LOCAL],
    ids=lambda each: "-".join(each[0]),
)
def test_4_is_not_authenticated(ctl: Call, named: tuple[tuple[str, ...], click.Command]) -> None:
    """Every command that asks the orchestrator, with a token that fits nobody."""
    path, command = named
    needed: list[str] = []
    for parameter in command.params:
        if parameter.required:
            needed += [parameter.opts[-1]] if isinstance(parameter, click.Option) else []
            needed.append(_something(parameter.type))
    code = ctl(*path, *needed, as_="nobody")
    assert code == ExitCode.NOT_AUTHENTICATED or (code == ExitCode.USAGE and _says_more(path))


def _something(kind: click.ParamType) -> str:
    """Return a value that a parameter of this kind takes."""
    match kind:
        case click.Choice():
            return str(kind.choices[0])
        case Span():
            return "1h"
        case Time():
            return "2030-01-01T00:00:00Z"
        case _:
            return "1"


def _says_more(path: tuple[str, ...]) -> bool:
    """Return whether a command asks for more than click can say: an end, a matcher."""
    return path in {("snooze",), ("ack",), ("silence", "add"), ("maintenance", "start")}


def test_5_is_refused(ctl: Call, house: House) -> None:
    """A role that may not, a state that forbids it, a policy that wants somebody else."""
    entry = house.opened()["id"]
    assert ctl("reject", entry, "--reason", "x", as_="vera") == ExitCode.REFUSED
    assert ctl("done", entry) == ExitCode.REFUSED
    assert ctl("reject", entry, "--reason", "x") == ExitCode.DONE
    assert ctl("approve", entry, "--reason", "x") == ExitCode.REFUSED


def test_6_is_expired_or_superseded(ctl: Call, house: House) -> None:
    """Another digest than the one that was read, and a fault that went away."""
    host = house.host()
    entry = house.opened(host)["id"]
    assert ctl("approve", entry, "--reason", "x", "--digest", "ab" * 32) == ExitCode.EXPIRED_OR_SUPERSEDED
    house.send(host, case_report(CasePhase.CLEARED, count=2))
    assert ctl("approve", entry, "--reason", "x") == ExitCode.EXPIRED_OR_SUPERSEDED


def test_7_is_still_pending(ctl: Call, house: House) -> None:
    """The first of two approvals, a cure that is not proved yet, a watch that ended by its time."""
    entry = house.opened(subject=_UNIT, target=_UNIT)["id"]
    assert ctl("approve", entry, "--reason", "x") == ExitCode.STILL_PENDING
    assert ctl("approve", entry, "--reason", "x", as_="grace") == ExitCode.DONE
    assert ctl("done", entry, "--wait", "0") == ExitCode.STILL_PENDING
    assert ctl("watch", "--timeout", "0.2") == ExitCode.STILL_PENDING


def test_bash_completes_commands_options_and_values(tmp_path: Path) -> None:
    """A real bash that sourced the script is offered what there is."""
    bash = shutil.which("bash")
    assert bash is not None
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "nanobotctl"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m escalation.cli "$@"\n')
    program.chmod(0o755)
    script = tmp_path / "asked.sh"
    script.write_text(
        'eval "$(nanobotctl completion bash)"\n'
        "asked() {\n"
        '  COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()\n'
        '  "$(complete -p nanobotctl | sed -E "s/.*-F ([^ ]+).*/\\1/")" nanobotctl\n'
        '  echo "${COMPREPLY[*]}"\n'
        "}\n"
        "asked nanobotctl app\nasked nanobotctl audit ver\nasked nanobotctl queue --sta\n"
        "asked nanobotctl queue --state prop\nasked nanobotctl queue -o js\n"
    )
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(
        [bash, "--norc", str(script)], capture_output=True, text=True, env=environment, timeout=50, check=True
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[0].split()[0].startswith("app")
    assert done.stdout.splitlines()[1:] == ["verify", "--state", "proposed", "json jsonl"]
