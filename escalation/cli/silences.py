"""The commands around what nobody is told of: silences, and maintenance of hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from escalation.cli.session import JSON, SHORTEST, Session, listed, print_json, print_list, read, terminal_now
from escalation.cli.spans import FOR, UNTIL, Time, end_of
from escalation.cli.words import Words

if TYPE_CHECKING:
    from escalation.view.attention import SilenceView

_COMMENT = click.option(
    "--comment", required=True, type=Words(), metavar="TEXT", help="Why, for whoever wonders."
)
_ID = click.argument("silence_id", metavar="ID", type=Words())
_MATCHERS = click.argument("matchers", metavar="MATCHER...", nargs=-1, required=True)


@click.group()
def silence() -> None:
    """Keep the queue quiet about what is known; everything is kept, and shown as silenced.

    A MATCHER is FIELD=VALUE, FIELD!=VALUE or FIELD~PATTERN with * and ?; all of them have to fit. The fields
    are host, fault_class, subject_kind, subject_name and severity.
    """


@silence.command()
@_MATCHERS
@FOR
@UNTIL
@click.option("--starts", type=Time(), metavar="TIME", help="From when on; now unless said.")
@_COMMENT
@JSON
@click.pass_obj
def add(
    session: Session,
    *,
    matchers: tuple[str, ...],
    for_s: float | None,
    until: str | None,
    starts: str | None,
    comment: str,
    as_json: bool,
) -> None:
    """Silence what all matchers fit, for 30 days at most.

    Exposure, a blind monitor and a breach of scope are covered only when fault_class= names them.
    """
    body: dict[str, Any] = {"matchers": list(matchers), "comment": comment}
    body |= end_of(for_s, until, required=True) | ({} if starts is None else {"starts": starts})
    with session.client() as client:
        answered = client.post("/api/v1/silences", body)
    _tell(answered, as_json=as_json)


@silence.command(name="list")
@JSON
@click.pass_obj
def list_(session: Session, *, as_json: bool) -> None:
    """List silences: those that stand, then those that are over."""
    _list(session, "/api/v1/silences", as_json=as_json)


@silence.command()
@_ID
@JSON
@click.pass_obj
def expire(session: Session, *, silence_id: str, as_json: bool) -> None:
    """End a silence before its time; what it held back and is still there is told."""
    _end(session, "/api/v1/silences", silence_id, "expire", as_json=as_json)


@silence.command()
@_MATCHERS
@JSON
@click.pass_obj
def preview(session: Session, *, matchers: tuple[str, ...], as_json: bool) -> None:
    """Show what a silence of these matchers would cover now; nothing is changed."""
    with session.client() as client:
        body = client.get("/api/v1/silences/preview", match=list(matchers))
    if as_json:
        print_json(body)
        return
    from escalation.cli.tables import incident_table, print_table  # noqa: PLC0415
    from escalation.view.listings import PreviewView  # noqa: PLC0415

    print_table(incident_table(read(body, PreviewView).incidents, now=terminal_now()))


@click.group()
def maintenance() -> None:
    """Say where somebody works, so that nobody is told of what that does."""


@maintenance.command(name="list")
@JSON
@click.pass_obj
def windows(session: Session, *, as_json: bool) -> None:
    """List maintenance, declared in the settings and started by hand."""
    _list(session, "/api/v1/maintenance", as_json=as_json)


@maintenance.command()
@click.argument("host")
@FOR
@UNTIL
@_COMMENT
@click.option(
    "--also",
    multiple=True,
    metavar="CLASS",
    help="A guarded class that it covers too, such as monitor.blind; may be repeated.",
)
@JSON
@click.pass_obj
def start(
    session: Session,
    *,
    host: str,
    for_s: float | None,
    until: str | None,
    comment: str,
    also: tuple[str, ...],
    as_json: bool,
) -> None:
    """Start maintenance on HOST, or on the hosts that a pattern of * and ? fits."""
    body: dict[str, Any] = {"host": host, "comment": comment, "also": list(also)}
    with session.client() as client:
        answered = client.post("/api/v1/maintenance", body | end_of(for_s, until, required=True))
    _tell(answered, as_json=as_json)


@maintenance.command()
@_ID
@JSON
@click.pass_obj
def end(session: Session, *, silence_id: str, as_json: bool) -> None:
    """End maintenance before its time; what it held back and is still there is told."""
    _end(session, "/api/v1/maintenance", silence_id, "end", as_json=as_json)


def _list(session: Session, path: str, *, as_json: bool) -> None:
    with session.client() as client:
        body = client.get(path)
    if as_json:
        print_list(body, "silences")
        return
    from escalation.cli.tables import print_table, silence_table  # noqa: PLC0415
    from escalation.view.listings import SilenceList  # noqa: PLC0415

    print_table(silence_table(read(body, SilenceList).silences, now=terminal_now()))


def _end(session: Session, path: str, silence_id: str, verb: str, *, as_json: bool) -> None:
    """End the one whose id begins so; a beginning that is short or shared is refused by the orchestrator."""
    with session.client() as client:
        known = [str(each.get("id")) for each in listed(client.get(path), "silences").rows]
        fitting = [each for each in known if each.startswith(silence_id)]
        whole = fitting[0] if len(fitting) == 1 and len(silence_id) >= SHORTEST else silence_id
        answered = client.post(f"{path}/{quote(whole, safe='')}/{verb}", {})
    _tell(answered, as_json=as_json)


def _tell(body: bytes, *, as_json: bool) -> None:
    if as_json:
        print_json(body)
        return
    from escalation.view.attention import SilenceView  # noqa: PLC0415

    click.echo(_sentence(read(body, SilenceView)))


def _sentence(told: SilenceView) -> str:
    from escalation.inert import guarded  # noqa: PLC0415

    what = guarded(" ".join(told.matchers))
    if told.state == "over":
        return f"{told.origin} {told.id} is over; it covered {told.incidents} incidents: {what}"
    when = (
        f"from {told.starts_at} until {told.ends_at}" if told.state == "pending" else f"until {told.ends_at}"
    )
    return f"{told.origin} {told.id} {when}, covering {told.incidents} incidents now: {what}"
