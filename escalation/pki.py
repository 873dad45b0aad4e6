"""Certificates for people who have no authority of their own: one authority, and leaves for both ends.

A folder holds ``ca.crt`` and ``ca.key``, and for each leaf ``<name>.crt`` and ``<name>.key`` (ECDSA P-256).
Keys are never readable by others, not for a moment, and no file is ever half written. A renewed leaf keeps
its key: a certificate and a key that are replaced one after the other do not fit together in between, and
who reads them then is refused.

An agent is named by one URI, ``spiffe://<trust domain>/nanobot/agent/<host>``.

Error tree: `PkiError`.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from escalation.model import AGENT_ID, AgentId

DEFAULT_TRUST_DOMAIN: Final = "nanobot.local"
AUTHORITY_DAYS: Final = 3650
LEAF_DAYS: Final = 90

_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9]([a-z0-9._-]{0,253}[a-z0-9])?")
_DNS_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
)
_BACKDATED: Final = dt.timedelta(minutes=5)
"""Clocks of two hosts differ a little; a leaf that is not valid yet would be refused."""


class PkiError(Exception):
    """A certificate or key that cannot be made, read or used; the message names the file or the name."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key on disk."""

    certificate: Path
    key: Path
    facts: Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a certificate says. `agent_id` is None unless it names one agent; times are aware, UTC."""

    subject: str
    serial: str
    authority: bool
    agent_id: AgentId | None
    trust_domain: str | None
    names: tuple[str, ...]
    addresses: tuple[str, ...]
    uris: tuple[str, ...]
    not_before: dt.datetime
    not_after: dt.datetime

    def renewal_due(self, now: dt.datetime) -> bool:
        """Return whether a third of its life or less is left."""
        return self.not_after - now <= (self.not_after - self.not_before) / 3


def create_authority(
    folder: Path,
    *,
    now: dt.datetime,
    trust_domain: str = DEFAULT_TRUST_DOMAIN,
    days: int = AUTHORITY_DAYS,
) -> Issued:
    """Make an authority in `folder`; raise PkiError when there is one, whatever its state."""
    if _TRUST_DOMAIN.fullmatch(trust_domain) is None:
        raise PkiError(f"trust domain {trust_domain!r}: is not a lower-case DNS name")
    certificate, key_path = folder / "ca.crt", folder / "ca.key"
    for path in (certificate, key_path):
        if os.path.lexists(path):
            raise PkiError(f"{path}: exists; an authority is never overwritten")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PkiError(f"{folder}: cannot be made: {error.strerror}") from error
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Nanobot {trust_domain}"[:64])])
    built = (
        _builder(name, key.public_key(), issuer=name, now=now, until=now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    _write(key_path, _key_pem(key), mode=0o600, replace=False)
    _write(certificate, built.public_bytes(serialization.Encoding.PEM), mode=0o644, replace=False)
    return Issued(certificate, key_path, _facts(built))


def issue_agent(
    folder: Path, *, host: str, now: dt.datetime, days: int = LEAF_DAYS, into: Path | None = None
) -> Issued:
    """Issue the certificate of the agent on `host` by the authority in `folder`, to `into` or there."""
    if AGENT_ID.fullmatch(host) is None:
        raise PkiError(f"host {host!r}: is not a lower-case host name of at most 63 characters")
    authority = _Authority.load(folder)
    uri = f"spiffe://{authority.trust_domain}/nanobot/agent/{host}"
    return authority.issue(
        into or folder,
        host,
        [x509.UniformResourceIdentifier(uri)],
        ExtendedKeyUsageOID.CLIENT_AUTH,
        now=now,
        days=days,
    )


def issue_orchestrator(
    folder: Path,
    *,
    names: Sequence[str],
    addresses: Sequence[str],
    now: dt.datetime,
    days: int = LEAF_DAYS,
    into: Path | None = None,
) -> Issued:
    """Issue the orchestrator's certificate for the DNS `names` and IP `addresses` that agents dial."""
    if not names and not addresses:
        raise PkiError("an orchestrator's certificate needs a DNS name or an IP address that agents dial")
    for name in names:
        if _DNS_NAME.fullmatch(name) is None:
            raise PkiError(f"name {name!r}: is not a lower-case DNS name")
    alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
    for address in addresses:
        try:
            alternatives.append(x509.IPAddress(ipaddress.ip_address(address)))
        except ValueError as error:
            raise PkiError(f"address {address!r}: is not an IP address") from error
    authority = _Authority.load(folder)
    uri = f"spiffe://{authority.trust_domain}/nanobot/orchestrator"
    alternatives.append(x509.UniformResourceIdentifier(uri))
    return authority.issue(
        into or folder, "orchestrator", alternatives, ExtendedKeyUsageOID.SERVER_AUTH, now=now, days=days
    )


