"""Passkeys: an assertion is one person's approval of one document, and nothing else passes for it."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given, strategies as st

from escalation.model import PasskeySignature
from escalation.signing import passkey
from escalation.signing.passkey import Passkey, PasskeyRefused
from tests.escalation.signers import EXTENDED, PRESENT, VERIFIED, Authenticator, encoded

DOCUMENT = '{"id":"a"}'
ADA = Authenticator()


@pytest.mark.parametrize("authenticator", [ADA, Authenticator(key=ed25519.Ed25519PrivateKey.generate())])
def test_takes_what_the_passkey_signed(authenticator: Authenticator) -> None:
    """The bytes that an authenticator makes for the document are right, for keys of both kinds."""
    passkey.verify(authenticator.sign(DOCUMENT), DOCUMENT, authenticator.passkey)
    passkey.verify(
        authenticator.sign(DOCUMENT, flags=PRESENT | VERIFIED | EXTENDED), DOCUMENT, authenticator.passkey
    )


@pytest.mark.parametrize(
    ("signature", "why"),
    [
        (ADA.sign('{"id":"b"}'), "another document"),
        (ADA.sign(DOCUMENT, origin="https://queue.example.org"), "another origin"),
        (ADA.sign(DOCUMENT, crossed=True), "frame"),
        (ADA.sign(DOCUMENT, kind="webauthn.create"), "no assertion"),
        (ADA.sign(DOCUMENT, domain="example"), "another relying party"),
        (ADA.sign(DOCUMENT, flags=VERIFIED), "touched"),
        (ADA.sign(DOCUMENT, flags=PRESENT), "verify"),
        (Authenticator(credential=ADA.credential).sign(DOCUMENT), "does not fit"),
        (Authenticator().sign(DOCUMENT), "another passkey"),
        (msgspec.structs.replace(ADA.sign(DOCUMENT), signature="AAAA"), "does not fit"),
        (msgspec.structs.replace(ADA.sign(DOCUMENT), client_data="AAAA"), "cannot be read"),
        (msgspec.structs.replace(ADA.sign(DOCUMENT), client_data=encoded(b"[]")), "cannot be read"),
        (msgspec.structs.replace(ADA.sign(DOCUMENT), authenticator_data="AAAA"), "cannot be read"),
        (msgspec.structs.replace(ADA.sign(DOCUMENT), signature="A"), "base64url"),
    ],
)
def test_refuses_everything_else(signature: PasskeySignature, why: str) -> None:
    """Another text, page, frame, key or flag: each is named."""
    with pytest.raises(PasskeyRefused, match=why):
        passkey.verify(signature, DOCUMENT, ADA.passkey)


def test_a_relying_party_may_be_the_domain_above_the_page() -> None:
    """The domain of the approvers' line counts, not one that the assertion names."""
    wider = replace(ADA.passkey, rp_id="example")
    passkey.verify(ADA.sign(DOCUMENT, domain="example"), DOCUMENT, wider)


@given(st.data())
def test_no_bytes_do_more_than_be_refused(data: st.DataObject) -> None:
    """Whatever stands in an assertion or a public key is refused by name, and never crashes."""
    good = ADA.sign(DOCUMENT)
    name = data.draw(st.sampled_from(["client_data", "authenticator_data", "signature", "public_key"]))
    junk = encoded(data.draw(st.binary(max_size=200)))
    key = ADA.passkey
    if name == "public_key":
        key = Passkey(key.credential_id, junk, key.origin)
    else:
        good = msgspec.structs.replace(good, **{name: junk})
    with pytest.raises(PasskeyRefused):
        passkey.verify(good, DOCUMENT, key)
