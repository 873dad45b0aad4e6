"""How each approval of an entry was given, and what there is to sign, as people and their tools see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from escalation.inert import shown
from escalation.model import Approval, PasskeySignature, Signature, SshSignature
from escalation.wording.moments import moment


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalView:
    """One person's approval; `kind` is how it was signed and `key` with which key, None when it was not.

    `policy` is the digest of the rules under which it was given, None where that was not kept. Since
    `void_at` other rules stand, and it counts no more.
    """

    person: str
    at: str
    reason: str
    kind: str | None
    key: str | None
    document: str | None
    signature: Signature | None
    words: str
    policy: str | None = None
    void_at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningView:
    """What a client signs is made of this: `bound` is what the digest covers, the rest are the rules.

    `person` is who asks, `required` whether policy takes no approval of this kind without a signature.
    """

    id: str
    bound: dict[str, Any]
    approve_by: str
    execute_within_s: int
    catalogue: str
    policy: str
    digest: str
    person: str
    required: bool


@dataclass(frozen=True, slots=True)
class DocumentView:
    """A document to sign, and its SHA-256 in hex, which is a passkey's challenge."""

    document: str
    sha256: str


@dataclass(frozen=True, slots=True)
class PasskeyLines:
    """A person's passkeys, as lines of an approvers' file."""

    lines: tuple[str, ...]


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
    words = "not signed" if kind is None else f"signed by key {key} ({kind})"
    void_at = None if given.void_ns is None else moment(given.void_ns)
    return ApprovalView(
        person=shown(given.person),
        at=moment(given.at_ns),
        reason=shown(given.reason),
        kind=kind,
        key=key,
        document=None if given.signed is None else given.signed.document,
        signature=None if given.signed is None else given.signed.signature,
        words=words if void_at is None else f"{words}; void since {void_at}, the rules for approving changed",
        policy=given.policy or None,
        void_at=void_at,
    )
