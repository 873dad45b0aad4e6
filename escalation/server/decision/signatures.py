"""Who signed an approval: checked before the decision, against files and keys that the service cannot change.

Whether the document is the one of what stands there is decided with the decision itself (`approvals`), in its
transaction; here it is only whose signature is over these bytes. The approvers' file is read anew each time,
so a key that was taken out of it counts no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, Protocol, assert_never

import msgspec

from escalation.model import PasskeySignature, Signed, SshSignature
from escalation.server.desk import Checked, Refused, Unavailable
from escalation.signing import approvers, passkey
from escalation.signing.approval import ApprovalError, parse
from escalation.signing.approvers import Approvers, ApproversError
from escalation.signing.passkey import Passkey, PasskeyRefused
from escalation.signing.sshsig import Keygen, KeygenError, SshRefused

Passkeys = Callable[[str], Awaitable[Sequence[Passkey]]]
"""Returns the passkeys that a person registered at this orchestrator."""

_AT_ONCE: Final = 4


class SigningSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[approvals.signing]` table: the approvers' file, and keys that count no more.

    Both belong to root, and nobody else can change them.
    """

    allowed_signers: Path | None = None
    revoked_keys: Path | None = None

    def read(self) -> Approvers | None:
        """Return whom the files name, None without one; raise ApproversError."""
        if self.allowed_signers is None:
            return None
        return approvers.read(self.allowed_signers, revoked=self.revoked_keys)


class SignatureCheck(Protocol):
    """Says whose signature it is."""

    async def check(self, signed: Signed, *, person: str) -> Checked:
        """Return the signature with the name of its key, when `person` made it; raise Refused."""


class NoSignatures:
    """Where no keys are known: nothing that is signed can be checked, so nothing is taken as signed."""

    async def check(self, signed: Signed, *, person: str) -> Checked:  # noqa: ARG002 - nobody's is known
        """Raise Refused."""
        raise Refused("this orchestrator knows no keys of approvers; approve without a signature")


class Signatures:
    """Checks SSH signatures by the approvers' file, passkeys by the file and by what people registered."""

    def __init__(
        self,
        *,
        read: Callable[[], Approvers | None],
        keygen: Keygen | None,
        passkeys: Passkeys | None = None,
    ) -> None:
        """Check with what `read` returns at that moment; without `keygen` no SSH signature is taken."""
        self._read = read
        self._keygen = keygen
        self._passkeys = passkeys
        self._turns = asyncio.Semaphore(_AT_ONCE)

    def __repr__(self) -> str:
        return f"Signatures(ssh={self._keygen is not None}, passkeys={self._passkeys is not None})"

    async def check(self, signed: Signed, *, person: str) -> Checked:
        """Return the signature with the name of its key, when `person` made it; raise Refused."""
        try:
            if parse(signed.document).person != person:
                raise Refused("the approval document names another person")
            known = await asyncio.to_thread(self._read) or Approvers()
            match signed.signature:
                case SshSignature():
                    return Checked(signed, await self._ssh(signed.signature, signed.document, person, known))
                case PasskeySignature():
                    key = await self._passkey(signed.signature, person, known)
                    passkey.verify(signed.signature, signed.document, key)
                    return Checked(signed, key.credential_id)
                case _:
                    assert_never(signed.signature)
        except (ApprovalError, SshRefused, PasskeyRefused) as error:
            raise Refused(f"the signature was not taken: {error}") from error
        except (ApproversError, KeygenError) as error:
            raise Unavailable(f"signatures cannot be checked now: {error}") from error

    async def _ssh(self, signature: SshSignature, document: str, person: str, known: Approvers) -> str:
        if not known.ssh:
            raise SshRefused("this orchestrator knows no SSH keys of approvers")
        if self._keygen is None:
            raise KeygenError("there is no ssh-keygen here")
        async with self._turns:
            return await asyncio.to_thread(
                self._keygen.verify, signature, document, person=person, approvers=known
            )

    async def _passkey(self, signature: PasskeySignature, person: str, known: Approvers) -> Passkey:
        if key := known.passkey(person, signature.credential_id):
            return key
        registered = await self._passkeys(person) if self._passkeys is not None else ()
        for each in registered:
            if each.credential_id == signature.credential_id:
                return each
        raise PasskeyRefused(f"{person} has no such passkey")
