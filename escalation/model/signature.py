"""How a person signed an approval: with an SSH key, or with a passkey.

Both are kept as they came, so that anybody can check them later without trusting who kept them; how is in
`escalation.signing.sshsig` and `escalation.signing.passkey`. Text only: what is binary stands in base64
without padding, in the alphabet of URLs, as browsers and passkeys write it.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

Base64 = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,8192}\Z")]


class SshSignature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="ssh"):
    """An SSHSIG (`ssh-keygen -Y sign`) over the document, in its armour."""

    armoured: Annotated[str, msgspec.Meta(max_length=16_384, pattern=r"^[\x20-\x7e\r\n]*\Z")]


class PasskeySignature(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="webauthn"
):
    """A WebAuthn assertion whose challenge is the SHA-256 of the document.

    `client_data` and `authenticator_data` are the bytes that the browser and the authenticator made.
    """

    credential_id: Base64
    client_data: Base64
    authenticator_data: Base64
    signature: Base64


Signature = SshSignature | PasskeySignature


class Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A canonical approval document, and a person's signature over it."""

    document: Annotated[str, msgspec.Meta(max_length=32_768)]
    signature: Signature
