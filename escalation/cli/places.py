"""The commands that look at one incident and at the topology: incident, topology."""

from __future__ import annotations

import shutil

import click

from escalation.cli.session import JSON, Session, print_json, print_list, read
from escalation.cli.words import Words


@click.command()
@click.argument("incident_id", metavar="ID", type=Words())
@JSON
@click.pass_obj
def incident(session: Session, *, incident_id: str, as_json: bool) -> None:
    """Show one incident whole: its path, its cause, what was changed nearby, and its timeline.

    ID is an incident's id, its first characters, or the id of one of its recommendations.
    """
    with session.client() as client:
        body = client.incident(incident_id)
    if as_json:
        print_json(body)
        return
    from escalation.cli.incident_text import account_text  # noqa: PLC0415
    from escalation.cli.text import coloured, on_terminal, plain, wants_colour  # noqa: PLC0415
    from escalation.view.incident import AccountView  # noqa: PLC0415

    text = account_text(
        read(body, AccountView),
        paint=coloured if wants_colour() else plain,
        width=min(shutil.get_terminal_size().columns, 110) if on_terminal() else None,
    )
    click.echo(text, nl=False, color=wants_colour())


@click.group()
def topology() -> None:
    """What needs what, from route to mesh: as it is declared and was seen."""


@topology.command("show")
@JSON
@click.pass_obj
def topology_show(session: Session, *, as_json: bool) -> None:
    """List every node, whether it is declared and was seen, what is open there and what it needs."""
    with session.client() as client:
        body = client.get("/api/v1/topology")
    if as_json:
        print_json(body)
        return
    from escalation.cli.incident_text import topology_table  # noqa: PLC0415
    from escalation.cli.tables import print_table  # noqa: PLC0415
    from escalation.view.incident import TopologyView  # noqa: PLC0415

    print_table(topology_table(read(body, TopologyView)))


@topology.command("suggest")
@JSON
@click.pass_obj
def topology_suggest(session: Session, *, as_json: bool) -> None:
    """Print what was seen and is not declared, with the lines for orchestrator.toml."""
    with session.client() as client:
        body = client.get("/api/v1/topology")
    if as_json:
        print_list(body, "suggestions")
        return
    from escalation.cli.incident_text import suggestion_lines  # noqa: PLC0415
    from escalation.view.incident import TopologyView  # noqa: PLC0415

    lines = suggestion_lines(read(body, TopologyView))
    for line in lines or ["# Everything that was seen is declared."]:
        click.echo(line)
