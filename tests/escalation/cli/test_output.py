"""How every command of nanobotctl prints, waits and asks: what a script can rely on, whatever the command."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import click
import pytest

from escalation.cli.app import nanobotctl
from escalation.cli.errors import ExitCode
from tests.escalation.cli.conftest import Ctl


def commands(group: click.Group = nanobotctl, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with the words that name it."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield (*path, name), command


@pytest.mark.parametrize("named", list(commands()), ids=lambda each: "-".join(each[0]))
def test_each_command_reads_as_the_others(named: tuple[tuple[str, ...], click.Command]) -> None:
    """Each says what it does in a sentence, each option has words, and who has --json has -o."""
    _, command = named
    assert command.help
    assert command.help.partition("\n\n")[0].rstrip().endswith((".", "?"))
    options = {name: each for each in command.params if isinstance(each, click.Option) for name in each.opts}
    assert all(option.help for option in options.values())
    assert ("--json" in options) == ("-o" in options)


def test_a_listing_is_a_table_an_array_or_lines(ctl: Ctl, served: Any) -> None:
    """`-o` says which; `--json` is `-o json`, and both together must agree."""
    entry = served.call(served.desk.opened())
    array = ctl("queue", "-o", "json")
    assert [each["id"] for each in array.json] == [entry.recommendation.id]
    assert ctl("queue", "--json").out == array.out
    lines = ctl("queue", "-o", "jsonl").out.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [entry.recommendation.id]
    assert ctl("queue", "-o", "table").out == ctl("queue").out
    assert ctl("queue", "-o", "table", "--json").code == ExitCode.USAGE
    assert ctl("queue", "-o", "yaml").code == ExitCode.USAGE
    assert ctl("hosts", "-o", "jsonl").out.count("\n") == 1


def test_the_audit_log_is_lines_or_an_array(ctl: Ctl, served: Any) -> None:
    """The log is lines with --json, since it can be long, and one array where -o json asks for it."""
    served.call(served.desk.opened())
    lines = ctl("audit", "list", "--json").out
    assert ctl("audit", "list", "-o", "jsonl").out == lines
    assert ctl("audit", "list", "-o", "json").json == [json.loads(line) for line in lines.splitlines()]
    assert ctl("audit", "list", "-o", "json", "--after", "999").json == []


def test_no_input_refuses_instead_of_asking(ctl: Ctl, served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --no-input a command that would ask ends with a usage error and decides nothing."""
    entry = served.call(served.desk.opened())
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    refused = ctl("--no-input", "approve", entry.recommendation.id, "--reason", "quiet hour")
    assert refused.code == ExitCode.USAGE
    assert "--digest" in refused.err
    assert ctl("show", entry.recommendation.id, "--json").json["state"] == "proposed"
    digest = entry.recommendation.digest
    assert (
        ctl("--no-input", "approve", entry.recommendation.id, "--reason", "x", "--digest", digest).code == 0
    )


def test_nothing_is_waited_for_longer_than_the_timeout(ctl: Ctl) -> None:
    """An address that accepts and never answers ends the command, with a sentence, when --timeout is over."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        held: list[socket.socket] = []
        accepting = threading.Thread(target=lambda: held.append(mute.accept()[0]), daemon=True)
        accepting.start()
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        late = ctl("--url", url, "--timeout", "0.2", "hosts")
        accepting.join(10)
        for each in held:
            each.close()
    assert late.code == ExitCode.FAILED
    assert "did not answer within 0.2 seconds" in late.err


def test_says_its_version_in_words_and_as_json(ctl: Ctl) -> None:
    """`version` and `--version` say the same; --json adds what it runs on."""
    assert ctl("version").out == ctl("--version").out
    about = ctl("version", "--json").json
    assert ctl("version").out == f"nanobotctl {about['version']}\n"
    assert set(about) == {"version", "python", "system"}
