"""The commands around one recommendation: queue, show, command, approve, reject, done."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from escalation.cli.errors import CtlError, ExitCode
from escalation.cli.session import JSON, Session, print_json, print_list, read, tell_left_out, terminal_now
from escalation.cli.words import Words

if TYPE_CHECKING:
    from escalation.cli.client import Client
    from escalation.view.entry import EntryView

# Spelled out, so that completion and usage errors need not load the model; a test compares it with the model.
STATES: Final = (
    "all",
    "proposed",
    "approved",
    "rejected",
    "expired",
    "withdrawn",
    "done",
    "lapsed",
    "verified",
    "not_cured",
    "shadow",
    "acknowledged",
    "asked",
    "silenced",
    "snoozed",
)
_POLL_S: Final = 1.0
_UNASKED: Final = frozenset({"inspect", "human"})
"""The kinds of action whose command is printed without an approval."""

_REASON = click.option(
    "--reason", required=True, type=Words(), metavar="TEXT", help="Why, for the audit log."
)
_ID = click.argument("entry_id", metavar="ID", type=Words())


@click.command()
@click.option(
    "--state", type=click.Choice(STATES), help="Only entries in this state (default: not finished)."
)
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=200, show_default=True, help="Entries at most."
)
@JSON
@click.pass_obj
def queue(session: Session, *, state: str | None, limit: int, as_json: bool) -> None:
    """List recommendations, worst first."""
    params: dict[str, str | int] = {"limit": limit} | ({"state": state} if state else {})
    with session.client() as client:
        body = client.get("/api/v1/queue", **params)
    if as_json:
        print_list(body, "entries")
        return
    from escalation.cli.answers import QueueAnswer  # noqa: PLC0415
    from escalation.cli.tables import print_table, queue_table  # noqa: PLC0415

    answer = read(body, QueueAnswer)
    print_table(queue_table(answer.entries, now=terminal_now()))
    if not state and (answer.snoozed or answer.silenced):
        click.echo(f"left out: {answer.snoozed} snoozed, {answer.silenced} silenced", err=True)
    tell_left_out(len(answer.entries), answer.total)


@click.command()
@_ID
@click.option("--canonical", is_flag=True, help="Print what is signed, exactly, one document a line.")
@JSON
@click.pass_obj
def show(session: Session, *, entry_id: str, canonical: bool, as_json: bool) -> None:
    """Show one recommendation whole: evidence, exact action, risk, proof.

    ID is a recommendation's id, its first characters, or an incident's id. With --canonical: the documents
    that people signed, or, while nobody did, everything that a document would hold but person, reason and
    nonce.
    """
    with session.client() as client:
        body = client.entry(entry_id)
        if canonical:
            for line in _canonical(client, _entry(body)):
                click.echo(line)
            return
    if as_json:
        print_json(body)
        return
    _show(_entry(body), err=False)


@click.command()
@_ID
@click.option(
    "--approvers",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Print it only if who is named here signed it; default: approvers in ctl.toml.",
)
@click.option("--revoked", type=click.Path(path_type=Path), metavar="FILE", help="Keys that count no more.")
@click.option("--host", metavar="HOST", help="Print it only if it is for this host.")
@click.option(
    "--signers", type=click.IntRange(1), default=1, show_default=True, help="Persons who have to have signed."
)
@click.pass_obj
def command(
    session: Session,
    *,
    entry_id: str,
    approvers: Path | None,
    revoked: Path | None,
    host: str | None,
    signers: int,
) -> None:
    """Print the command that was approved, alone, quoted for a shell.

    A command that only reads, or that a person runs by their own judgement, needs no approval. Of any other
    nothing is printed before it is approved, nor when it is carried out or too late: `show` has it always.

    With --approvers it is printed only when the signatures of an approval are over exactly this command,
    entry, host and target, by keys that count now, and not too old: whatever the orchestrator says.
    """
    approvers = approvers or session.connection().approvers
    if approvers is None and (revoked or signers > 1):
        raise click.UsageError("--revoked and --signers need --approvers")
    with session.client() as client:
        entry = _entry(client.entry(entry_id))
    _insist_approved(entry)
    if approvers is not None:
        from escalation.cli import signing  # noqa: PLC0415

        for said in signing.insist(entry, asked=entry_id, path=approvers, revoked=revoked, least=signers):
            _say(said, err=True)
    if host is not None and entry.action.host != host:
        raise CtlError(f"this command is for {entry.action.host}, not for {host}", code=ExitCode.REFUSED)
    click.echo(_line_of(entry))


@click.command()
@_ID
@_REASON
@click.option("--digest", metavar="DIGEST", help="Approve only if the digest shown earlier still stands.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option(
    "--set-aside",
    "set_aside",
    multiple=True,
    metavar="CONDITION=REASON",
    help="Approve although this condition is in the way; may be given more than once.",
)
@click.option(
    "--sign",
    type=click.Path(path_type=Path),
    metavar="KEY",
    help="Sign it with this SSH key (a .pub: by the agent); default: sign_with in ctl.toml.",
)
@click.option("--no-sign", is_flag=True, help="Do not sign, whatever ctl.toml says.")
@JSON
@click.pass_obj
def approve(
    session: Session,
    *,
    entry_id: str,
    reason: str,
    digest: str | None,
    yes: bool,
    set_aside: tuple[str, ...],
    sign: Path | None,
    no_sign: bool,
    as_json: bool,
) -> None:
    """Approve exactly the action that is shown.

    The action and its digest are shown whole and, on a terminal, confirmed. Without a terminal naming the
    entry and the reason is the decision; a script gives --digest, so that it approves only what a person saw.
    A condition that fails, as `show` lists them, refuses the approval unless it is set aside by name.

    With --sign, ssh-keygen signs the canonical document (`show --canonical`), which is made here and compared
    with what is shown; keys of an agent and security keys work.
    """
    if sign is not None and no_sign:
        raise click.UsageError("--sign and --no-sign say two things")
    aside = _set_aside(set_aside)
    with session.client() as client:
        entry = _entry(client.entry(entry_id))
        _show(entry, err=as_json)
        if entry.action.refusal:
            raise CtlError(f"it cannot be approved: {entry.action.refusal}", code=ExitCode.REFUSED)
        if digest and digest.lower() != entry.digest:
            raise CtlError(
                f"its digest is now {entry.digest}, not the one that you gave",
                code=ExitCode.EXPIRED_OR_SUPERSEDED,
                advice="read what stands there now, then decide on that",
            )
        asked = sys.stdin.isatty() and not (yes or digest)
        if asked and not session.agrees("Approve exactly this action?", instead="give --digest, or --yes"):
            raise CtlError("not approved: you said no")
        _insist_known(aside, entry)
        said: dict[str, object] = {"reason": reason, "digest": entry.digest}
        if aside:
            said["set_aside"] = aside
        if not no_sign:
            said |= _signed(session, client, entry, asked=entry_id, reason=reason, aside=aside, key=sign)
        body = client.post(f"/api/v1/queue/{entry.id}/approve", said)
    approved = _entry(body)
    if (approved.digest, approved.action.command) != (entry.digest, entry.action.command):
        raise CtlError(
            "what the orchestrator says is approved is not what was shown",
            advice="run nothing; ask whoever runs the orchestrator, and look at it from another machine",
        )
    if as_json:
        print_json(body)
    if approved.state == "proposed":
        raise CtlError(
            f"{approved.id} has your approval and wants a second person's",
            code=ExitCode.STILL_PENDING,
            advice=f"somebody else runs: nanobotctl approve {approved.id} --reason '...'",
        )
    if as_json:
        return
    _say(f"approved by {approved.decided_by}. Now run on {entry.action.host}:", err=True)
    click.echo(_line_of(entry))
    until = f" before {approved.execute_by}" if approved.execute_by else ""
    _say(f"then mark it done{until}: nanobotctl done {entry.id}", err=True)


@click.command()
@_ID
@_REASON
@JSON
@click.pass_obj
def reject(session: Session, *, entry_id: str, reason: str, as_json: bool) -> None:
    """Reject a recommendation."""
    with session.client() as client:
        entry = _entry(client.entry(entry_id))
        body = client.post(f"/api/v1/queue/{entry.id}/reject", {"reason": reason})
    _report(body, as_json=as_json)


@click.command()
@_ID
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Wait for the verification: exit 0 verified, 1 not cured, 7 still pending.",
)
@JSON
@click.pass_obj
def done(session: Session, *, entry_id: str, wait: float | None, as_json: bool) -> None:
    """Say that the approved command was run; verification starts."""
    with session.client() as client:
        entry = _entry(client.entry(entry_id))
        body = client.post(f"/api/v1/queue/{entry.id}/done", {})
        if wait is not None:
            body = _verified(client, entry.id, wait_s=wait)
    _report(body, as_json=as_json)
    if wait is None:
        return
    match _entry(body).state:
        case "verified":
            return
        case "done":
            raise CtlError(f"not verified after {wait:g} seconds", code=ExitCode.STILL_PENDING)
        case state:
            raise CtlError(f"it ended as {state}")


def _insist_approved(entry: EntryView) -> None:
    """Raise CtlError for a command that changes something and is not, or no longer, approved."""
    if entry.state == "approved" or entry.action.kind in _UNASKED:
        return
    over = entry.state in {"expired", "lapsed", "withdrawn"}
    raise CtlError(
        f"{entry.id} is {entry.state}, and only a command that is approved is printed alone",
        code=ExitCode.EXPIRED_OR_SUPERSEDED if over else ExitCode.REFUSED,
        advice=f"`nanobotctl show {entry.id}` shows it with all that belongs to it",
    )


def _line_of(entry: EntryView) -> str:
    """Return the command for a shell, quoted here: what is printed is the arguments that were compared."""
    from escalation.view.entry import shell_line  # noqa: PLC0415

    line = shell_line(entry.action.command) if entry.action.whole else None
    if line is None:
        raise CtlError(
            "this action has no command that can be shown exactly",
            code=ExitCode.REFUSED,
            advice=f"`nanobotctl show {entry.id}` shows it escaped",
        )
    if not line:
        raise CtlError("this advice has no command", code=ExitCode.REFUSED)
    return line


def _set_aside(given: tuple[str, ...]) -> dict[str, str]:
    """Return conditions with the reasons for setting them aside."""
    found: dict[str, str] = {}
    for text in given:
        condition, separator, reason = text.partition("=")
        if not separator or not reason.strip():
            raise click.UsageError("--set-aside takes CONDITION=REASON, such as 'not_busy=nobody uses it'")
        found[condition.strip()] = reason
    return found


def _insist_known(aside: dict[str, str], entry: EntryView) -> None:
    """Raise CtlError for what is set aside and is no condition of the entry."""
    known = [each.condition for each in entry.preconditions]
    if strangers := sorted(set(aside) - set(known)):
        raise CtlError(
            f"{strangers[0]} is no condition of this action",
            code=ExitCode.REFUSED,
            advice=f"they are {', '.join(known)}" if known else "it has none",
        )


def _signed(
    session: Session,
    client: Client,
    entry: EntryView,
    *,
    asked: str,
    reason: str,
    aside: dict[str, str],
    key: Path | None,
) -> dict[str, object]:
    """Return what stands in a signed approval besides; nothing when there is no key to sign with."""
    connection = session.connection()
    key = key or connection.sign_with
    if key is None:
        return {}
    import msgspec  # noqa: PLC0415

    from escalation.cli import signing  # noqa: PLC0415
    from escalation.wording.quantities import duration  # noqa: PLC0415

    if not signing.is_asked(entry, asked):
        raise CtlError(
            f"nothing is signed: the orchestrator answers with another entry ({entry.id})",
            code=ExitCode.REFUSED,
            advice=f"`nanobotctl show {entry.id}` shows it; name it if you mean it",
        )
    agreed = signing.agreed(client, entry)
    within = duration(agreed.terms.execute_within_s)
    _say(f"signing for {agreed.person} with {key}", err=True)
    _say(f"it may be carried out for {within} after {agreed.terms.approve_by}", err=True)
    signed = signing.sign(
        agreed,
        reason=reason,
        set_aside=aside,
        key=key,
        keygen=connection.ssh_keygen,
        ask=not session.no_input,
    )
    return {"signed": msgspec.to_builtins(signed)}


def _canonical(client: Client, entry: EntryView) -> list[str]:
    """Return the documents of an entry that were signed, or else what one would hold."""
    standing = (each.document for each in entry.approvals if each.void_at is None)
    if documents := [each for each in standing if each is not None]:
        return documents
    from escalation.cli import signing  # noqa: PLC0415
    from escalation.signing import approval  # noqa: PLC0415

    return [approval.canonical(signing.agreed(client, entry).terms)]


def _verified(client: Client, entry_id: str, *, wait_s: float) -> bytes:
    """Return the entry once it is finished, or as it stands after `wait_s`."""
    until = time.monotonic() + wait_s
    while True:
        body = client.get(f"/api/v1/queue/{entry_id}")
        left = until - time.monotonic()
        if left <= 0 or _entry(body).state != "done":
            return body
        time.sleep(min(_POLL_S, left))


def _entry(body: bytes) -> EntryView:
    from escalation.view.entry import EntryView  # noqa: PLC0415

    return read(body, EntryView)


def _show(entry: EntryView, *, err: bool) -> None:
    """Print an entry whole: wrapped and coloured on a terminal, one line a sentence elsewhere."""
    from shutil import get_terminal_size  # noqa: PLC0415

    from escalation.cli.text import coloured, entry_text, on_terminal, plain, wants_colour  # noqa: PLC0415

    colour = wants_colour() and not err
    width = get_terminal_size().columns if on_terminal() and not err else None
    text = entry_text(entry, paint=coloured if colour else plain, width=width)
    click.echo(text, nl=False, err=err, color=colour)


def _say(text: str, *, err: bool = False) -> None:
    """Print what may hold words of the orchestrator's; no terminal is made to act by them."""
    from escalation.inert import guarded  # noqa: PLC0415

    click.echo(guarded(text), err=err)


def _report(body: bytes, *, as_json: bool) -> None:
    if as_json:
        print_json(body)
        return
    entry = _entry(body)
    _say(f"{entry.id} is now {entry.state}: {entry.state_means}")
