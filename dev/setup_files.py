"""What a development run is configured with: ports, certificates, a person, and the parts' TOML files."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dev.folder import RunFolder, private_folder
from escalation import pki


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the parts listen, on loopback."""

    metrics: int
    grpc: int
    web: int

    @classmethod
    def from_first(cls, first: int) -> Ports:
        """Return three ports in a row."""
        return cls(first, first + 1, first + 2)

    @property
    def all(self) -> tuple[int, ...]:
        """Return them."""
        return (self.metrics, self.grpc, self.web)


@dataclass(frozen=True, slots=True)
class Files:
    """What was written, and what a person needs to look."""

    host: str
    url: str
    token: str
    token_file: Path
    agent: Path
    orchestrator: Path
    handover: Path
    logs: Path


@contextlib.contextmanager
def written(home: RunFolder, ports: Ports) -> Iterator[Files]:
    """Write everything below the run's folder; remove on exit what must not outlive the run."""
    with contextlib.ExitStack() as undo:
        logs = private_folder(home.path / "logs", None)
        for log in logs.glob("*.log"):
            log.unlink()
        # Not in the run's folder: a socket's path has at most 107 bytes, and a clone may lie deep.
        runtime = Path(tempfile.mkdtemp(prefix="nanobot-run-"))
        undo.callback(shutil.rmtree, runtime, ignore_errors=True)
        runtime.chmod(0o755)
        if home.agent is not None:
            os.chown(runtime, home.agent.uid, home.agent.gid)
        files = Files(
            host=host_name(socket.gethostname()),
            url=f"http://127.0.0.1:{ports.web}",
            token=secrets.token_urlsafe(32),
            token_file=home.path / "operator.token",
            agent=home.path / "agent.toml",
            orchestrator=home.path / "orchestrator.toml",
            handover=runtime / "handover.sock",
            logs=logs,
        )
        certificates = _certify(home, files.host)
        _readable_file(files.agent, _agent_toml(home, files, ports, certificates))
        _readable_file(files.orchestrator, _orchestrator_toml(home, files, ports, certificates))
        _private_file(files.token_file, files.token)
        undo.callback(files.token_file.unlink, missing_ok=True)
        _CTL.parent.mkdir(parents=True, exist_ok=True)
        _readable_file(_CTL, f"url = {_quoted(files.url)}\ntoken_file = {_quoted(files.token_file)}\n")
        undo.callback(_CTL.unlink, missing_ok=True)
        yield files


def host_name(name: str) -> str:
    """Return `name` as an agent id: lower case, letters, digits, dots and hyphens, 63 at most."""
    return re.sub(r"[^a-z0-9.-]+", "-", name.lower())[:63].strip(".-") or "localhost"


@dataclass(frozen=True, slots=True)
class _Certificates:
    authority: Path
    agent: pki.Issued
    orchestrator: pki.Issued


def _certify(home: RunFolder, host: str) -> _Certificates:
    """Make a fresh authority and both leaves; each key is readable by its own part only."""
    now = dt.datetime.now(dt.UTC)
    folders = {name: home.path / "pki" / name for name in ("authority", "agent", "orchestrator")}
    shutil.rmtree(home.path / "pki", ignore_errors=True)
    (home.path / "pki").mkdir(mode=0o755)
    (home.path / "pki").chmod(0o755)
    for name, owner in (("authority", None), ("agent", home.agent), ("orchestrator", home.orchestrator)):
        private_folder(folders[name], owner)
    authority = pki.create_authority(folders["authority"], now=now, days=30)
    agent = pki.issue_agent(folders["authority"], host=host, now=now, days=7, into=folders["agent"])
    orchestrator = pki.issue_orchestrator(
        folders["authority"],
        names=["localhost"],
        addresses=["127.0.0.1"],
        now=now,
        days=7,
        into=folders["orchestrator"],
    )
    for issued, owner in ((agent, home.agent), (orchestrator, home.orchestrator)):
        if owner is not None:
            os.chown(issued.key, owner.uid, owner.gid)
    public = home.path / "pki/ca.crt"
    _readable_file(public, authority.certificate.read_text())
    return _Certificates(public, agent, orchestrator)


def _agent_toml(home: RunFolder, files: Files, ports: Ports, certificates: _Certificates) -> str:
    return f"""\
[agent]
id = {_quoted(files.host)}
state_dir = {_quoted(home.state_of("agent", home.agent))}

[sensors]
socket = {_quoted(files.handover)}

[orchestrator]
address = "127.0.0.1:{ports.grpc}"
ca = {_quoted(certificates.authority)}
cert = {_quoted(certificates.agent.certificate)}
key = {_quoted(certificates.agent.key)}

[metrics]
port = {ports.metrics}

[heartbeat]
interval_s = 5
"""


def _orchestrator_toml(home: RunFolder, files: Files, ports: Ports, certificates: _Certificates) -> str:
    return f"""\
[grpc]
listen = "127.0.0.1:{ports.grpc}"
certificate = {_quoted(certificates.orchestrator.certificate)}
key = {_quoted(certificates.orchestrator.key)}
clients_ca = {_quoted(certificates.authority)}

[http]
listen = "127.0.0.1:{ports.web}"

[store]
path = {_quoted(home.state_of("orchestrator", home.orchestrator) / "orchestrator.db")}

[hosts]
grace_s = 10

[[person]]
name = "operator"
role = "operator"
token_sha256 = "{hashlib.sha256(files.token.encode()).hexdigest()}"
"""


_CTL = Path(sys.prefix) / "etc/nanobot/ctl.toml"


def _quoted(value: object) -> str:
    """Return `value` as a TOML string: JSON's escapes are TOML's."""
    quoted: str = json.dumps(str(value))
    return quoted


def _readable_file(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o644)


def _private_file(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
