"""What every command shares: how to reach the orchestrator, read what it sends, and print it.

Everything heavier than click is imported when a command runs, not before: completion and usage errors stay
fast, and `--json` prints what the orchestrator sent without building views.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from escalation.cli.errors import CtlError

if TYPE_CHECKING:
    from datetime import datetime

    from escalation.cli.client import Client

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Session:
    """The options given before the command."""

    url: str | None
    token_file: Path | None

    def client(self) -> Client:
        """Return a client for the configured orchestrator."""
        from escalation.cli.client import Client  # noqa: PLC0415 - 50 ms that usage errors do not pay
        from escalation.cli.connection import find  # noqa: PLC0415

        return Client(find(url=self.url, token_file=self.token_file))


def read(body: bytes, kind: type[T]) -> T:
    """Return what the orchestrator sent as `kind`; fields that a newer one adds are ignored."""
    import msgspec  # noqa: PLC0415

    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CtlError(
            f"the orchestrator's answer cannot be understood: {error}",
            advice="are nanobotctl and nanobot-orchestrator of about the same version?",
        ) from error


def terminal_now() -> datetime | None:
    """Return the time when a person reads on a terminal, where ages say more than times; else None."""
    from datetime import UTC, datetime  # noqa: PLC0415

    return datetime.now(UTC) if sys.stdout.isatty() else None


def print_json(body: bytes) -> None:
    """Print JSON as the orchestrator sent it, on one line."""
    click.echo(body.rstrip(b"\n").decode("ascii", errors="backslashreplace"))


def print_list(body: bytes, name: str) -> None:
    """Print the list `name` of an answer, alone; say on stderr when there is more of it."""
    answer = json.loads(body)
    rows = answer[name]
    click.echo(json.dumps(rows, separators=(",", ":")))
    total = answer.get("total", len(rows))
    if total > len(rows):
        click.echo(f"{len(rows)} of {total} shown; --limit shows more", err=True)


JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
"""The flag that every command which prints something has."""
