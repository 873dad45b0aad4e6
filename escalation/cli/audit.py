"""The commands around the audit log: list, export, verify."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import quote

import click

from escalation.cli.errors import CtlError, ExitCode
from escalation.cli.export import all_links
from escalation.cli.session import JSON, Session, print_each, print_json, read

if TYPE_CHECKING:
    from escalation.cli.client import Client
    from escalation.server.desk import AuditEntry
    from escalation.signing.proof import Decision
    from escalation.view.entry import AuditView


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
    from escalation.signing import log as signing_log  # noqa: PLC0415

    with session.client() as client:
        if as_json:
            print_each(_line(entry) for entry in all_links(client, after=after))
            return
        for entry in all_links(client, after=after):
            detail = signing_log.words_of(entry.verb, entry.detail)
            click.echo(
                f"{entry.number:>6}  {entry.at}  {shown(entry.actor)}  {shown(entry.verb)}  "
                f"{shown(entry.object_id)}  {shown(detail)}".rstrip()
            )


@audit.command("export")
@click.pass_obj
def export_log(session: Session) -> None:
    """Print the whole log as JSON lines, for `nanobotctl audit verify FILE`; `export` has decisions too."""
    with session.client() as client:
        for entry in all_links(client, after=0):
            print_json(_line(entry))


@audit.command()
@click.argument("file", type=click.File("rb"), required=False)
@click.option("--file", "named", type=click.File("rb"), metavar="FILE", help="The same as FILE.")
@click.option("--head", metavar="DIGEST", help="A digest that you kept: it must be in the chain.")
@click.option(
    "--approvers",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Check signatures with these keys; belongs to root or you, and nobody else can change it.",
)
@click.option("--revoked", type=click.Path(path_type=Path), metavar="FILE", help="Keys that count no more.")
@click.option(
    "--signed-from", type=click.IntRange(1), metavar="NUMBER", help="From here on each has to be signed."
)
@JSON
@click.pass_obj
def verify(
    session: Session,
    *,
    file: IO[bytes] | None,
    named: IO[bytes] | None,
    head: str | None,
    approvers: Path | None,
    revoked: Path | None,
    signed_from: int | None,
    as_json: bool,
) -> None:
    """Check the chain of digests: of an exported FILE, offline, or of the orchestrator's log.

    A chain alone cannot show that its newest entries were cut off, nor what one that begins in the middle
    follows: keep the digest that this prints, and give it as --head the next time.

    With --approvers it also says which decisions are signed, by which key, and fails on a signature that is
    not right; without a FILE it compares what was signed with what the orchestrator shows.
    """
    from escalation.server.audit import GENESIS, verify as first_break  # noqa: PLC0415

    if approvers is None and (revoked or signed_from):
        raise click.UsageError("--revoked and --signed-from need --approvers")
    file = file or named
    links, start = _read_log(session, file)
    broken = first_break(links, start=start)
    problem = broken.problem if broken else ""
    before = start.digest if start else GENESIS
    newest = links[-1].digest if links else before
    known = (before, *(link.digest for link in links))
    if not problem and head and head.lower() not in known:
        problem = "the digest that you kept is not in it: entries were cut off, or all of it was written anew"
    found: list[Decision] | None = None
    if not problem and approvers is not None:
        found = _decisions(links, approvers, revoked, signed_from)
        if not file:
            with session.client() as client:
                found = [_compared(client, each) for each in found]
    if as_json:
        report: dict[str, object] = {
            "whole": not problem,
            "after": start.number if start else 0,
            "entries": len(links),
            "head": newest,
            "problem": problem or None,
        }
        if found is not None:
            report["decisions"] = [_told(each) for each in found]
        print_json(json.dumps(report).encode())
    elif not problem:
        for each in found or ():
            click.echo(_decision_line(each))
        since = f" from entry {start.number + 1} on" if start else ""
        click.echo(f"whole{since}: {len(links)} entries, head {newest}")
    if problem:
        raise CtlError(
            f"the audit log is not whole: {problem}",
            advice="keep this copy, and compare it with an older export",
        )

    if wrong := [each for each in found or () if each.problems]:
        raise CtlError(
            f"{len(wrong)} of {len(found or ())} decisions cannot be what a person decided; "
            f"the first is entry {wrong[0].number}: {wrong[0].words}",
            advice="carry nothing of it out, keep this copy, and ask the persons who are named",
        )


def _decisions(
    links: list[AuditEntry], path: Path, revoked: Path | None, signed_from: int | None
) -> list[Decision]:
    from escalation.cli.signing import trusted  # noqa: PLC0415
    from escalation.signing import proof, sshsig  # noqa: PLC0415
    from escalation.signing.keys import key_of  # noqa: PLC0415

    try:
        judge = partial(key_of, approvers=trusted(path, revoked), keygen=sshsig.find())
        return proof.decisions(links, key_of=judge, signed_from=signed_from)
    except sshsig.KeygenError as error:
        raise CtlError(f"signatures cannot be checked: {error}") from error


def _compared(client: Client, decision: Decision) -> Decision:
    """Return a signed decision with what the orchestrator shows differently for it now."""
    from dataclasses import replace  # noqa: PLC0415

    from escalation.cli.signing import shown_otherwise  # noqa: PLC0415
    from escalation.view.entry import EntryView  # noqa: PLC0415

    if decision.document is None or not decision.last:
        return decision
    try:
        entry = read(client.get(f"/api/v1/queue/{quote(decision.document.id, safe='')}"), EntryView)
    except CtlError as error:
        if error.code is not ExitCode.NOT_FOUND:
            raise
        return replace(decision, problems=(*decision.problems, "the orchestrator no longer knows it"))
    different = shown_otherwise(decision.document, entry)
    if not different:
        return decision
    words = f"the orchestrator shows something else than what was signed ({', '.join(different)})"
    return replace(decision, problems=(*decision.problems, words))


def _decision_line(decision: Decision) -> str:
    from escalation.inert import guarded, shown  # noqa: PLC0415
    from escalation.wording.moments import moment  # noqa: PLC0415

    mark = "\N{MULTIPLICATION X}" if decision.problems else " " if decision.key is None else "\N{CHECK MARK}"
    who, what = shown(decision.person), shown(decision.entry_id)
    return f"{mark} {decision.number:>6}  {moment(decision.at_ns)}  {who}  {what}  {guarded(decision.words)}"


def _told(decision: Decision) -> dict[str, object]:
    return {
        "number": decision.number,
        "at_ns": decision.at_ns,
        "person": decision.person,
        "id": decision.entry_id,
        "kind": decision.kind,
        "key": decision.key,
        "problems": list(decision.problems),
    }


def _line(entry: AuditView) -> bytes:
    import msgspec  # noqa: PLC0415

    return json.dumps(msgspec.to_builtins(entry), separators=(",", ":")).replace("\x7f", "\\u007f").encode()


def _read_log(session: Session, file: IO[bytes] | None) -> tuple[list[AuditEntry], AuditEntry | None]:
    """Return the links of a file, or of the orchestrator, and the one before them if there is one."""
    from escalation.cli.exported import exported  # noqa: PLC0415
    from escalation.server.desk import AuditEntry  # noqa: PLC0415

    if file is None:
        with session.client() as client:
            return [_exact(entry) for entry in all_links(client)], None
    found = exported(file, name=file.name)
    links = [_exact(entry) for entry in found.links]
    if not found.after.number:
        return links, None
    # All that is known of it: what an export that begins in the middle says it follows.
    number, digest = found.after.number, found.after.digest
    return links, AuditEntry(
        number=number, at_ns=0, actor="", verb="", object_id="", detail="", previous="", digest=digest
    )


def _exact(entry: AuditView) -> AuditEntry:
    """Return the link that the digest covers; `at` is only for readers, so it is compared with `at_ns`."""
    from escalation.server.desk import AuditEntry  # noqa: PLC0415
    from escalation.wording.moments import moment  # noqa: PLC0415

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
