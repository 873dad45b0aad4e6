"""The approvers' file: whose keys may sign approvals, as the administrator of a machine wrote it down.

Lines as in OpenSSH's allowed_signers (ssh-keygen(1), ALLOWED SIGNERS), with persons' names as principals, and
one more kind for passkeys::

    ada namespaces="nanobot-approval" ssh-ed25519 AAAA...
    ada webauthn CREDENTIAL_ID PUBLIC_KEY https://queue.example [RP_ID]

It is worth as much as it is hard to change: `read` takes it only from root (or whom the caller names), and
through folders that nobody else can change. Certificates are not taken: which key signed would be the
authority's to say, and here it has to be on the line. Nor are patterns of names, and options that ssh-keygen
would not understand: it passes over such a line in silence, and the key counts for nothing.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from escalation.inert import shown
from escalation.signing.passkey import Passkey, PasskeyRefused, public_key

ROOT: Final = frozenset({0})

_LIMIT_BYTES: Final = 1024 * 1024
_SSH: Final = re.compile(
    r'(?P<principals>"[^"]+"|[^\s"]+)\s+'
    r'(?:(?P<options>(?:[^\s"]|"[^"]*")+)\s+)?'
    r"(?P<kind>(?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-z0-9@.-]+)\s+(?P<key>[A-Za-z0-9+/]+={0,2})(?:\s.*)?"
)
_OPTION: Final = r'(?:namespaces="[^"]+"|valid-(?:after|before)="[0-9]{8}(?:[0-9]{4}(?:[0-9]{2})?)?Z?")'
_OPTIONS: Final = re.compile(rf"{_OPTION}(?:,{_OPTION})*", re.IGNORECASE)
_ONCE: Final = ("namespaces=", "valid-after=", "valid-before=")
_PATTERN: Final = frozenset("*?!")
_NO_NAME: Final = frozenset('*?!,"')


class ApproversError(Exception):
    """An approvers' file that cannot be used; the message names the file and the line."""


@dataclass(frozen=True, slots=True)
class Approvers:
    """Who may sign with what: SSH keys as their lines, passkeys by person, and keys that count no more.

    `revoked` is what `ssh-keygen -r` takes: public keys, one a line, or a key revocation list.
    """

    ssh: str = ""
    passkeys: tuple[tuple[str, Passkey], ...] = ()
    revoked: bytes = b""

    def passkey(self, person: str, credential_id: str) -> Passkey | None:
        """Return the person's passkey with this id."""
        own = (key for name, key in self.passkeys if name == person)
        return next((key for key in own if key.credential_id == credential_id), None)


def parse(text: str, *, name: str) -> Approvers:
    """Read the lines of an approvers' file; `name` stands for it in errors."""
    ssh: list[str] = []
    passkeys: list[tuple[str, Passkey]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        fields = stripped.split()
        try:
            if len(fields) > 1 and fields[1] == "webauthn":
                passkeys.append(_passkey(fields))
            else:
                _check_ssh(stripped)
                ssh.append(stripped)
        except ValueError as error:
            raise ApproversError(f"{name}:{number}: {error}") from error
    ids = [(person, key.credential_id) for person, key in passkeys]
    if twice := sorted({person for person, _ in (each for each in ids if ids.count(each) > 1)}):
        raise ApproversError(f"{name}: a passkey of {shown(twice[0])} is there twice")
    return Approvers("".join(f"{line}\n" for line in ssh), tuple(passkeys))


def line_of(person: str, key: Passkey) -> str:
    """Return the line of a person's passkey."""
    return " ".join((person, "webauthn", key.credential_id, key.public_key, key.origin, key.rp_id)).rstrip()


def read(path: Path, *, revoked: Path | None = None, owners: AbstractSet[int] = ROOT) -> Approvers:
    """Read the file and, beside it, the revoked keys; raise ApproversError, also when others can change it.

    `owners` are the users to whom it and every folder on the way may belong.
    """
    try:
        text = _trusted(path, owners).decode()
    except UnicodeDecodeError as error:
        raise ApproversError(f"{path}: is not UTF-8 text") from error
    found = parse(text, name=str(path))
    if revoked is None:
        return found
    return Approvers(found.ssh, found.passkeys, _trusted(revoked, owners))


def _trusted(path: Path, owners: AbstractSet[int]) -> bytes:
    try:
        real = path.resolve(strict=True)
        for folder in real.parents:
            status = folder.stat()
            _check_owner(folder, status, owners, sticky=bool(status.st_mode & stat.S_ISVTX))
        descriptor = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except (OSError, RuntimeError) as error:
        raise ApproversError(
            f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ApproversError(f"{path}: is not a regular file")
        _check_owner(path, status, owners)
        if os.geteuid() not in owners and os.access(real, os.W_OK):
            raise ApproversError(f"{path}: this program could change it; nobody but its owner may")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(_LIMIT_BYTES + 1)
    except OSError as error:
        raise ApproversError(f"{path}: cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(content) > _LIMIT_BYTES:
        raise ApproversError(f"{path}: is longer than {_LIMIT_BYTES} bytes")
    return content


def _check_owner(
    path: Path, status: os.stat_result, owners: AbstractSet[int], *, sticky: bool = False
) -> None:
    if status.st_uid not in owners:
        wanted = "root" if owners == ROOT else "root or you"
        raise ApproversError(f"{path}: belongs to user {status.st_uid}; it has to belong to {wanted}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
        mode = stat.S_IMODE(status.st_mode)
        raise ApproversError(f"{path}: others can change it (mode {mode:04o}); chmod go-w {path}")


def _check_ssh(line: str) -> None:
    found = _SSH.fullmatch(line)
    if found is None:
        raise ValueError("is no line of an allowed signer: NAME [OPTIONS] KEYTYPE KEY, or NAME webauthn ...")
    options = (found["options"] or "").lower()
    if "cert-authority" in options or "-cert-" in found["kind"]:
        raise ValueError("certificates are not taken; write the key itself")
    if _PATTERN & set(found["principals"]):
        raise ValueError("a pattern is nobody's name; write each person whose key it is")
    if options and (_OPTIONS.fullmatch(options) is None or any(options.count(each) > 1 for each in _ONCE)):
        raise ValueError(
            'the options are namespaces="...", valid-after="YYYYMMDD" and valid-before="YYYYMMDD", each once '
            "and with commas between"
        )
    try:
        blob = base64.b64decode(found["key"], validate=True)
    except binascii.Error as error:
        raise ValueError("the key is not base64") from error
    kind = found["kind"].encode()
    if blob[: 4 + len(kind)] != len(kind).to_bytes(4, "big") + kind:
        raise ValueError(f"the key is not of the type {found['kind']}")


def _passkey(fields: list[str]) -> tuple[str, Passkey]:
    if len(fields) not in {5, 6}:
        raise ValueError("a passkey's line is: NAME webauthn CREDENTIAL_ID PUBLIC_KEY ORIGIN [RP_ID]")
    person, _, credential_id, key, origin, *rest = fields
    if _NO_NAME & set(person):
        raise ValueError("a passkey is one person's, by their name")
    try:
        public_key(key)
    except PasskeyRefused as error:
        raise ValueError(str(error)) from error
    parts = urlsplit(origin)
    bare = parts.scheme and parts.hostname and origin == f"{parts.scheme}://{parts.netloc}"
    if not bare or (parts.scheme != "https" and parts.hostname != "localhost"):
        raise ValueError(f"{shown(origin)} is no origin, such as https://queue.example")
    return person, Passkey(credential_id, key, origin, *rest)
