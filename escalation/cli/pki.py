"""The commands of a small certificate authority, for people who have none."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from escalation.cli.errors import CtlError, ExitCode
from escalation.cli.session import JSON, print_json

if TYPE_CHECKING:
    from escalation.pki import Facts, Issued

_DEFAULT_FOLDER: Final = "/etc/nanobot/pki"

_FOLDER = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=_DEFAULT_FOLDER,
    show_default=True,
    help="The authority's folder.",
)
_INTO = click.option(
    "--out",
    "into",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Write the certificate and its key here instead.",
)
_DAYS = click.option(
    "--days", type=click.IntRange(1, 3650), default=90, show_default=True, help="How long it is valid."
)


@click.group()
def pki() -> None:
    """Make and renew certificates for agents and the orchestrator.

    The authority's key (ca.key) belongs on one well-kept machine and on no other; a host gets ca.crt and its
    own certificate and key.
    """


@pki.command()
@_FOLDER
@click.option(
    "--trust-domain", default="nanobot.local", show_default=True, help="The name before every agent's."
)
@click.option(
    "--days", type=click.IntRange(1, 36_500), default=3650, show_default=True, help="How long it is valid."
)
@JSON
def init(*, folder: Path, trust_domain: str, days: int, as_json: bool) -> None:
    """Make an authority: ca.crt and ca.key. An existing one is never overwritten."""
    from escalation.pki import create_authority  # noqa: PLC0415 - cryptography takes 50 ms to load

    with _explained():
        issued = create_authority(folder, now=_now(), trust_domain=trust_domain, days=days)
    _report(issued, as_json=as_json)


@pki.group()
def issue() -> None:
    """Issue a certificate with a key of its own."""


@issue.command("agent")
@click.argument("host")
@_FOLDER
@_INTO
@_DAYS
@JSON
def issue_agent(*, host: str, folder: Path, into: Path | None, days: int, as_json: bool) -> None:
    """Issue the certificate by which the agent on HOST is known."""
    from escalation import pki as authority  # noqa: PLC0415

    with _explained():
        issued = authority.issue_agent(folder, host=host, now=_now(), days=days, into=into)
    _report(issued, as_json=as_json)


@issue.command("orchestrator")
@click.option(
    "--name", "names", multiple=True, metavar="DNS", help="A name that agents dial; may be repeated."
)
@click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar="IP",
    help="An address that agents dial; may be repeated.",
)
@_FOLDER
@_INTO
@_DAYS
@JSON
def issue_orchestrator(
    *,
    names: tuple[str, ...],
    addresses: tuple[str, ...],
    folder: Path,
    into: Path | None,
    days: int,
    as_json: bool,
) -> None:
    """Issue the orchestrator's certificate."""
    from escalation import pki as authority  # noqa: PLC0415

    with _explained():
        issued = authority.issue_orchestrator(
            folder, names=names, addresses=addresses, now=_now(), days=days, into=into
        )
    _report(issued, as_json=as_json)


@pki.command()
@click.argument(
    "certificates", nargs=-1, type=click.Path(path_type=Path, dir_okay=False), metavar="[FILE]..."
)
@_FOLDER
@click.option("--force", is_flag=True, help="Renew also what has more than a third of its life left.")
@_DAYS
@JSON
def renew(*, certificates: tuple[Path, ...], folder: Path, force: bool, days: int, as_json: bool) -> None:
    """Renew certificates in place, with the same key and names; without FILE all in the folder and
    the folders in it.

    What has more than a third of its life left is kept. Agents and the orchestrator read a renewed file
    without a restart.
    """
    from escalation import pki as authority  # noqa: PLC0415

    found = sorted([*folder.glob("*.crt"), *folder.glob("*/*.crt")])
    chosen = certificates or tuple(path for path in found if path.name != "ca.crt")
    if not chosen:
        raise CtlError(f"there is no certificate in {folder}", code=ExitCode.NOT_FOUND)
    for certificate in chosen:
        with _explained():
            issued = authority.renew(certificate, authority=folder, now=_now(), force=force, days=days)
            facts = issued.facts if issued else authority.inspect(certificate)
        if as_json:
            print_json(_json(certificate, facts, renewed=issued is not None))
        else:
            verb = "renewed" if issued else "kept"
            click.echo(f"{verb} {certificate}: valid until {facts.not_after:%Y-%m-%d %H:%M} UTC")


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    from escalation.pki import PkiError  # noqa: PLC0415

    try:
        yield
    except PkiError as error:
        raise CtlError(str(error)) from error


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _report(issued: Issued, *, as_json: bool) -> None:
    if as_json:
        print_json(_json(issued.certificate, issued.facts, renewed=True))
        return
    click.echo(f"wrote {issued.certificate}")
    click.echo(f"wrote {issued.key} (keep it secret)")
    for uri in issued.facts.uris:
        click.echo(f"for {uri}")
    click.echo(f"valid until {issued.facts.not_after:%Y-%m-%d %H:%M} UTC")


def _json(certificate: Path, facts: Facts, *, renewed: bool) -> bytes:
    from escalation.inert import guarded  # noqa: PLC0415

    return json.dumps(
        {
            "certificate": str(certificate),
            "key": str(certificate.with_suffix(".key")),
            "written": renewed,
            "serial": facts.serial,
            "uris": [guarded(uri) for uri in facts.uris],
            "names": [guarded(name) for name in facts.names],
            "addresses": facts.addresses,
            "not_before": f"{facts.not_before:%Y-%m-%dT%H:%M:%SZ}",
            "not_after": f"{facts.not_after:%Y-%m-%dT%H:%M:%SZ}",
        }
    ).encode()
