"""The commands around rules: how often each was right, verdicts, the shadow; and what policy would say."""

from __future__ import annotations

from urllib.parse import quote

import click

from escalation.cli.errors import CtlError, ExitCode
from escalation.cli.session import JSON, Session, print_json, print_list, read
from escalation.cli.words import Words

_REASON = click.option(
    "--reason", required=True, type=Words(), metavar="TEXT", help="Why, for the audit log."
)
_RULE = click.argument("rule", metavar="RULE", type=Words())

# Spelled out, so that usage errors need not load the model; a test compares it with the model.
KINDS = (
    "restart_unit",
    "restart_container",
    "remove_route",
    "recreate_container",
    "resume_process",
    "free_space",
    "change_setting",
    "inspect",
    "human",
)


@click.group(invoke_without_command=True)
@JSON
@click.pass_context
def rules(context: click.Context, *, as_json: bool) -> None:
    """List rules: what each found, how often people said that it was right, and which are in shadow."""
    if context.invoked_subcommand is not None:
        return
    session: Session = context.obj
    with session.client() as client:
        body = client.get("/api/v1/rules")
    if as_json:
        print_list(body, "rules")
        return
    from escalation.cli.answers import RulesAnswer  # noqa: PLC0415
    from escalation.cli.tables import print_table, rule_table  # noqa: PLC0415

    found = read(body, RulesAnswer).rules
    print_table(rule_table(found))
    for each in found:
        if each.suggestion:
            click.echo(f"{each.rule}: {each.suggestion}", err=True)


@rules.command()
@_RULE
@_REASON
@click.option(
    "--days",
    type=click.FloatRange(min=0, min_open=True),
    default=7.0,
    show_default=True,
    help="For how many days.",
)
@click.option(
    "--again", metavar="RULE", default="", help="The rule once more, for one that guards the fleet."
)
@JSON
@click.pass_obj
def shadow(session: Session, *, rule: str, reason: str, days: float, again: str, as_json: bool) -> None:
    """Put RULE in shadow: what it finds is kept and counted, and neither proposed nor told.

    It ends by itself after --days.
    """
    with session.client() as client:
        body = client.post(
            f"/api/v1/rules/{quote(rule, safe='')}/shadow", {"reason": reason, "days": days, "again": again}
        )
    _say(body, as_json=as_json)


@rules.command()
@_RULE
@_REASON
@JSON
@click.pass_obj
def unshadow(session: Session, *, rule: str, reason: str, as_json: bool) -> None:
    """Take RULE out of its shadow: what is still open is proposed and told."""
    with session.client() as client:
        body = client.post(f"/api/v1/rules/{quote(rule, safe='')}/unshadow", {"reason": reason})
    _say(body, as_json=as_json)


@click.command()
@click.argument("entry_id", metavar="ID", type=Words())
@click.argument("word", metavar="fault|not-a-fault", type=click.Choice(["fault", "not-a-fault"]))
@click.option("--reason", default="", metavar="TEXT", help="Why; not-a-fault needs it.")
@JSON
@click.pass_obj
def verdict(session: Session, *, entry_id: str, word: str, reason: str, as_json: bool) -> None:
    """Say whether there was a fault: it counts for the rule that found it.

    ID is an incident's id, a recommendation's, or the first characters of one in the queue.
    """
    if word == "not-a-fault" and not reason.strip():
        raise click.UsageError("not-a-fault needs --reason: what it was instead")
    said = {"verdict": word.replace("-", "_"), "reason": reason}
    with session.client() as client:
        try:
            body = client.post(f"/api/v1/incidents/{quote(entry_id, safe='')}/verdict", said)
        except CtlError as error:
            if error.code is not ExitCode.NOT_FOUND:
                raise
            from escalation.view.entry import EntryView  # noqa: PLC0415

            found = read(client.entry(entry_id), EntryView)
            body = client.post(f"/api/v1/incidents/{found.incident_id}/verdict", said)
    if as_json:
        print_json(body)
    else:
        click.echo("noted; nanobotctl rules shows how often each rule was right")


@click.group()
def policy() -> None:
    """See what it takes to approve an action."""


@policy.command()
@click.option("--person", type=Words(), metavar="NAME", help="Whether this person may, and why not.")
@click.option("--kind", type=click.Choice(KINDS), help="One kind of action (default: each).")
@click.option("--host", metavar="HOST", default="any-host", show_default=True, help="On which host.")
@click.option("--target", metavar="KIND:NAME", default="unit:any.service", show_default=True, help="On what.")
@click.option(
    "--class", "fault_class", metavar="CLASS", default="unknown", show_default=True, help="For which fault."
)
@JSON
@click.pass_obj
def test(
    session: Session,
    *,
    person: str | None,
    kind: str | None,
    host: str,
    target: str,
    fault_class: str,
    as_json: bool,
) -> None:
    """Show who may approve what on a host, what it takes, and who may not and why.

    Host, target, class and person need not exist. With --person the exit code is 5 where they may approve
    nothing of what was asked about.
    """
    asked: dict[str, str | int] = {"host": host, "target": target, "fault_class": fault_class}
    if person is not None:
        asked["person"] = person
    if kind is not None:
        asked["kind"] = kind
    with session.client() as client:
        body = client.get("/api/v1/policy/test", **asked)
    from escalation.cli.answers import PolicyAnswer  # noqa: PLC0415

    rows = read(body, PolicyAnswer).rows
    if as_json:
        print_list(body, "rows")
    else:
        from escalation.cli.tables import policy_table, print_table  # noqa: PLC0415

        print_table(policy_table(rows))
    if person is not None and not any(person in each.may for each in rows):
        raise CtlError(f"{person} may approve none of this", code=ExitCode.REFUSED)


def _say(body: bytes, *, as_json: bool) -> None:
    if as_json:
        print_json(body)
        return
    from escalation.view.rule import RuleView  # noqa: PLC0415

    state = read(body, RuleView)
    if state.shadow is None:
        click.echo(f"{state.rule} is in no shadow; what it has open is proposed")
    else:
        click.echo(f"{state.rule} is in shadow until {state.shadow.until}")
