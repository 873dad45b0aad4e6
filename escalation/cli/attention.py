"""The commands of attention to one entry: ack, release, snooze, ask, answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from escalation.cli.session import JSON, Session, print_json, read
from escalation.cli.spans import FOR, UNTIL, end_of
from escalation.cli.words import Words

if TYPE_CHECKING:
    from escalation.view.entry import EntryView

_ID = click.argument("entry_id", metavar="ID", type=Words())


@click.command()
@_ID
@FOR
@UNTIL
@JSON
@click.pass_obj
def ack(session: Session, *, entry_id: str, for_s: float | None, until: str | None, as_json: bool) -> None:
    """Take an entry in hand: it moves down the queue, and waits again if nobody decides in time."""
    entry = _post(session, entry_id, "acknowledge", end_of(for_s, until, required=False), as_json=as_json)
    if entry is not None:
        click.echo(
            f"{entry.id}: {entry.attention.owner} has it in hand until {entry.attention.acknowledged_until}"
        )


@click.command()
@_ID
@JSON
@click.pass_obj
def release(session: Session, *, entry_id: str, as_json: bool) -> None:
    """Give an entry back to the queue: it is nobody's, and not put off."""
    entry = _post(session, entry_id, "release", {}, as_json=as_json)
    if entry is not None:
        click.echo(f"{entry.id} waits in the queue again")


@click.command()
@_ID
@FOR
@UNTIL
@JSON
@click.pass_obj
def snooze(session: Session, *, entry_id: str, for_s: float | None, until: str | None, as_json: bool) -> None:
    """Put an entry off; it is back sooner if it gets worse, spreads, or is seen ten times as often."""
    entry = _post(session, entry_id, "snooze", end_of(for_s, until, required=True), as_json=as_json)
    if entry is not None:
        click.echo(f"{entry.id} is put off until {entry.attention.snoozed_until}")


@click.command()
@_ID
@click.argument("text", type=Words())
@click.option("--of", "to", multiple=True, metavar="PERSON", help="Whose answer is wanted; may be repeated.")
@JSON
@click.pass_obj
def ask(session: Session, *, entry_id: str, text: str, to: tuple[str, ...], as_json: bool) -> None:
    """Ask about an entry; the question stands in its thread for ever."""
    entry = _post(session, entry_id, "ask", {"text": text, "to": list(to)}, as_json=as_json)
    if entry is not None:
        click.echo(f"{entry.id}: asked, as number {entry.attention.remarks} of its thread")


@click.command()
@_ID
@click.argument("text", type=Words())
@click.option(
    "--question",
    type=click.IntRange(1, 1000),
    metavar="NUMBER",
    help="Which question; without it the newest that has no answer.",
)
@JSON
@click.pass_obj
def answer(session: Session, *, entry_id: str, text: str, question: int | None, as_json: bool) -> None:
    """Answer a question about an entry."""
    body: dict[str, Any] = {"text": text} | ({} if question is None else {"question": question})
    entry = _post(session, entry_id, "answer", body, as_json=as_json)
    if entry is not None:
        click.echo(
            f"{entry.id}: answered" + (", and another question waits" if entry.attention.asked else "")
        )


def _post(
    session: Session, entry_id: str, verb: str, body: dict[str, Any], *, as_json: bool
) -> EntryView | None:
    """Do it, and return the entry to tell of; None when it was printed as JSON."""
    from escalation.view.entry import EntryView  # noqa: PLC0415

    with session.client() as client:
        standing = read(client.entry(entry_id), EntryView)
        answered = client.post(f"/api/v1/queue/{standing.id}/{verb}", body)
    if as_json:
        print_json(answered)
        return None
    return read(answered, EntryView)
