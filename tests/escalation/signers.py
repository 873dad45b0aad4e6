"""People who sign in tests: with real SSH keys made by ssh-keygen, and with passkeys made in software."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from fido2 import cbor
from fido2.cose import ES256, EdDSA
from fido2.webauthn import AuthenticatorData

from escalation.model import PasskeySignature, SshSignature
from escalation.signing import approvers, passkey
from escalation.signing.passkey import Passkey
from escalation.signing.sshsig import PLACES, Keygen

KEYGEN = Keygen(PLACES[0])
ORIGIN = "https://queue.example"
PRESENT, VERIFIED, EXTENDED = 0x01, 0x04, 0x80


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@dataclass(frozen=True)
class SshKey:
    """A key pair in files, as ssh-keygen makes it."""

    path: Path

    @staticmethod
    def made(path: Path, kind: str = "ed25519") -> SshKey:
        command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", str(path)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return SshKey(path)

    @property
    def public(self) -> str:
        return self.path.with_suffix(".pub").read_text(encoding="ascii").strip()

    def line(self, person: str, options: str = "") -> str:
        return f"{person} {options + ' ' if options else ''}{self.public}\n"

    def sign(self, document: str) -> SshSignature:
        return KEYGEN.sign(document, key=self.path, environment=os.environ)

    def sign_for(self, namespace: str, document: str) -> SshSignature:
        command = ["ssh-keygen", "-Y", "sign", "-n", namespace, "-f", str(self.path)]
        done = subprocess.run(command, input=document.encode(), capture_output=True, check=True)
        return SshSignature(done.stdout.decode())


@dataclass(frozen=True)
class Authenticator:
    """An authenticator in software: what it makes are the bytes that a real one makes."""

    origin: str = ORIGIN
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    credential: bytes = field(default_factory=lambda: os.urandom(32))

    @property
    def passkey(self) -> Passkey:
        kind = ES256 if isinstance(self.key, ec.EllipticCurvePrivateKey) else EdDSA
        cose = cbor.encode(dict(kind.from_cryptography_key(self.key.public_key())))
        return Passkey(encoded(self.credential), encoded(cose), self.origin)

    def line(self, person: str) -> str:
        return approvers.line_of(person, self.passkey) + "\n"

    def sign(
        self,
        document: str,
        *,
        flags: int = PRESENT | VERIFIED,
        domain: str | None = None,
        kind: str = "webauthn.get",
        origin: str | None = None,
        crossed: bool = False,
    ) -> PasskeySignature:
        client = json.dumps(
            {
                "type": kind,
                "challenge": encoded(passkey.challenge_of(document)),
                "origin": origin or self.origin,
                "crossOrigin": crossed,
            }
        ).encode()
        rp_hash = hashlib.sha256((domain or self.passkey.domain).encode()).digest()
        extensions = {"uvm": [[2, 4, 2]]} if flags & EXTENDED else None
        data = bytes(
            AuthenticatorData.create(rp_hash, AuthenticatorData.FLAG(flags), 7, extensions=extensions)
        )
        message = data + hashlib.sha256(client).digest()
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            proof = self.key.sign(message, ec.ECDSA(hashes.SHA256()))
        else:
            proof = self.key.sign(message)
        return PasskeySignature(
            credential_id=encoded(self.credential),
            client_data=encoded(client),
            authenticator_data=encoded(data),
            signature=encoded(proof),
        )
