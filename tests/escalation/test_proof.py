"""What a log proves: any log is read, and nothing in one that is not a signature passes for it."""

from __future__ import annotations

import base64
import hashlib
import struct
from datetime import datetime

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given, strategies as st

from escalation.model import Signed, SshSignature
from escalation.server.desk import AuditEntry
from escalation.signing import approvers, proof, sshsig
from escalation.signing.approval import NAMESPACE
from escalation.signing.sshsig import SshRefused
from tests.escalation.signers import KEYGEN

_WORDS = st.sampled_from(
    ["digest=", "signed=", "reason=", "0" * 64, " ", "why", '{"document":', '"', "\ud800"]
)
_DETAILS = st.text(max_size=30) | st.lists(_WORDS, max_size=8).map("".join)
_ENTRIES = st.builds(
    AuditEntry,
    number=st.integers(0, 9),
    at_ns=st.integers(-(2**70), 2**70),
    actor=st.sampled_from(["ada", "", "a\u202eda"]),
    verb=st.sampled_from(
        [
            "recommendation.approved",
            "recommendation.approved_by_first",
            "recommendation.signed",
            "recommendation.condition_set_aside",
            "recommendation.rejected",
            "host.silent",
        ]
    ),
    object_id=st.sampled_from(["a", "b"]),
    detail=_DETAILS,
    previous=st.just(""),
    digest=st.just(""),
)


def _nobody(_signed: Signed, _person: str, _at: datetime) -> str:
    raise SshRefused("nobody's")


@given(st.lists(_ENTRIES, max_size=8), st.none() | st.integers(1, 9))
def test_any_log_is_read_and_none_of_it_counts_as_signed(
    log: list[AuditEntry], signed_from: int | None
) -> None:
    """Whatever stands in a log is named; without a right signature no decision has a key."""
    found = proof.decisions(log, key_of=_nobody, signed_from=signed_from)
    approved = [each for each in log if each.verb.startswith("recommendation.approved")]
    assert len(found) >= len(approved)
    assert all(each.key is None and each.words for each in found)


def test_a_security_keys_signature_is_taken() -> None:
    """A FIDO2 key's signature, made here as PROTOCOL.u2f has it, is right for ssh-keygen and named by it."""
    key = ed25519.Ed25519PrivateKey.generate()
    kind, application = b"sk-ssh-ed25519@openssh.com", b"ssh:"
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    public = _text(kind) + _text(raw) + _text(application)
    head = _text(NAMESPACE.encode()) + _text(b"") + _text(b"sha512")

    def signed(document: str, *, flags: int = 1) -> SshSignature:
        message = b"SSHSIG" + head + _text(hashlib.sha512(document.encode()).digest())
        counted = struct.pack(">BI", flags, 7)
        touched = hashlib.sha256(application).digest() + counted + hashlib.sha256(message).digest()
        proof_of_it = _text(kind) + _text(key.sign(touched)) + counted
        blob = b"SSHSIG" + struct.pack(">I", 1) + _text(public) + head + _text(proof_of_it)
        body = base64.encodebytes(blob).decode()
        return SshSignature(f"-----BEGIN SSH SIGNATURE-----\n{body}-----END SSH SIGNATURE-----\n")

    line = f"ada {kind.decode()} {base64.b64encode(public).decode()}\n"
    known = approvers.parse(line, name="approvers")
    name = KEYGEN.verify(signed("text"), "text", person="ada", approvers=known)
    assert name == sshsig.fingerprint(signed("text"))
    with pytest.raises(SshRefused, match="may not sign this for ada"):
        KEYGEN.verify(signed("another"), "text", person="ada", approvers=known)
    with pytest.raises(SshRefused, match="nobody touched the security key"):
        KEYGEN.verify(signed("text", flags=0), "text", person="ada", approvers=known)


def _text(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value
