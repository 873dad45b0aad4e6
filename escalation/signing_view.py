"""How each approval of an entry was given, as people and their tools see it."""

from __future__ import annotations

from dataclasses import dataclass

from escalation.inert import shown
from escalation.model import Approval, PasskeySignature, SshSignature
from escalation.moments import moment


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalView:
    """One person's approval; `kind` is how it was signed and `key` with which key, None when it was not."""

    person: str
    at: str
    reason: str
    kind: str | None
    key: str | None
    document: str | None
    words: str


def approval_view(given: Approval) -> ApprovalView:
    """Return what a person sees of an approval."""
    kind = None
    match given.signed.signature if given.signed is not None else None:
        case SshSignature():
            kind = "ssh"
        case PasskeySignature():
            kind = "webauthn"
        case None:
            pass
    key = None if given.key is None else shown(given.key)
    return ApprovalView(
        person=shown(given.person),
        at=moment(given.at_ns),
        reason=shown(given.reason),
        kind=kind,
        key=key,
        document=None if given.signed is None else given.signed.document,
        words="not signed" if kind is None else f"signed by key {key} ({kind})",
    )
