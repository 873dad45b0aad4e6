"""The command that makes a person's token, and the lines that make the person known."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import click

from escalation.cli.errors import CtlError, ExitCode

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")  # as access.Person; a test compares them


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--name", required=True, metavar="NAME", help="The person's name, as the audit log will show it."
)
@click.option(
    "--role",
    type=click.Choice(["scraper", "viewer", "operator", "admin"]),
    default="operator",
    show_default=True,
    help="scraper: metrics only; viewer: reads; operator: decides; admin: invites people too.",
)
def token(*, file: Path, name: str, role: str) -> None:
    """Make a new token in FILE, and print the lines for the orchestrator's settings.

    Only a hash of the token stands in those lines. FILE is readable by you alone, and is never overwritten.
    """
    import hashlib  # noqa: PLC0415
    import secrets  # noqa: PLC0415

    if _NAME.fullmatch(name) is None:
        raise CtlError(
            f"{name} is no name of a person",
            code=ExitCode.USAGE,
            advice="letters, digits and . _ @ -, at most 64, beginning with a letter or digit",
        )
    value = secrets.token_urlsafe(32)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            opened.write(f"{value}\n")
    except OSError as error:
        raise CtlError(f"token file {file} cannot be written: {error.strerror}") from error
    digest = hashlib.sha256(value.encode()).hexdigest()
    click.echo(f'[[person]]\nname = "{name}"\nrole = "{role}"\ntoken_sha256 = "{digest}"')
