"""Signing at the command line: make the document here, from what the digest covers, and compare it.

The orchestrator is not trusted with the document: it sends what its digest covers, this end computes the
digest, makes the document, and refuses when anything in it is not what was shown.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from escalation.cli.errors import CtlError, ExitCode
from escalation.cli.session import read
from escalation.inert import shown
from escalation.model import Signed
from escalation.signing import approval, approvers, sshsig
from escalation.signing.approval import ApprovalError, Terms
from escalation.signing.approvers import Approvers, ApproversError
from escalation.signing.keys import key_of
from escalation.signing.passkey import PasskeyRefused
from escalation.signing.sshsig import Keygen, KeygenError, SshRefused
from escalation.view.signing import SigningView

if TYPE_CHECKING:
    from escalation.cli.client import Client
    from escalation.view.entry import EntryView

_ALARM = "do not approve it; ask whoever runs the orchestrator, and look at it from another machine"


_ALARM_RUN = "do not run it; ask the persons who are named as approvers"


@dataclass(frozen=True, slots=True)
class Agreed:
    """Terms that were made here and are what was shown, and the name by which who asks is known."""

    terms: Terms
    person: str


def agreed(client: Client, entry: EntryView) -> Agreed:
    """Return what there is to sign for `entry`; raise CtlError when it is not what the entry shows."""
    sent = read(client.get(f"/api/v1/queue/{entry.id}/approval"), SigningView)
    try:
        bound = approval.bound_from(sent.bound)
        terms = approval.terms(
            bound,
            entry_id=sent.id,
            approve_by=sent.approve_by,
            execute_within_s=sent.execute_within_s,
            catalogue=sent.catalogue,
            policy=sent.policy,
        )
    except ApprovalError as error:
        raise CtlError(f"nothing can be signed: {error}", advice=_ALARM) from error
    different = [*shown_otherwise(terms, entry), *(["host"] if shown(bound.host[1]) != entry.host else [])]
    if different:
        raise CtlError(
            f"what would be signed is not what the orchestrator shows ({', '.join(different)})", advice=_ALARM
        )
    return Agreed(terms, sent.person)


def shown_otherwise(terms: Terms, entry: EntryView) -> tuple[str, ...]:
    """Return the names of what an entry shows differently from these terms."""
    action, target = terms.action, terms.action.target
    pairs = {
        "id": (terms.id, entry.id),
        "incident": (terms.incident, entry.incident_id),
        "host": (terms.host, entry.action.host),
        "fault": (terms.fault, entry.fault_class),
        "subject": ((terms.subject.kind, terms.subject.name), (entry.subject.kind, entry.subject.name)),
        "kind of action": (action.kind, entry.action.kind),
        "target": ((target.kind, target.name), (entry.action.target.kind, entry.action.target.name)),
        "command": (action.argv, entry.action.command),
        "digest": (terms.digest, entry.digest),
        "time to approve": (terms.approve_by, entry.approve_by),
    }
    return tuple(name for name, (signed, seen) in pairs.items() if signed != seen)


def is_asked(entry: EntryView, asked: str) -> bool:
    """Return whether `asked` is the beginning of this entry's id or of its incident's."""
    return entry.id.startswith(asked) or entry.incident_id.startswith(asked)


def insist(entry: EntryView, *, asked: str, path: Path, revoked: Path | None, least: int) -> tuple[str, ...]:
    """Return who signed exactly what `entry` shows, by the approvers' file at `path`; raise CtlError.

    It has to be the entry that was `asked` for. At least `least` persons have to have signed, each
    with a key of their own that counts now, and the time to carry it out is not over by this machine's clock.
    """
    known = trusted(path, revoked)
    if not is_asked(entry, asked):
        raise _unsigned(f"the orchestrator answers with another entry ({entry.id})")
    signed: dict[str, str] = {}
    rules: set[str] = set()
    try:
        for each in entry.approvals:
            if each.document is None or each.signature is None or each.void_at is not None:
                continue
            document = approval.parse(each.document)
            rules.add(document.policy)
            if different := shown_otherwise(document, entry):
                raise _unsigned(f"what {each.person} signed is not what is shown ({', '.join(different)})")
            _check_time(document)
            given = Signed(each.document, each.signature)
            # As of now: when it was signed only the orchestrator says, which may date back to an old key.
            now = datetime.now(UTC)
            key = key_of(given, document.person, now, approvers=known, keygen=sshsig.find())
            if key not in signed.values():
                signed.setdefault(document.person, key)
    except (ApprovalError, SshRefused, PasskeyRefused) as error:
        raise _unsigned(str(error)) from error
    except KeygenError as error:
        raise CtlError(f"signatures cannot be checked: {error}") from error
    if len(rules) > 1:
        raise _unsigned("they signed under different rules for approving")
    if len(signed) < least:
        raise _unsigned(f"{len(signed)} of {least} persons signed it")
    return tuple(
        f"{person} signed it for {entry.action.host} with {key}" for person, key in sorted(signed.items())
    )


def trusted(path: Path, revoked: Path | None) -> Approvers:
    """Return the approvers' file of this machine, which belongs to root or who asks; raise CtlError."""
    try:
        return approvers.read(path, revoked=revoked, owners=approvers.ROOT | {os.geteuid()})
    except ApproversError as error:
        raise CtlError(str(error), code=ExitCode.USAGE, advice="correct that file") from error


def _check_time(document: approval.Document) -> None:
    until = approval.moment_of(document.approve_by) + timedelta(seconds=document.execute_within_s)
    if until <= datetime.now(UTC):
        raise CtlError(
            f"by this machine's clock the time to carry it out is over ({until:%Y-%m-%dT%H:%M:%SZ})",
            code=ExitCode.EXPIRED_OR_SUPERSEDED,
        )


def _unsigned(why: str) -> CtlError:
    return CtlError(f"this is not a signed approval: {why}", code=ExitCode.REFUSED, advice=_ALARM_RUN)


def sign(
    agreed_on: Agreed,
    *,
    reason: str,
    set_aside: Mapping[str, str],
    key: Path,
    keygen: Path | None,
    ask: bool,
) -> Signed:
    """Return the document and its signature by `key`; a passphrase is asked for only when `ask`."""
    until = agreed_on.terms.approve_by
    try:
        if approval.moment_of(until) <= datetime.now(UTC):
            raise CtlError(
                f"by this machine's clock the time to approve it is over ({until})",
                code=ExitCode.EXPIRED_OR_SUPERSEDED,
            )
        text = approval.document(
            agreed_on.terms,
            person=agreed_on.person,
            reason=reason.strip(),
            nonce=secrets.token_hex(16),
            set_aside={condition: why.strip() for condition, why in set_aside.items()},
        )
        tool = sshsig.find() if keygen is None else Keygen(keygen)
        return Signed(text, tool.sign(text, key=key, environment=os.environ, ask=ask))
    except (ApprovalError, KeygenError) as error:
        raise CtlError(
            f"not signed, and not approved: {error}",
            advice="is the key in the file or the agent, and the security key plugged in?",
        ) from error
