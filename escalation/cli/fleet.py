"""The commands that look at the fleet: incidents, hosts, watch."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import click

from escalation.cli.errors import CtlError, ExitCode
from escalation.cli.session import (
    AT_ONCE,
    JSON,
    Session,
    listed,
    print_json,
    print_list,
    read,
    tell_left_out,
    terminal_now,
)

if TYPE_CHECKING:
    from escalation.cli.client import Client

_RETRY_S: Final = 2.0
_TOLD: Final = ("state", "severity", "count", "approvers", "attention")
"""What of an entry is told anew when it is another than before; the state stands first."""

_UNFINISHED: Final = frozenset({"proposed", "approved", "done"})


@click.command()
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=200, show_default=True, help="Incidents at most."
)
@JSON
@click.pass_obj
def incidents(session: Session, *, limit: int, as_json: bool) -> None:
    """List incidents, open ones first."""
    with session.client() as client:
        body = client.get("/api/v1/incidents", limit=limit)
    if as_json:
        print_list(body, "incidents")
        return
    from escalation.cli.answers import IncidentsAnswer  # noqa: PLC0415
    from escalation.cli.tables import incident_table, print_table  # noqa: PLC0415

    answer = read(body, IncidentsAnswer)
    print_table(incident_table(answer.incidents, now=terminal_now()))
    tell_left_out(len(answer.incidents), answer.total)


@click.command()
@JSON
@click.pass_obj
def hosts(session: Session, *, as_json: bool) -> None:
    """List hosts: last heard, and what each cannot see and why."""
    with session.client() as client:
        body = client.get("/api/v1/hosts")
    if as_json:
        print_list(body, "hosts")
        return
    from escalation.cli.answers import HostsAnswer  # noqa: PLC0415
    from escalation.cli.tables import hosts_table, print_table  # noqa: PLC0415

    print_table(hosts_table(read(body, HostsAnswer).hosts, now=terminal_now()))


@click.command()
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Stop after this long, with exit code 7.",
)
@JSON
@click.pass_obj
def watch(session: Session, *, timeout: float | None, as_json: bool) -> None:
    """Print the queue, then each change as it happens, until interrupted.

    A lost connection is made again; what changed meanwhile is printed then.
    """
    if timeout is not None:
        _stop_after(timeout)
    told: dict[str, list[Any]] = {}
    connected = False
    with session.client() as client, contextlib.suppress(KeyboardInterrupt):
        while True:
            try:
                with client.changes() as changes:
                    connected = True
                    catch_up(client, told, as_json=as_json)
                    for body in changes:
                        tell(read(body, dict[str, Any]), told, as_json=as_json)
            except CtlError as error:
                if not connected or error.code is not ExitCode.FAILED:
                    raise
                click.echo(f"{error}; trying again", err=True)
            time.sleep(_RETRY_S)


def catch_up(client: Client, told: dict[str, list[Any]], *, as_json: bool) -> None:
    """Print what stands in the queue and was not told so, and what became of the rest that was told."""
    rows = listed(client.get("/api/v1/queue", limit=AT_ONCE), "entries").rows
    for entry in rows:
        tell(entry, told, as_json=as_json)
    for name in sorted(told.keys() - {str(each.get("id")) for each in rows}):
        if told[name][0] in _UNFINISHED:
            tell(read(client.get(f"/api/v1/queue/{name}"), dict[str, Any]), told, as_json=as_json)


def tell(entry: dict[str, Any], told: dict[str, list[Any]], *, as_json: bool) -> None:
    """Print an entry unless it was printed as it stands."""
    name, now = str(entry.get("id")), [entry.get(each) for each in _TOLD]
    if told.get(name) == now:
        return
    told[name] = now
    body = json.dumps(entry, separators=(",", ":")).encode()
    if as_json:
        print_json(body)
    else:
        from escalation.cli.text import change_line, coloured, plain, wants_colour  # noqa: PLC0415
        from escalation.view.entry import EntryView  # noqa: PLC0415

        paint = coloured if wants_colour() else plain
        click.echo(change_line(read(body, EntryView), paint=paint), color=wants_colour())
    sys.stdout.flush()


def _stop_after(seconds: float) -> None:
    """End the command after `seconds`, also in the middle of waiting for the orchestrator."""

    def stop(_signal: int, _frame: object) -> None:
        raise CtlError(f"watched for {seconds:g} seconds", code=ExitCode.STILL_PENDING)

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