def renew(
    certificate: Path, *, authority: Path, now: dt.datetime, force: bool = False, days: int = LEAF_DAYS
) -> Issued | None:
    """Renew a leaf in place, names and key unchanged; None when more than a third of its life is left.

    The authority's own certificate, and a leaf of another authority, are refused.
    """
    old = _load_certificate(certificate)
    issuer = _Authority.load(authority)
    issuer.check_issued(old, certificate)
    if not force and not _facts(old).renewal_due(now):
        return None
    key_path = certificate.with_suffix(".key")
    key = _load_key(key_path)
    if key.public_key() != old.public_key():
        raise PkiError(f"{key_path}: does not belong to {certificate}")
    built = issuer.sign(
        old.subject,
        key,
        old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value,
        old.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value,
        until=_until(issuer.certificate, now, days),
        now=now,
    )
    _write(certificate, built.public_bytes(serialization.Encoding.PEM), mode=0o644, replace=True)
    return Issued(certificate, key_path, _facts(built))


def inspect(certificate: Path) -> Facts:
    """Return what the certificate at `certificate` says; raise PkiError."""
    return _facts(_load_certificate(certificate))


def agent_id_of(certificate: bytes, *, trust_domain: str) -> AgentId:
    """Return the agent that a peer's certificate (PEM or DER) names; raise PkiError.

    It must have exactly one URI, of exactly the right form and trust domain. That the certificate was signed
    by our authority and is in its time is for TLS to check, and is not checked here.
    """
    parsed = _parse(certificate, "the peer's certificate")
    facts = _facts(parsed)
    if len(facts.uris) != 1:
        raise PkiError(f"the peer's certificate: has {len(facts.uris)} URIs, must have one")
    if facts.agent_id is None or facts.authority:
        raise PkiError(f"the peer's certificate: {facts.uris[0][:300]!r} names no agent")
    if facts.trust_domain != trust_domain:
        raise PkiError(
            f"the peer's certificate: is of trust domain {facts.trust_domain!r}, not {trust_domain!r}"
        )
    return facts.agent_id


