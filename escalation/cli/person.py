"""The commands about persons: the hash of a password, who may log in how, invitations, ending sessions."""

from __future__ import annotations

import sys
from urllib.parse import quote

import click

from escalation.cli.errors import CtlError, ExitCode
from escalation.cli.session import JSON, Session, print_json, print_list, read


@click.group()
def password() -> None:
    """Make what stands in the orchestrator's settings for a password."""


@password.command("hash")
def hash_() -> None:
    """Read a password and print the `password_hash` line of its `[[person]]`.

    It is asked for twice on a terminal, and is the first line of standard input elsewhere; never an argument,
    which other users of this machine could read.
    """
    from argon2 import PasswordHasher  # noqa: PLC0415

    from escalation.server.web.login.passwords import refusal_of  # noqa: PLC0415

    if sys.stdin.isatty():
        given = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        given = sys.stdin.readline().rstrip("\r\n")
    if refusal := refusal_of(given):
        raise CtlError(refusal, code=ExitCode.USAGE)
    click.echo(f'password_hash = "{PasswordHasher().hash(given)}"')


@click.group()
def person() -> None:
    """See how people may log in on the page, invite them, and end their sessions; for administrators."""


@person.command("list")
@JSON
@click.pass_obj
def list_(session: Session, *, as_json: bool) -> None:
    """List persons: role, and which ways in each has."""
    with session.client() as client:
        body = client.get("/api/v1/persons")
    if as_json:
        print_list(body, "persons")
        return
    from escalation.cli.tables import person_table, print_table  # noqa: PLC0415
    from escalation.view.persons import PersonList  # noqa: PLC0415

    print_table(person_table(read(body, PersonList).persons))


@person.command()
@click.argument("name")
@JSON
@click.pass_obj
def invite(session: Session, *, name: str, as_json: bool) -> None:
    """Print a link by which NAME comes in once, and then sets a password or adds a passkey.

    The link is a secret: give it to nobody else. A new one makes an earlier one void. The audit log says who
    invited whom.
    """
    with session.client() as client:
        body = client.post(f"/api/v1/persons/{quote(name, safe='')}/invite", {})
    if as_json:
        print_json(body)
        return
    from escalation.view.persons import InvitationView  # noqa: PLC0415

    made = read(body, InvitationView)
    click.echo(made.url)
    click.echo(f"good once, until {made.until}", err=True)


@person.command()
@click.argument("name")
@JSON
@click.pass_obj
def logout(session: Session, *, name: str, as_json: bool) -> None:
    """End all sessions of NAME on the page."""
    _ended(session, f"/api/v1/persons/{quote(name, safe='')}/logout", "sessions ended", as_json=as_json)


@person.command("forget-passkeys")
@click.argument("name")
@JSON
@click.pass_obj
def forget_passkeys(session: Session, *, name: str, as_json: bool) -> None:
    """Remove all passkeys of NAME, whose device was lost; end their sessions with `logout`."""
    path = f"/api/v1/persons/{quote(name, safe='')}/passkeys/remove"
    _ended(session, path, "passkeys removed", as_json=as_json)


def _ended(session: Session, path: str, what: str, *, as_json: bool) -> None:
    with session.client() as client:
        body = client.post(path, {})
    if as_json:
        print_json(body)
        return
    from escalation.view.persons import Ended  # noqa: PLC0415

    click.echo(f"{read(body, Ended).count} {what}")
