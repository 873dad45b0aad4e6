"""TLS credentials for both ends, read from files that may be replaced while in use.

Mutual TLS always: there is no other kind here. gRPC offers no setting for the lowest TLS version in Python
(it accepts 1.2 and prefers 1.3), so two ends of ours speak 1.3; a test holds that.

Error tree: `CredentialsError`.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc


class CredentialsError(Exception):
    """A certificate or key that cannot be read; the message names the file."""


@dataclass(frozen=True, slots=True)
class Files:
    """Where the authority's certificate, the own certificate and its key are."""

    authority: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Pems:
    """The contents of `Files`, kept out of every `repr`."""

    authority: bytes
    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return f"<Pems {self.digest}>"

    @property
    def digest(self) -> str:
        """Changes when any of the three does."""
        whole = b"\0".join((self.authority, self.certificate, self.key))
        return hashlib.blake2b(whole, digest_size=8).hexdigest()


def read(files: Files) -> Pems:
    """Return what is in `files` now; raise CredentialsError naming the first that cannot be used."""
    found = []
    for path, begins in (
        (files.authority, b"-----BEGIN CERTIFICATE-----"),
        (files.certificate, b"-----BEGIN CERTIFICATE-----"),
        (files.key, b"-----BEGIN "),
    ):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise CredentialsError(f"{path}: cannot be read: {error.strerror}") from error
        if not content.lstrip().startswith(begins):
            raise CredentialsError(f"{path}: is not PEM")
        found.append(content)
    return Pems(*found)


def check(files: Files) -> None:
    """Raise CredentialsError when certificate and key do not fit together or a file is something else.

    gRPC would only fail every handshake. (`ssl` costs nothing here: asyncio has loaded it.)
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(files.authority)
    except (ssl.SSLError, OSError) as error:
        raise CredentialsError(f"{files.authority}: is not an authority's certificate") from error
    try:
        context.load_cert_chain(files.certificate, files.key, password="")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise CredentialsError(f"{files.certificate}: does not fit {files.key}") from error


def for_client(pems: Pems) -> grpc.ChannelCredentials:
    """Return a client's credentials: it trusts the authority, and shows its own certificate."""
    return grpc.ssl_channel_credentials(
        root_certificates=pems.authority, private_key=pems.key, certificate_chain=pems.certificate
    )


def for_server(files: Files, *, note: Callable[[str], None]) -> grpc.ServerCredentials:
    """Return a server's credentials: every client needs a certificate of the authority.

    The files are read again at each handshake, so that a renewed certificate serves from the next connection
    on, without a restart. Files that cannot be used then leave the ones before in force; `note` is told once
    per failure, and again (with an empty text) when they can be used.
    """
    check(files)
    reload = _Reload(files, read(files), note)
    return grpc.dynamic_ssl_server_credentials(
        _configuration(reload.current),
        cast("Any", reload.fetch),  # None means "no change"; the stub does not know that
        require_client_authentication=True,
    )


class _Reload:
    def __init__(self, files: Files, current: Pems, note: Callable[[str], None]) -> None:
        self._files = files
        self._note = note
        self._complaint = ""
        self.current = current

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the new configuration, None for no change; gRPC calls this from its own thread."""
        try:
            pems = read(self._files)
        except CredentialsError as error:
            self._tell(str(error))
            return None
        if pems == self.current:
            self._tell("")
            return None
        try:
            check(self._files)
        except CredentialsError as error:
            self._tell(str(error))
            return None
        self._tell("")
        self.current = pems
        return _configuration(pems)

    def _tell(self, complaint: str) -> None:
        if complaint != self._complaint:
            self._complaint = complaint
            self._note(complaint)


def _configuration(pems: Pems) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(pems.key, pems.certificate)], root_certificates=pems.authority
    )
