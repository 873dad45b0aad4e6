"""Passkeys (WebAuthn): what a browser is asked, and whether its answer is right. No storage, no clock.

The relying party and the origin are those of `http.public_url`, never those of a request. A person must be
verified by the authenticator (a finger, a face, a PIN), not only be present. Attestation is not asked for:
which make of key somebody has is not ours to judge.

The bytes of browsers are parsed and the signatures checked by `fido2`, of the people who make such keys; it
needs nothing but `cryptography`. `webauthn` does the same with eight more packages.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from fido2.server import Fido2Server
from fido2.webauthn import (
    AttestationConveyancePreference,
    AttestationObject,
    AttestedCredentialData,
    AuthenticationResponse,
    AuthenticatorAssertionResponse,
    AuthenticatorAttestationResponse,
    AuthenticatorData,
    CollectedClientData,
    PublicKeyCredentialRpEntity,
    RegistrationResponse,
    UserVerificationRequirement,
)

ALGORITHMS: Final = (-7, -8, -257)
"""ES256, EdDSA, RS256: what browsers have (COSE, RFC 9053)."""

_TIMEOUT_MS: Final = 120_000

# What fido2 and cryptography raise at bytes that are none of theirs.
_UNREADABLE: Final = (
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    AssertionError,
    OverflowError,
    RecursionError,
    NotImplementedError,
    struct.error,
    UnsupportedAlgorithm,
)

Bytes = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,16384}\Z")]
"""Bytes as base64url without padding."""


class WrongPasskey(Exception):
    """The answer of a browser is not right; the message says what, for the log."""


class Attestation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a browser answers when it made a passkey."""

    id: Bytes
    client_data: Bytes
    attestation: Bytes


class Assertion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a browser answers when a passkey was used."""

    id: Bytes
    client_data: Bytes
    authenticator_data: Bytes
    signature: Bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Passkey:
    """One passkey: whose, its public key, and how often it says that it was used (0: it does not count)."""

    person: str
    label: str
    public: str
    sign_count: int
    added_ns: int
    used_ns: int


class RelyingParty:
    """Who asks for passkeys: one origin."""

    def __init__(self, *, origin: str) -> None:
        """Ask for `origin`, which is https, or http on localhost."""
        self.origin = origin
        self.id = urlsplit(origin).hostname or ""
        self._server = Fido2Server(
            PublicKeyCredentialRpEntity(name="Host Nanobot", id=self.id),
            attestation=AttestationConveyancePreference.NONE,
            verify_origin=lambda asked: asked == origin,
        )

    def __repr__(self) -> str:
        return f"RelyingParty(origin={self.origin!r})"

    def to_add(self, person: str, *, challenge: str, known: Sequence[str]) -> dict[str, Any]:
        """Return what a browser is asked to make a passkey for `person`, other than those `known`."""
        user = hashlib.sha256(f"{self.id}\n{person}".encode()).digest()
        return {
            "rp": {"id": self.id, "name": "Host Nanobot"},
            "user": {"id": text_of(user), "name": person, "displayName": person},
            "challenge": challenge,
            "pubKeyCredParams": [{"type": "public-key", "alg": each} for each in ALGORITHMS],
            "timeout": _TIMEOUT_MS,
            "excludeCredentials": [{"type": "public-key", "id": each} for each in known],
            "authenticatorSelection": {
                "residentKey": "required",
                "requireResidentKey": True,
                "userVerification": "required",
            },
            "attestation": "none",
        }

    def to_use(self, *, challenge: str, known: Sequence[str] = ()) -> dict[str, Any]:
        """Return what a browser is asked to use a passkey: one of `known`, or any of this place."""
        return {
            "rpId": self.id,
            "challenge": challenge,
            "timeout": _TIMEOUT_MS,
            "allowCredentials": [{"type": "public-key", "id": each} for each in known],
            "userVerification": "required",
        }

    def added(self, answer: Attestation, *, challenge: str) -> tuple[str, str, int]:
        """Return the id, the public key and the count of a passkey that was made; raise WrongPasskey."""
        try:
            client_data = self._client_data(answer.client_data)
            made = AttestationObject(bytes_of(answer.attestation))
            data = self._server.register_complete(
                self._state(challenge),
                RegistrationResponse(
                    raw_id=bytes_of(answer.id),
                    response=AuthenticatorAttestationResponse(
                        client_data=client_data, attestation_object=made
                    ),
                ),
            )
            credential = data.credential_data
            if credential is None or credential.credential_id != bytes_of(answer.id):
                raise WrongPasskey("the passkey is not the one that the browser names")
            algorithm = credential.public_key.ALGORITHM
        except _UNREADABLE as error:
            raise WrongPasskey(f"a passkey cannot be taken: {type(error).__name__}") from error
        if algorithm not in ALGORITHMS:
            raise WrongPasskey("the passkey's algorithm is none that was asked for")
        return text_of(credential.credential_id), text_of(bytes(credential)), data.counter

    def used(self, answer: Assertion, passkey: Passkey, *, challenge: str) -> int:
        """Return the count of a passkey that answered rightly to `challenge`; raise WrongPasskey."""
        try:
            data = AuthenticatorData(bytes_of(answer.authenticator_data))
            self._server.authenticate_complete(
                self._state(challenge),
                [AttestedCredentialData(bytes_of(passkey.public))],
                AuthenticationResponse(
                    raw_id=bytes_of(answer.id),
                    response=AuthenticatorAssertionResponse(
                        client_data=self._client_data(answer.client_data),
                        authenticator_data=data,
                        signature=bytes_of(answer.signature),
                    ),
                ),
            )
        except _UNREADABLE as error:
            raise WrongPasskey(f"a passkey did not answer rightly: {type(error).__name__}") from error
        if (data.counter or passkey.sign_count) and data.counter <= passkey.sign_count:
            raise WrongPasskey("the passkey's count went back: there may be a copy of it")
        return data.counter

    def _client_data(self, text: str) -> CollectedClientData:
        client_data = CollectedClientData(bytes_of(text))
        if client_data.cross_origin:
            raise WrongPasskey("the passkey was asked for inside another page")
        return client_data

    def _state(self, challenge: str) -> dict[str, Any]:
        return {"challenge": challenge, "user_verification": UserVerificationRequirement.REQUIRED}


def has_passkeys(origin: str) -> bool:
    """Return whether browsers make passkeys for `origin`: it has a name, not an address."""
    host = urlsplit(origin).hostname
    if not host:
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


def bytes_of(text: str) -> bytes:
    """Return the bytes of base64url without padding; raise ValueError."""
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def text_of(value: bytes) -> str:
    """Return bytes as base64url without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
