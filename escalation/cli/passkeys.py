"""The command around passkeys: print one's own for an approvers' file."""

from __future__ import annotations

import click

from escalation.cli.errors import CtlError, ExitCode
from escalation.cli.session import JSON, Session, print_json, read


@click.command()
@JSON
@click.pass_obj
def passkeys(session: Session, *, as_json: bool) -> None:
    """Print your passkeys as lines of an approvers' file.

    They come from the orchestrator: whoever writes them down there compares them with you first.
    """
    with session.client() as client:
        body = client.get("/api/v1/me/passkeys")
    if as_json:
        print_json(body)
        return
    from escalation.inert import guarded  # noqa: PLC0415
    from escalation.view.signing import PasskeyLines  # noqa: PLC0415

    lines = read(body, PasskeyLines).lines
    if not lines:
        raise CtlError(
            "you have no passkey at this orchestrator",
            code=ExitCode.NOT_FOUND,
            advice="the account page adds one",
        )
    for line in lines:
        click.echo(guarded(line))
