"""The commands around the audit log: list, export, verify."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Final

import click

from escalation.cli.errors import CtlError, ExitCode
from escalation.cli.session import JSON, Session, print_each, print_json, read

if TYPE_CHECKING:
    from escalation.cli.client import Client
    from escalation.server.desk import AuditEntry
    from escalation.view import AuditView

_PAGE: Final = 1000


@click.group()
def audit() -> None:
    """Read the audit log, and check that nobody changed it."""


@audit.command("list")
@click.option("--after", type=click.IntRange(0), default=0, metavar="NUMBER", help="Only entries after this.")
@JSON
@click.pass_obj
def list_entries(session: Session, *, after: int, as_json: bool) -> None:
    """List who did what, oldest first; with --json one entry a line."""
    from escalation.inert import shown  # noqa: PLC0415

    with session.client() as client:
        if as_json:
            print_each(_line(entry) for entry in _entries(client, after=after))
            return
        for entry in _entries(client, after=after):
            click.echo(
                f"{entry.number:>6}  {entry.at}  {shown(entry.actor)}  {shown(entry.verb)}  "
                f"{shown(entry.object_id)}  {shown(entry.detail)}".rstrip()
            )


@audit.command()
@click.pass_obj
def export(session: Session) -> None:
    """Print the whole log as JSON lines, for `nanobotctl audit verify FILE`."""
    with session.client() as client:
        for entry in _entries(client, after=0):
            print_json(_line(entry))


@audit.command()
@click.argument("file", type=click.File("rb"), required=False)
@click.option("--head", metavar="DIGEST", help="A digest that you kept: it must be in the chain.")
@JSON
@click.pass_obj
def verify(session: Session, *, file: IO[bytes] | None, head: str | None, as_json: bool) -> None:
    """Check the chain of digests: of an exported FILE, offline, or of the orchestrator's log.

    A chain alone cannot show that its newest entries were cut off: keep the digest that this prints, and give
    it as --head the next time.
    """
    from escalation.server.audit import GENESIS, verify as first_break  # noqa: PLC0415

    links: list[AuditEntry] = []
    if file:
        links = [_exact(entry) for entry in _lines(file)]
    else:
        with session.client() as client:
            links = [_exact(entry) for entry in _entries(client, after=0)]
    broken = first_break(links)
    problem = broken.problem if broken else ""
    newest = links[-1].digest if links else GENESIS
    known = (GENESIS, *(link.digest for link in links))
    if not problem and head and head.lower() not in known:
        problem = "the digest that you kept is not in it: entries were cut off, or all of it was written anew"
    if as_json:
        report = {"whole": not problem, "entries": len(links), "head": newest, "problem": problem or None}
        print_json(json.dumps(report).encode())
    elif not problem:
        click.echo(f"whole: {len(links)} entries, head {newest}")
    if problem:
        raise CtlError(
            f"the audit log is not whole: {problem}",
            advice="keep this copy, and compare it with an older export",
        )


def _entries(client: Client, *, after: int) -> Iterator[AuditView]:
    from escalation.cli.answers import AuditAnswer  # noqa: PLC0415

    while page := read(client.get("/api/v1/audit", after=after, limit=_PAGE), AuditAnswer).entries:
        yield from page
        if page[-1].number <= after:
            raise CtlError("the orchestrator sent the audit log in a circle")
        after = page[-1].number


def _lines(file: IO[bytes]) -> Iterator[AuditView]:
    from escalation.view import AuditView  # noqa: PLC0415

    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            yield read(line, AuditView)
        except CtlError as error:
            raise CtlError(
                f"{file.name}:{number} is not an entry of an exported audit log", code=ExitCode.USAGE
            ) from error


def _line(entry: AuditView) -> bytes:
    import msgspec  # noqa: PLC0415

    return json.dumps(msgspec.to_builtins(entry), separators=(",", ":")).replace("\x7f", "\\u007f").encode()


def _exact(entry: AuditView) -> AuditEntry:
    """Return the link that the digest covers; `at` is only for readers, so it is compared with `at_ns`."""
    from escalation.moments import moment  # noqa: PLC0415
    from escalation.server.desk import AuditEntry  # noqa: PLC0415

    if entry.at != moment(entry.at_ns):
        raise CtlError(
            f"the audit log is not whole: the time shown of entry {entry.number} is not the time it was made"
        )
    return AuditEntry(
        number=entry.number,
        at_ns=entry.at_ns,
        actor=entry.actor,
        verb=entry.verb,
        object_id=entry.object_id,
        detail=entry.detail,
        previous=entry.previous,
        digest=entry.digest,
    )
