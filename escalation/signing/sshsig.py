"""SSH signatures over approval documents: made and checked by OpenSSH's own ssh-keygen.

ssh-keygen knows agents, passphrases and security keys (`sk-` types), and its judgement of an allowed_signers
line is the one that administrators know; a second implementation would have to agree with it in every corner
(ssh-keygen(1), `-Y sign` and `-Y verify`; PROTOCOL.sshsig). It is called by its absolute path, with a list of
arguments and no shell; when it verifies, with an empty environment, the files in a folder of our own, and a
deadline. Only the name of the key is read here: which one signed is shown and kept.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from escalation.inert import shown
from escalation.model import SshSignature
from escalation.signing.approval import NAMESPACE
from escalation.signing.approvers import Approvers

PLACES: Final = tuple(
    map(Path, ("/usr/bin/ssh-keygen", "/usr/local/bin/ssh-keygen", "/opt/homebrew/bin/ssh-keygen"))
)

_VERIFY_WITHIN_S: Final = 10.0
_SIGN_WITHIN_S: Final = 120.0
"""A passphrase is typed, a security key is looked for and touched."""

_LONGEST_NAME: Final = 1000
"""A log may name anything as a person; what can be no argument of a program is nobody's name."""

_BEGIN: Final = "-----BEGIN SSH SIGNATURE-----"
_END: Final = "-----END SSH SIGNATURE-----"
_MAGIC: Final = b"SSHSIG"
_TOUCHED: Final = 0x01


class SshRefused(Exception):
    """The signature does not show that this person signed this document; the message says why."""


class KeygenError(Exception):
    """ssh-keygen is missing, did not answer, or could not sign; the message says what it said."""


