"""What happened and what was decided, as JSON lines that can be kept, read by machines, and verified offline.

The first line says what the file is: its schema, the newest digest of the audit log, and, when it begins in
the middle, the link that its first one follows. The last says how many lines there are. Between them stand
incidents, recommendations with their decisions, and links of the audit log, each as the API shows it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from escalation.cli.errors import CtlError
from escalation.cli.session import AT_ONCE, Session, print_json, read

if TYPE_CHECKING:
    from escalation.cli.client import Client
    from escalation.view.entry import AuditView

SCHEMA: Final = 1
_LISTS: Final = (
    ("incident", "/api/v1/incidents", "incidents"),
    ("recommendation", "/api/v1/queue", "entries"),
)
_TIMES: Final = ("last_seen", "cleared_at", "created_at", "decided_at", "done_at", "finished_at")
GENESIS: Final = "0" * 64  # as audit.GENESIS; a test compares them


@dataclass(frozen=True, slots=True)
class Place:
    """A link of the audit log by its number and its digest; number 0 is before the first."""

    number: int
    digest: str


@click.command()
@click.option(
    "--since",
    metavar="WHEN",
    help="Only what was seen or done since then: a span such as 2h or 7d, or RFC 3339 with its zone.",
)
@click.pass_obj
def export(session: Session, *, since: str | None) -> None:
    """Print incidents, decisions and the audit log as JSON lines; `audit verify` checks them offline.

    Every incident, every recommendation and every link of the log is in it, read page by page.
    """
    since_ns = None if since is None else _moment_of(since)
    count = 0
    with session.client() as client:
        for line in _lines(client, since_ns):
            print_json(line)
            count += 1
    print_json(_line("end", {"lines": count}))


def all_links(client: Client, *, after: int = 0) -> Iterator[AuditView]:
    """Yield the audit log, page by page."""
    from escalation.cli.answers import AuditAnswer  # noqa: PLC0415

    while page := read(client.get("/api/v1/audit", after=after, limit=AT_ONCE), AuditAnswer).entries:
        yield from page
        if page[-1].number <= after:
            raise CtlError("the orchestrator sent the audit log in a circle")
        after = page[-1].number


def _lines(client: Client, since_ns: int | None) -> Iterator[bytes]:
    """Yield every line but the last.

    The log is read first, so that every change that an entry shows is either in it or newer than it.
    """
    import msgspec  # noqa: PLC0415

    from escalation.wording.moments import moment  # noqa: PLC0415

    links = list(all_links(client))
    first = 0
    since = None
    if since_ns is not None:
        since = moment(since_ns)
        first = next((at for at, link in enumerate(links) if link.at_ns >= since_ns), len(links))
    before = links[first - 1] if first else None
    newest = links[-1] if links else None
    yield _line(
        "export",
        {
            "schema": SCHEMA,
            "since": since,
            "after": asdict(_place(before)),
            "head": asdict(_place(newest)),
        },
    )
    for kind, path, name in _LISTS:
        for each in client.all_of(path, name):
            if since is None or max(str(each.get(time) or "") for time in _TIMES) >= since:
                yield _line(kind, each)
    for link in links[first:]:
        yield _line("audit", msgspec.to_builtins(link))


def _place(link: AuditView | None) -> Place:
    return Place(0, GENESIS) if link is None else Place(link.number, link.digest)


def _line(kind: str, value: dict[str, Any]) -> bytes:
    text = json.dumps({"kind": kind, "value": value}, separators=(",", ":"))
    return text.replace("\x7f", "\\u007f").encode()


def _moment_of(text: str) -> int:
    """Return a time, or how long ago, as Unix nanoseconds."""
    import time  # noqa: PLC0415

    from escalation.cli.spans import Span  # noqa: PLC0415
    from escalation.wording.moments import read_moment  # noqa: PLC0415

    try:
        return read_moment(text)
    except ValueError:
        return time.time_ns() - int(Span().convert(text, None, None) * 1e9)
