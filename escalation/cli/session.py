"""What every command shares: how to reach the orchestrator, read what it sends, and print it.

Everything heavier than click is imported when a command runs, not before: completion and usage errors stay
fast, and `--json` prints what the orchestrator sent without building views.
"""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from escalation.cli.errors import CtlError, ExitCode

if TYPE_CHECKING:
    from datetime import datetime

    from escalation.cli.client import Client
    from escalation.cli.connection import Connection

T = TypeVar("T")
Decorated = TypeVar("Decorated", bound=Callable[..., Any])

AT_ONCE: Final = 1000
"""How much of a list the orchestrator tells at once."""

SHORTEST: Final = 4
"""How much of an id's beginning has to be given."""

TIMEOUT_S: Final = 20.0
"""How long the orchestrator may take for one answer, unless --timeout says otherwise."""

_META: Final = "nanobotctl.output"


class Output(enum.StrEnum):
    """How a command prints what it found."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


@dataclass(frozen=True, slots=True)
class Session:
    """The options given before the command."""

    url: str | None
    token_file: Path | None
    timeout_s: float = TIMEOUT_S
    no_input: bool = False

    def client(self) -> Client:
        """Return a client for the configured orchestrator."""
        from escalation.cli.client import Client  # noqa: PLC0415 - 50 ms that usage errors do not pay

        return Client(self.connection(), timeout_s=self.timeout_s)

    def connection(self) -> Connection:
        """Return where the orchestrator is, and with which keys."""
        from escalation.cli.connection import find  # noqa: PLC0415

        return find(url=self.url, token_file=self.token_file)

    def agrees(self, question: str, *, instead: str) -> bool:
        """Ask on standard error and return whether the person said yes; refuse to ask under --no-input."""
        if self.no_input:
            raise CtlError(
                f"--no-input was given, and this would ask: {question}", code=ExitCode.USAGE, advice=instead
            )
        return click.confirm(question, err=True)


@dataclass(frozen=True, slots=True)
class Listed:
    """Rows of an answer, of `total`."""

    rows: list[dict[str, Any]]
    total: int


def read(body: bytes, kind: type[T]) -> T:
    """Return what the orchestrator sent as `kind`; fields that a newer one adds are ignored."""
    import msgspec  # noqa: PLC0415

    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _foreign(str(error)) from error


def listed(body: bytes, name: str) -> Listed:
    """Return the list `name` of an answer as it came, without building views of its rows."""
    answer = read(body, dict[str, Any])
    rows, total = answer.get(name), answer.get("total")
    if not isinstance(rows, list) or not all(isinstance(each, dict) for each in rows):
        raise _foreign(f"it holds no list of {name}")
    return Listed(rows, total if isinstance(total, int) else len(rows))


def _foreign(why: str) -> CtlError:
    return CtlError(
        f"the orchestrator's answer cannot be understood: {why}",
        advice="are nanobotctl and nanobot-orchestrator of about the same version?",
    )


def terminal_now() -> datetime | None:
    """Return the time when a person reads on a terminal, where ages say more than times; else None."""
    from datetime import UTC, datetime  # noqa: PLC0415

    return datetime.now(UTC) if sys.stdout.isatty() else None


def print_json(body: bytes) -> None:
    """Print JSON as the orchestrator sent it, on one line."""
    click.echo(body.rstrip(b"\n").decode("ascii", errors="backslashreplace"))


def print_list(body: bytes, name: str) -> None:
    """Print the list `name` of an answer, alone; say on stderr when there is more of it."""
    found = listed(body, name)
    rows = found.rows
    if _asked() is Output.JSONL:
        for row in rows:
            click.echo(json.dumps(row, separators=(",", ":")))
    else:
        click.echo(json.dumps(rows, separators=(",", ":")))
    tell_left_out(len(rows), found.total)


def tell_left_out(count: int, total: int) -> None:
    """Say on standard error when a list is not all that there is, and what shows more of it."""
    if total > count:
        more = "--limit shows more" if count < AT_ONCE else "nanobotctl export has all of it"
        click.echo(f"{count} of {total} shown; {more}", err=True)


def print_each(rows: Iterable[bytes]) -> None:
    """Print JSON objects as they come: one a line, or with `-o json` as one array."""
    if _asked() is not Output.JSON:
        for row in rows:
            print_json(row)
        return
    before = "["
    for row in rows:
        click.echo(before + row.decode("ascii", errors="backslashreplace"), nl=False)
        before = ",\n"
    click.echo("[]" if before == "[" else "]")


def _asked() -> Output | None:
    """Return what `-o` named for the command that runs, None without it."""
    asked = click.get_current_context().meta.get(_META)
    return asked if isinstance(asked, Output) else None


def _remember(context: click.Context, _option: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.meta[_META] = Output(value)


def _wanted(context: click.Context, _option: click.Parameter, flag: bool) -> bool:  # noqa: FBT001
    """Return whether JSON is wanted, by the flag or by `-o`."""
    asked = context.meta.get(_META)
    if flag and asked is Output.TABLE:
        raise click.UsageError("--json and -o table say two things", context)
    return flag or asked in {Output.JSON, Output.JSONL}


def _with_output(command: Decorated) -> Decorated:
    output = click.option(
        "-o",
        "--output",
        type=click.Choice([each.value for each in Output]),
        expose_value=False,
        is_eager=True,  # read before --json, which asks what it said
        callback=_remember,
        help="How to print it: a table, JSON, or JSON lines.",
    )
    flag = click.option(
        "--json", "as_json", is_flag=True, callback=_wanted, help="Print JSON instead of text."
    )
    return flag(output(command))


JSON = _with_output
"""What every command takes that prints something: `--json`, and `-o` for the same and JSON lines."""
