"""Certificates: what is issued is exactly what TLS and our own checks accept, and nothing is overwritten."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from escalation.pki import (
    Issued,
    PkiError,
    agent_id_of,
    create_authority,
    inspect,
    issue_agent,
    issue_orchestrator,
    renew,
)

NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_authority(tmp_path / "pki", now=NOW)
    return tmp_path / "pki"


def _crafted(*names: x509.GeneralName, ca: bool = False) -> bytes:
    """Return a self-signed certificate with any alternative names, as DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "spiffe://nanobot.local/nanobot/agent/a")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _assert_openssl_accepts(issued: Issued, folder: Path, purpose: str) -> None:
    options = ["-x509_strict", "-purpose", purpose, "-attime", str(int(NOW.timestamp()))]
    command = ["openssl", "verify", *options, "-CAfile", folder / "ca.crt", issued.certificate]
    verified = subprocess.run(command, capture_output=True, check=False)
    assert verified.returncode == 0, verified.stderr.decode()


def test_an_agents_certificate_names_its_host(folder: Path) -> None:
    """One URI of our trust domain, ninety days, for a client only, and openssl agrees with the chain."""
    issued = issue_agent(folder, host="spark-a", now=NOW)
    facts = inspect(issued.certificate)
    assert facts == issued.facts
    assert (facts.agent_id, facts.trust_domain) == ("spark-a", "nanobot.local")
    assert facts.uris == ("spiffe://nanobot.local/nanobot/agent/spark-a",)
    assert facts.not_after == NOW + 90 * DAY
    assert not facts.authority
    assert agent_id_of(issued.certificate.read_bytes(), trust_domain="nanobot.local") == "spark-a"
    _assert_openssl_accepts(issued, folder, "sslclient")


def test_the_orchestrators_certificate_has_what_agents_dial(folder: Path) -> None:
    """DNS names and addresses, for a server only; it names no agent."""
    issued = issue_orchestrator(
        folder, names=["orchestrator.mesh"], addresses=["100.64.0.1", "fd7a::1"], now=NOW
    )
    assert issued.facts.names == ("orchestrator.mesh",)
    assert issued.facts.addresses == ("100.64.0.1", "fd7a::1")
    assert issued.facts.agent_id is None
    with pytest.raises(PkiError, match="names no agent"):
        agent_id_of(issued.certificate.read_bytes(), trust_domain="nanobot.local")
    _assert_openssl_accepts(issued, folder, "sslserver")


def test_keys_are_private_from_their_first_moment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the umask, no key file ever had a mode wider than 0600; certificates can be read."""
    created: list[int] = []
    real = os.open

    def watched(path: str, flags: int, mode: int = 0o777, **rest: int) -> int:
        if flags & os.O_CREAT:
            created.append(mode)
        return real(path, flags, mode, **rest)

    monkeypatch.setattr(os, "open", watched)
    before = os.umask(0)
    try:
        issued = issue_agent(folder, host="spark-a", now=NOW)
    finally:
        os.umask(before)
    assert created == [0o600, 0o600]
    assert issued.key.stat().st_mode & 0o777 == 0o600
    assert issued.certificate.stat().st_mode & 0o777 == 0o644
    assert not [each for each in folder.iterdir() if each.name.startswith(".")]


def test_an_authority_is_never_overwritten(folder: Path) -> None:
    """A second init is refused, also where only the key is left, and leaves are not issued over others."""
    key = (folder / "ca.key").read_bytes()
    with pytest.raises(PkiError, match=r"ca\.crt: exists; an authority is never overwritten"):
        create_authority(folder, now=NOW)
    (folder / "ca.crt").rename(folder / "elsewhere.crt")
    with pytest.raises(PkiError, match=r"ca\.key: exists"):
        create_authority(folder, now=NOW)
    (folder / "elsewhere.crt").rename(folder / "ca.crt")
    assert (folder / "ca.key").read_bytes() == key
    issue_agent(folder, host="spark-a", now=NOW)
    with pytest.raises(PkiError, match=r"spark-a\.crt: exists; renew it"):
        issue_agent(folder, host="spark-a", now=NOW)
    with pytest.raises(PkiError, match="its files would be the authority's"):
        issue_agent(folder, host="ca", now=NOW)


@pytest.mark.parametrize("host", ["", "Spark", "a b", "a/b", "..", "-a", "a" * 64, "ü", "a\n", "a/../b"])
def test_a_name_that_is_no_host_is_refused(folder: Path, host: str) -> None:
    """A host's name is part of a URI and of a file's name; only what is safe in both is taken."""
    with pytest.raises(PkiError, match="is not a lower-case host name"):
        issue_agent(folder, host=host, now=NOW)


def test_names_that_nobody_can_dial_are_refused(folder: Path, tmp_path: Path) -> None:
    """Bad DNS names, addresses and trust domains are named."""
    for names, addresses, complaint in (
        ((), (), "needs a DNS name or an IP address"),
        (("a b",), (), "name 'a b': is not"),
        (("a..b",), (), "is not a lower-case DNS name"),
        (("*",), (), "is not a lower-case DNS name"),
        ((), ("300.1.1.1",), "address '300.1.1.1': is not an IP address"),
    ):
        with pytest.raises(PkiError, match=complaint):
            issue_orchestrator(folder, names=names, addresses=addresses, now=NOW)
    with pytest.raises(PkiError, match="trust domain 'A/b'"):
        create_authority(tmp_path / "other", now=NOW, trust_domain="A/b")


def test_renews_when_a_third_of_its_life_is_left(folder: Path) -> None:
    """Not before, unless forced; the names and the key stay, and only the certificate's file changes."""
    issued = issue_agent(folder, host="spark-a", now=NOW)
    key = issued.key.read_bytes()
    assert renew(issued.certificate, authority=folder, now=NOW + 59 * DAY) is None
    later = renew(issued.certificate, authority=folder, now=NOW + 61 * DAY)
    assert later is not None
    assert later.facts.not_after == NOW + 151 * DAY
    assert later.facts.uris == issued.facts.uris
    assert later.facts.serial != issued.facts.serial
    assert issued.key.read_bytes() == key
    forced = renew(issued.certificate, authority=folder, now=NOW + 62 * DAY, force=True)
    assert forced is not None
    assert inspect(issued.certificate) == forced.facts
    assert agent_id_of(issued.certificate.read_bytes(), trust_domain="nanobot.local") == "spark-a"


