"""Which key signed: one question for SSH signatures and passkeys, asked of an approvers' file alone."""

from __future__ import annotations

from datetime import datetime
from typing import assert_never

from escalation.model import PasskeySignature, Signed, SshSignature
from escalation.signing import passkey
from escalation.signing.approvers import Approvers
from escalation.signing.passkey import PasskeyRefused
from escalation.signing.sshsig import Keygen


def key_of(signed: Signed, person: str, at: datetime, *, approvers: Approvers, keygen: Keygen) -> str:
    """Return the name of the key by which `person` signed at `at`; raise SshRefused or PasskeyRefused."""
    match signed.signature:
        case SshSignature():
            return keygen.verify(signed.signature, signed.document, person=person, approvers=approvers, at=at)
        case PasskeySignature():
            known = approvers.passkey(person, signed.signature.credential_id)
            if known is None:
                raise PasskeyRefused(f"the approvers' file has no such passkey of {person}")
            passkey.verify(signed.signature, signed.document, known)
            return known.credential_id
        case _:
            assert_never(signed.signature)
