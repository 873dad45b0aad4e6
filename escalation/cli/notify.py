"""The commands around notifications: how receivers are, and a test of one."""

from __future__ import annotations

from urllib.parse import quote

import click

from escalation.cli.session import JSON, Session, print_json, print_list, read
from escalation.cli.words import Words


@click.group()
def notify() -> None:
    """See who is told what happens, and whether it reaches them."""


@notify.command()
@JSON
@click.pass_obj
def status(session: Session, *, as_json: bool) -> None:
    """List receivers: what waits for each, what became of the rest, and why the newest attempt failed."""
    with session.client() as client:
        body = client.get("/api/v1/notify")
    if as_json:
        print_list(body, "receivers")
        return
    from escalation.cli.answers import ReceiversAnswer  # noqa: PLC0415
    from escalation.cli.tables import print_table, receiver_table  # noqa: PLC0415

    print_table(receiver_table(read(body, ReceiversAnswer).receivers))


@notify.command()
@click.argument("receiver", type=Words())
@JSON
@click.pass_obj
def test(session: Session, *, receiver: str, as_json: bool) -> None:
    """Send a test to RECEIVER, at most one a minute; `notify status` shows what became of it."""
    with session.client() as client:
        body = client.post(f"/api/v1/notify/{quote(receiver, safe='')}/test", {})
    if as_json:
        print_json(body)
    else:
        click.echo("a test is on its way; nanobotctl notify status shows what became of it")