def test_a_leaf_never_outlives_its_authority(tmp_path: Path) -> None:
    """The last leaf ends with the authority; after that nothing is issued."""
    create_authority(tmp_path, now=NOW, days=30)
    issued = issue_agent(tmp_path, host="a", now=NOW)
    assert issued.facts.not_after == NOW + 30 * DAY
    with pytest.raises(PkiError, match="the authority expired on 2026-12-21"):
        renew(issued.certificate, authority=tmp_path, now=NOW + 31 * DAY)


def test_renewal_refuses_what_is_not_its_own(folder: Path, tmp_path: Path) -> None:
    """A stranger's leaf, the authority itself, a swapped key and an open key are refused by name."""
    other = tmp_path / "other"
    create_authority(other, now=NOW)
    stranger: Issued = issue_agent(other, host="a", now=NOW)
    with pytest.raises(PkiError, match=r"a\.crt: was not issued by this authority"):
        renew(stranger.certificate, authority=folder, now=NOW, force=True)
    with pytest.raises(PkiError, match=r"ca\.crt: is an authority"):
        renew(folder / "ca.crt", authority=folder, now=NOW, force=True)
    mine = issue_agent(folder, host="b", now=NOW)
    mine.key.write_bytes(stranger.key.read_bytes())
    with pytest.raises(PkiError, match=r"b\.key: does not belong to .*b\.crt"):
        renew(mine.certificate, authority=folder, now=NOW, force=True)
    mine.key.chmod(0o640)
    with pytest.raises(PkiError, match=r"b\.key: can be read by others \(mode 0640\); make it 0600"):
        renew(mine.certificate, authority=folder, now=NOW, force=True)
    with pytest.raises(PkiError, match=r"no\.crt: cannot be read: No such file"):
        inspect(folder / "no.crt")
    (folder / "junk.crt").write_bytes(b"\x30\x82junk")
    with pytest.raises(PkiError, match=r"junk\.crt: is not a certificate"):
        inspect(folder / "junk.crt")


URI = x509.UniformResourceIdentifier
GOOD = "spiffe://nanobot.local/nanobot/agent/a"


@pytest.mark.parametrize(
    ("certificate", "complaint"),
    [
        (_crafted(), "has 0 URIs, must have one"),
        (_crafted(x509.DNSName("a")), "has 0 URIs, must have one"),
        (_crafted(URI(GOOD), URI(GOOD + "b")), "has 2 URIs, must have one"),
        (_crafted(URI(GOOD), URI("https://x/")), "has 2 URIs, must have one"),
        (_crafted(URI(GOOD), ca=True), "names no agent"),
        (_crafted(URI("https://nanobot.local/nanobot/agent/a")), "names no agent"),
        (_crafted(URI("spiffe://nanobot.local/nanobot/agent/")), "names no agent"),
        (_crafted(URI("spiffe://nanobot.local/nanobot/agent/A")), "names no agent"),
        (_crafted(URI("spiffe://nanobot.local/nanobot/agent/a/b")), "names no agent"),
        (_crafted(URI("spiffe://nanobot.local/nanobot/agent/a?b")), "names no agent"),
        (_crafted(URI("spiffe://nanobot.local/nanobot/agent/a%2e")), "names no agent"),
        (_crafted(URI("spiffe://nanobot.local/nanobot/agent/a\n")), "names no agent"),
        (_crafted(URI("spiffe://nanobot.local/nanobot/orchestrator")), "names no agent"),
        (_crafted(URI("spiffe://user@nanobot.local/nanobot/agent/a")), "names no agent"),
        (_crafted(URI("spiffe://evil.local/nanobot/agent/a")), "is of trust domain 'evil.local'"),
        (b"nonsense", "is not a certificate"),
        (b"", "is not a certificate"),
    ],
)
def test_a_peer_that_does_not_name_exactly_one_agent_is_refused(certificate: bytes, complaint: str) -> None:
    """Only one URI, of exactly the right form, names an agent; the subject's name counts for nothing."""
    with pytest.raises(PkiError, match=complaint):
        agent_id_of(certificate, trust_domain="nanobot.local")
