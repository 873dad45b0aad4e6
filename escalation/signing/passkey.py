"""Passkeys: check that a WebAuthn assertion is one person's own approval of one document.

The challenge is the SHA-256 of the document, so the assertion is good for nothing else. The origin and the
relying party come from whoever checks, never from the assertion; presence and verification of the user are
required (WebAuthn level 3, section 7.2). Counters are left to the login: the same assertion is checked again
years later, offline.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from fido2 import cbor
from fido2.cose import CoseKey, UnsupportedKey
from fido2.webauthn import AuthenticatorData, CollectedClientData

from escalation.model import PasskeySignature

_MALFORMED: Final = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    struct.error,
    UnsupportedAlgorithm,
)
"""What the libraries raise for bytes that are not what they should be; the tests feed them any."""


class PasskeyRefused(Exception):
    """The assertion does not show that this passkey signed this document; the message says why."""


@dataclass(frozen=True, slots=True)
class Passkey:
    """One credential: its id and its public key (COSE), both base64url, and the page that it belongs to.

    `rp_id` is the relying party's domain; empty: the host of `origin`.
    """

    credential_id: str
    public_key: str
    origin: str
    rp_id: str = ""

    @property
    def domain(self) -> str:
        """Return the relying party's domain."""
        return self.rp_id or urlsplit(self.origin).hostname or ""


def challenge_of(document: str) -> bytes:
    """Return what a browser has to let the passkey sign for `document`."""
    return hashlib.sha256(document.encode()).digest()


def verify(signature: PasskeySignature, document: str, passkey: Passkey) -> None:
    """Return when `passkey` signed `document`; raise PasskeyRefused otherwise, and for what is malformed."""
    if signature.credential_id != passkey.credential_id:
        raise PasskeyRefused("it was made by another passkey")
    client, proof = _bytes(signature.client_data), _bytes(signature.signature)
    data = _bytes(signature.authenticator_data)
    _check_client(client, document, passkey)
    _check_authenticator(data, passkey)
    key = public_key(passkey.public_key)
    try:
        key.verify(data + hashlib.sha256(client).digest(), proof)
    except (InvalidSignature, *_MALFORMED) as error:
        raise PasskeyRefused("the signature does not fit the document and the key") from error


def public_key(encoded: str) -> CoseKey:
    """Return a public key from its COSE form in base64url; raise PasskeyRefused."""
    try:
        content = cbor.decode(_bytes(encoded))
        key = CoseKey.parse(content if isinstance(content, Mapping) else {})
    except _MALFORMED as error:
        raise PasskeyRefused("the public key cannot be read") from error
    if isinstance(key, UnsupportedKey):
        raise PasskeyRefused("the public key is of a kind that is not known here")
    return key


def _check_client(client: bytes, document: str, passkey: Passkey) -> None:
    try:
        said = CollectedClientData(client)
        kind, challenge, origin, crossed = said.type, said.challenge, said.origin, said.cross_origin
    except _MALFORMED as error:
        raise PasskeyRefused("what the browser signed cannot be read") from error
    if kind != "webauthn.get":
        raise PasskeyRefused("it is no assertion")
    if challenge != challenge_of(document):
        raise PasskeyRefused("it was made for another document")
    if origin != passkey.origin:
        raise PasskeyRefused("it was made on a page of another origin")
    if crossed:
        raise PasskeyRefused("it was made in a frame of another page")


def _check_authenticator(data: bytes, passkey: Passkey) -> None:
    try:
        said = AuthenticatorData(data)
    except _MALFORMED as error:
        raise PasskeyRefused("what the authenticator signed cannot be read") from error
    if said.rp_id_hash != hashlib.sha256(passkey.domain.encode()).digest():
        raise PasskeyRefused("it was made for another relying party")
    if not said.is_user_present():
        raise PasskeyRefused("nobody touched the authenticator")
    if not said.is_user_verified():
        raise PasskeyRefused("the authenticator did not verify who touched it")


def _bytes(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise PasskeyRefused("it holds what is not base64url") from error