@dataclass(frozen=True, slots=True)
class Keygen:
    """One ssh-keygen, by its absolute path."""

    path: Path

    def sign(
        self, document: str, *, key: Path, environment: Mapping[str, str], ask: bool = True
    ) -> SshSignature:
        """Return a signature by `key`: a private key, or the public half of one that an agent holds.

        What ssh-keygen asks (a passphrase, a touch) it asks at the terminal, which it has only when `ask`;
        `environment` says how to reach the agent.
        """
        try:
            done = subprocess.run(
                [str(self.path), "-Y", "sign", "-n", NAMESPACE, "-f", str(key)],
                input=document.encode(),
                stdout=subprocess.PIPE,
                env=dict(environment),
                timeout=_SIGN_WITHIN_S,
                start_new_session=not ask,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise KeygenError(f"{self.path} did not sign within {_SIGN_WITHIN_S:g} seconds") from error
        except OSError as error:
            raise KeygenError(f"{self.path} cannot be run: {error.strerror}") from error
        if done.returncode != 0:
            raise KeygenError(f"{self.path} could not sign with {key}")
        try:
            signature = SshSignature(done.stdout.decode("ascii"))
            fingerprint(signature)
        except (UnicodeDecodeError, SshRefused) as error:
            raise KeygenError(f"{self.path} printed no signature") from error
        return signature

    def verify(
        self,
        signature: SshSignature,
        document: str,
        *,
        person: str,
        approvers: Approvers,
        at: datetime | None = None,
    ) -> str:
        """Return the fingerprint of the key when `approvers` let it sign for `person`; raise SshRefused.

        `at` is when it was signed, for lines that are valid for a time (None: now; needs OpenSSH 9.1).
        """
        if "\0" in person or len(person) > _LONGEST_NAME:
            raise SshRefused("no person has such a name")
        name = fingerprint(signature)
        _check_touch(signature)
        with tempfile.TemporaryDirectory(prefix="nanobot-approval-") as folder:
            signers, proof, revoked = (Path(folder) / each for each in ("signers", "signature", "revoked"))
            signers.write_text(approvers.ssh, encoding="utf-8")
            proof.write_text(signature.armoured, encoding="ascii")
            command = [str(self.path), "-Y", "verify", "-n", NAMESPACE, "-I", person]
            command += ["-f", str(signers), "-s", str(proof)]
            if at is not None:
                command += ["-O", f"verify-time={at:%Y%m%d%H%M%S}Z"]
            if approvers.revoked:
                revoked.write_bytes(approvers.revoked)
                command += ["-r", str(revoked)]
            done = self._ask(command, document)
        if done.returncode != 0:
            raise SshRefused(f"{name} may not sign this for {shown(person)}{_why(done.stderr)}")
        # A signature may hold its key in more than one form (RFC 4251, mpint); ssh-keygen names it in one.
        if done.stdout.split()[-1:] != [name.encode()]:
            raise SshRefused("the signature holds its key in another form than the key has")
        return name

    def _ask(self, command: list[str], document: str) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                command,
                input=document.encode(),
                capture_output=True,
                env={"LC_ALL": "C"},
                timeout=_VERIFY_WITHIN_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise KeygenError(f"{self.path} did not answer within {_VERIFY_WITHIN_S:g} seconds") from error
        except OSError as error:
            raise KeygenError(f"{self.path} cannot be run: {error.strerror}") from error


def find() -> Keygen:
    """Return the ssh-keygen of this machine; raise KeygenError when there is none."""
    for path in PLACES:
        if path.is_file():
            return Keygen(path)
    raise KeygenError(f"there is no ssh-keygen (looked for {', '.join(map(str, PLACES))}): install OpenSSH")


def fingerprint(signature: SshSignature) -> str:
    """Return the name of the key that a signature says it is by, as ssh-keygen prints it; raise SshRefused.

    That the signature is right is for ssh-keygen to say.
    """
    key, _ = _key_and_proof(signature)
    digest = base64.b64encode(hashlib.sha256(key).digest()).rstrip(b"=").decode()
    return f"SHA256:{digest}"


def _check_touch(signature: SshSignature) -> None:
    """Refuse a security key's signature that nobody touched it for.

    sshd asks for the touch, ssh-keygen does not (PROTOCOL.u2f), and a FIDO2 key may be asked to sign without.
    """
    key, proof = _key_and_proof(signature)
    if not _Fields(key).text().startswith(b"sk-"):
        return
    fields = _Fields(proof)
    fields.text(), fields.text()  # the kind, and the signature itself
    if not fields.take(1)[0] & _TOUCHED:
        raise SshRefused("nobody touched the security key")


def _key_and_proof(signature: SshSignature) -> tuple[bytes, bytes]:
    fields = _Fields(_unarmoured(signature.armoured))
    if fields.take(len(_MAGIC)) != _MAGIC or fields.number() != 1:
        raise SshRefused("this is no SSH signature of a kind that is known here")
    key, namespace = fields.text(), fields.text()
    if namespace != NAMESPACE.encode():
        raise SshRefused("the signature was made for something else than an approval")
    if b"-cert-" in _Fields(key).text():
        raise SshRefused("signatures by certificates are not taken")
    fields.text(), fields.text()  # reserved, and how the document was digested
    return key, fields.text()


def _unarmoured(text: str) -> bytes:
    lines = text.strip().splitlines()
    if len(lines) < 3 or lines[0].strip() != _BEGIN or lines[-1].strip() != _END:
        raise SshRefused("this is no SSH signature in its armour")
    try:
        return base64.b64decode("".join(line.strip() for line in lines[1:-1]), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SshRefused("the armour of the SSH signature is broken") from error


class _Fields:
    """Takes the length-prefixed fields of an SSH message one after another."""

    def __init__(self, message: bytes) -> None:
        self._left = message

    def take(self, count: int) -> bytes:
        taken, self._left = self._left[:count], self._left[count:]
        if len(taken) != count:
            raise SshRefused("the SSH signature ends in its middle")
        return taken

    def number(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def text(self) -> bytes:
        return self.take(self.number())


def _why(said: bytes) -> str:
    """Return what ssh-keygen complained of, without the names of our files; it is silent for unknown keys."""
    lines = said.decode("utf-8", "replace").strip().splitlines()
    if not lines:
        return ": no line of the approvers' file allows it, or the key is revoked"
    words = lines[0].partition(": ")[2] if lines[0].startswith("/") else lines[0]
    return f": {shown(words, limit=200)}"
