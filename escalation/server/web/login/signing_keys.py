"""The passkeys that people registered here, as keys that may sign an approval."""

from __future__ import annotations

from collections.abc import Sequence

from fido2 import cbor
from fido2.webauthn import AttestedCredentialData

from escalation.server.decision.signatures import Passkeys
from escalation.server.desk import Unavailable
from escalation.server.storage.store import Store, StoreError
from escalation.server.web.login.passkey_desk import PASSKEYS
from escalation.server.web.login.passkeys import bytes_of, text_of
from escalation.signing import passkey


def registered(store: Store, *, origin: str) -> Passkeys:
    """Return what looks up a person's passkeys, which are all of the page at `origin`."""

    async def of(person: str) -> Sequence[passkey.Passkey]:
        try:
            kept = await store.read(lambda ledger: ledger.records.of(PASSKEYS))
        except StoreError as error:
            raise Unavailable(f"passkeys cannot be read now: {error}") from error
        return [
            passkey.Passkey(credential_id, _cose(each.public), origin)
            for credential_id, each in kept.items()
            if each.person == person
        ]

    return of


def _cose(public: str) -> str:
    """Return the public key alone of what a passkey was registered with."""
    return text_of(cbor.encode(dict(AttestedCredentialData(bytes_of(public)).public_key)))
