"""What tests of a running orchestrator need: certificates, its files and ports, an agent's stream."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import itertools
import socket
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from escalation.model import AgentId, Body, BootId, Report
from escalation.server.supervision import Supervisor
from escalation.wire import codec

METHOD = "/nanobot.v1.EscalationService/Escalate"
TOKEN = "operator-token"
_NUMBERS = itertools.count(1)


class Authority:
    """A certificate authority with leaves for agents and the server."""

    def __init__(self, folder: Path, name: str = "test ca") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        ca = self._builder(self._name, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.ca = folder / "ca.crt"
        self.ca.write_bytes(ca.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def leaf(
        self, *uris: str, server: bool = False, valid_for: dt.timedelta = dt.timedelta(days=1)
    ) -> tuple[bytes, bytes]:
        """Return (key, certificate) of a leaf with these URI names, which ends `valid_for` from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
        usage = ExtendedKeyUsageOID.CLIENT_AUTH
        if server:
            names.append(x509.DNSName("localhost"))
            usage = ExtendedKeyUsageOID.SERVER_AUTH
        leaf = self._builder(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leaf")]), key.public_key(), valid_for
        ).add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names:
            leaf = leaf.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return (
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
            leaf.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
        )

    def agent(self, host: str) -> tuple[bytes, bytes]:
        """Return (key, certificate) of the agent on `host`."""
        return self.leaf(f"spiffe://nanobot.local/nanobot/agent/{host}")

    def _builder(
        self,
        name: x509.Name,
        key: ec.EllipticCurvePublicKey,
        valid_for: dt.timedelta = dt.timedelta(days=1),
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(next(_NUMBERS))
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + valid_for)
        )


@dataclass(frozen=True)
class Site:
    """Where an orchestrator of a test lives: its files and its ports."""

    authority: Authority
    folder: Path
    config_file: Path
    database: Path
    grpc_port: int
    http_port: int

    @property
    def url(self) -> str:
        """Return where people ask."""
        return f"http://127.0.0.1:{self.http_port}"

    def channel(self, credentials: tuple[bytes, bytes] | None, ca: bytes | None = None) -> grpc.aio.Channel:
        """Return a channel with this (key, certificate)."""
        key, certificate = credentials or (None, None)
        return grpc.aio.secure_channel(
            f"localhost:{self.grpc_port}",
            grpc.ssl_channel_credentials(
                ca or self.authority.ca.read_bytes(), private_key=key, certificate_chain=certificate
            ),
            options=(("grpc.enable_retries", 0),),
        )


def free_port() -> int:
    """Return a port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def written(authority: Authority, folder: Path, *, store: str, database: Path | None = None) -> Site:
    """Write the files of an orchestrator whose settings of the store are `store`; return where it lives."""
    folder.mkdir(exist_ok=True)
    key, certificate = authority.leaf("spiffe://nanobot.local/nanobot/orchestrator", server=True)
    (folder / "server.key").write_bytes(key)
    (folder / "server.crt").write_bytes(certificate)
    grpc_port, http_port = free_port(), free_port()
    config_file = folder / "orchestrator.toml"
    config_file.write_text(
        f"""
[grpc]
listen = "127.0.0.1:{grpc_port}"
certificate = "{folder}/server.crt"
key = "{folder}/server.key"
clients_ca = "{authority.ca}"
[http]
listen = "127.0.0.1:{http_port}"
[store]
{store}
[[person]]
name = "ada"
role = "operator"
token_sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}"
"""
    )
    return Site(authority, folder, config_file, database or folder / "none.db", grpc_port, http_port)


class Ready(Supervisor):
    """A supervisor that sets an event instead of telling systemd."""

    def __init__(self, event: asyncio.Event) -> None:
        super().__init__(address=None)
        self._event = event

    def notify(self, *lines: str) -> bool:
        """Set the event when the orchestrator says that it is ready."""
        if "READY=1" in lines:
            self._event.set()
        return True


def wired(
    body: Body,
    sequence: int,
    *,
    host: str = "spark-1",
    boot: str = "00000000-0000-4000-8000-000000000001",
    created_ns: int = 1_767_225_600_000_000_000,
) -> bytes:
    """Return a report as its bytes."""
    return codec.encode(
        Report(
            agent_id=AgentId(host),
            boot_id=BootId(boot),
            sequence=sequence,
            created_ns=created_ns,
            body=body,
        )
    )


async def escalate(channel: grpc.aio.Channel, *batches: bytes) -> list[codec.Committed]:
    """Send `batches` on one stream, end it, and return what was acknowledged; raise the status's error."""
    call = channel.stream_stream(METHOD)()
    for batch in batches:
        await call.write(batch)
    await call.done_writing()
    return [codec.decode_ack(ack) async for ack in call]
