"""A security key in software: it makes passkeys and signs with them, rightly or as a test wants it wrong."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fido2.cose import ES256
from fido2.webauthn import AttestationObject, AttestedCredentialData, AuthenticatorData

from escalation.server.web.login.passkeys import bytes_of, text_of

PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40


@dataclass
class Authenticator:
    """One passkey for one origin."""

    origin: str = "https://desk.example"
    flags: int = PRESENT | VERIFIED
    count: int = 0
    cross_origin: bool = False
    key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    id: bytes = b"\x07" * 32

    def makes(self, options: dict[str, Any], **wrong: Any) -> dict[str, str]:
        """Return what a browser answers to options for a new passkey."""
        data = self._data(
            options["rp"]["id"],
            ATTESTED,
            AttestedCredentialData.create(
                b"\0" * 16, self.id, ES256.from_cryptography_key(self.key.public_key())
            ),
        )
        return {
            "id": text_of(self.id),
            "client_data": text_of(self._client("webauthn.create", options["challenge"])),
            "attestation": text_of(AttestationObject.create("none", data, {})),
        } | wrong

    def uses(self, options: dict[str, Any], **wrong: Any) -> dict[str, str]:
        """Return what a browser answers to options for using it."""
        data = self._data(options["rpId"], 0)
        client = self._client("webauthn.get", options["challenge"])
        signed = self.key.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(hashes.SHA256()))
        return {
            "id": text_of(self.id),
            "client_data": text_of(client),
            "authenticator_data": text_of(data),
            "signature": text_of(signed),
        } | wrong

    def _client(self, kind: str, challenge: str) -> bytes:
        assert bytes_of(challenge)
        found = {
            "type": kind,
            "challenge": challenge,
            "origin": self.origin,
            "crossOrigin": self.cross_origin,
        }
        return json.dumps(found).encode()

    def _data(self, rp_id: str, flags: int, credential: bytes = b"") -> AuthenticatorData:
        return AuthenticatorData.create(
            hashlib.sha256(rp_id.encode()).digest(), self.flags | flags, self.count, credential
        )