@dataclass(frozen=True, slots=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    trust_domain: str

    @classmethod
    def load(cls, folder: Path) -> _Authority:
        certificate = _load_certificate(folder / "ca.crt")
        key = _load_key(folder / "ca.key")
        facts = _facts(certificate)
        if key.public_key() != certificate.public_key():
            raise PkiError(f"{folder / 'ca.key'}: does not belong to {folder / 'ca.crt'}")
        if not facts.authority or facts.trust_domain is None:
            raise PkiError(f"{folder / 'ca.crt'}: is not an authority with a trust domain")
        return cls(certificate, key, facts.trust_domain)

    def issue(
        self,
        folder: Path,
        name: str,
        alternatives: Sequence[x509.GeneralName],
        purpose: x509.ObjectIdentifier,
        *,
        now: dt.datetime,
        days: int,
    ) -> Issued:
        if name == "ca":
            raise PkiError("host 'ca': its files would be the authority's; give it another name")
        certificate_path, key_path = folder / f"{name}.crt", folder / f"{name}.key"
        if os.path.lexists(key_path) or os.path.lexists(certificate_path):
            raise PkiError(f"{certificate_path}: exists; renew it, or remove it and its key first")
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.sign(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])]),
            key,
            x509.SubjectAlternativeName(alternatives),
            x509.ExtendedKeyUsage([purpose]),
            until=_until(self.certificate, now, days),
            now=now,
        )
        _write(key_path, _key_pem(key), mode=0o600, replace=False)
        _write(
            certificate_path, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644, replace=False
        )
        return Issued(certificate_path, key_path, _facts(certificate))

    def sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        alternatives: x509.SubjectAlternativeName,
        purpose: x509.ExtendedKeyUsage,
        *,
        until: dt.datetime,
        now: dt.datetime,
    ) -> x509.Certificate:
        return (
            _builder(subject, key.public_key(), issuer=self.certificate.subject, now=now, until=until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(purpose, critical=False)
            .add_extension(alternatives, critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )

    def check_issued(self, leaf: x509.Certificate, path: Path) -> None:
        if _facts(leaf).authority:
            raise PkiError(f"{path}: is an authority; a new one is made by init, and its leaves issued again")
        try:
            leaf.verify_directly_issued_by(self.certificate)
        except (InvalidSignature, ValueError, TypeError) as error:
            raise PkiError(f"{path}: was not issued by this authority") from error


def _builder(
    subject: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    *,
    issuer: x509.Name,
    now: dt.datetime,
    until: dt.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _until(authority: x509.Certificate, now: dt.datetime, days: int) -> dt.datetime:
    """Return the end of a leaf's life, never after its authority's."""
    last = authority.not_valid_after_utc
    if last <= now:
        raise PkiError(f"the authority expired on {last:%Y-%m-%d}; make a new one and issue its leaves again")
    return min(now + dt.timedelta(days=days), last)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _facts(certificate: x509.Certificate) -> Facts:
    try:
        extensions = certificate.extensions
        subject = certificate.subject.rfc4514_string()
    except ValueError as error:
        raise PkiError("a certificate: its extensions or its subject cannot be read") from error
    authority = False
    uris: list[str] = []
    names: list[str] = []
    addresses: list[str] = []
    for extension in extensions:
        match extension.value:
            case x509.BasicConstraints(ca=ca):
                authority = ca
            case x509.SubjectAlternativeName() as found:
                uris = found.get_values_for_type(x509.UniformResourceIdentifier)
                names = found.get_values_for_type(x509.DNSName)
                addresses = [str(address) for address in found.get_values_for_type(x509.IPAddress)]
    trust_domain, path = _spiffe(uris[0]) if len(uris) == 1 else (None, "")
    host = path.removeprefix("nanobot/agent/")
    is_agent = host != path and AGENT_ID.fullmatch(host) is not None
    return Facts(
        subject=subject,
        serial=f"{certificate.serial_number:x}",
        authority=authority,
        agent_id=AgentId(host) if is_agent else None,
        trust_domain=trust_domain,
        names=tuple(names),
        addresses=tuple(addresses),
        uris=tuple(uris),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def _spiffe(uri: str) -> tuple[str | None, str]:
    """Return trust domain and path of a SPIFFE URI; None for anything else."""
    scheme, _, rest = uri.partition("://")
    trust_domain, _, path = rest.partition("/")
    if scheme != "spiffe" or _TRUST_DOMAIN.fullmatch(trust_domain) is None:
        return None, ""
    return trust_domain, path


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        return _parse(path.read_bytes(), str(path))
    except OSError as error:
        raise PkiError(f"{path}: cannot be read: {error.strerror}") from error


def _parse(raw: bytes, name: str) -> x509.Certificate:
    try:
        if raw.lstrip().startswith(b"-----BEGIN"):
            return x509.load_pem_x509_certificate(raw)
        return x509.load_der_x509_certificate(raw)
    except ValueError as error:
        raise PkiError(f"{name}: is not a certificate") from error


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read()
    except OSError as error:
        raise PkiError(f"{path}: cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise PkiError(f"{path}: can be read by others (mode {mode & 0o777:04o}); make it 0600")
    try:
        key = serialization.load_pem_private_key(raw, password=None)
    except (ValueError, TypeError) as error:
        raise PkiError(f"{path}: is not an unencrypted private key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PkiError(f"{path}: is not an elliptic-curve key")
    return key


def _write(path: Path, content: bytes, *, mode: int, replace: bool) -> None:
    """Write the whole file or nothing, never wider than `mode`; over an old file only to `replace` it."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                if mode != 0o600:
                    os.fchmod(file.fileno(), mode)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                temporary.replace(path)
            else:
                path.hardlink_to(temporary)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise PkiError(f"{path}: cannot be written: {error.strerror}") from error
