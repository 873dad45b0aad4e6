"""A real PostgreSQL with every connection taken: the case opens, names its unit, and clears."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from escalation.model import (
    CasePhase,
    FaultClass,
    ReasonCode,
    SessionsEvidence,
    Severity,
    Subject,
    SubjectKind,
)
from probes.host.cgroups import CgroupPaths, find_mounts
from probes.host.identity import Identifier
from probes.host.model_servers import Servers
from probes.host.sessions import SessionSensor, sessions_on
from probes.logs.sensor import file_sensor
from probes.settings import LogSettings
from tests.real.judged import JudgedHost

ADDRESS, PORT, NOBODY = "127.0.0.7", 5432, 65534
LIMIT, RESERVED = 10, 3
FAULT = FaultClass.DATABASE_CONNECTIONS_EXHAUSTED
HERE = Path(__file__).resolve().parents[2] / ".venv/postgresql"

pytestmark = [pytest.mark.root]


@dataclass(frozen=True, slots=True)
class Database:
    """A running server: its log, and the unit whose cgroup it is in."""

    log: Path
    unit: str
    root: Path


def _programs() -> Path:
    for root in (Path("/usr/lib/postgresql"), HERE / "usr/lib/postgresql"):
        if found := sorted(root.glob("*/bin/initdb")):
            if not all(parent.stat().st_mode & 0o001 for parent in found[-1].parents):
                pytest.skip(f"{root} is in a folder that nobody else may enter")
            return found[-1].parent
    pytest.skip("PostgreSQL is not here (dev/setup.sh tests)")


@pytest.fixture
def database() -> Iterator[Database]:
    """Start a server of our own in a cgroup that is named like a unit's, and stop it at the end."""
    programs = _programs()
    mounts = find_mounts()
    if mounts.unified is None:
        pytest.skip("needs a cgroup v2 hierarchy")
    with contextlib.suppress(OSError), socket.create_connection((ADDRESS, PORT), timeout=1):
        pytest.skip(f"somebody serves on {ADDRESS}:{PORT} already")
    folder = Path(tempfile.mkdtemp(prefix="nanobot-pg-"))  # pytest's own folders are for root alone
    folder.chmod(0o711)
    os.chown(folder, NOBODY, NOBODY)
    unit = f"postgresql-{os.getpid()}.service"
    group = mounts.unified / unit
    group.mkdir()
    libraries = {"LD_LIBRARY_PATH": ":".join(str(each) for each in HERE.glob("usr/lib/*-linux-gnu"))}
    environment = {**os.environ, "LC_ALL": "C", **(libraries if HERE.exists() else {})}

    drop = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    enter = ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$0" "$@"', *drop]

    def run(*arguments: str | Path) -> None:
        subprocess.run(
            [*enter, *arguments], check=True, capture_output=True, timeout=60, cwd=folder, env=environment
        )

    data, log = folder / "data", folder / "postgresql.log"
    options = (
        f"-k {folder} -p {PORT} -c listen_addresses={ADDRESS} -c max_connections={LIMIT} -c fsync=off "
        f"-c superuser_reserved_connections={RESERVED} -c shared_buffers=1MB -c max_wal_senders=0"
    )
    try:
        run(programs / "initdb", "-D", data, "-A", "trust", "-U", "admin", "--no-sync", "--no-locale")
        run(programs / "pg_ctl", "-D", data, "-w", "-l", log, "-o", options, "start")
        with contextlib.closing(_session("admin")) as admin:
            _query(admin, "CREATE ROLE app LOGIN")
        yield Database(log, unit, mounts.unified)
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            run(programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder)
        for _ in range(100):
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.05)


class Refused(Exception):
    """The server turned us away; the message is its SQLSTATE."""


def _session(user: str) -> socket.socket:
    """Open one session by the wire protocol, version 3.0; raise Refused."""
    link = socket.create_connection((ADDRESS, PORT), timeout=10)
    body = struct.pack("!i", 196608) + b"user\0" + user.encode() + b"\0database\0postgres\0\0"
    link.sendall(struct.pack("!i", len(body) + 4) + body)
    try:
        _until_ready(link)
    except Refused:
        link.close()
        raise
    return link


def _query(link: socket.socket, text: str) -> None:
    body = text.encode() + b"\0"
    link.sendall(b"Q" + struct.pack("!i", len(body) + 4) + body)
    _until_ready(link)


def _until_ready(link: socket.socket) -> None:
    stream = link.makefile("rb")
    while True:
        kind = stream.read(1)
        (length,) = struct.unpack("!i", stream.read(4))
        body = stream.read(length - 4)
        if kind == b"E":
            fields = {part[:1]: part[1:] for part in body.split(b"\0") if part}
            raise Refused(fields.get(b"C", b"").decode())
        if kind == b"Z":
            return


def test_a_database_without_a_connection_left(database: Database) -> None:
    """Seven ordinary sessions fill it, those who come then are turned away; when they leave, it is over."""
    identifier = Identifier(cgroups=CgroupPaths(root=database.root, monotonic=time.monotonic))
    servers = Servers(identifier=identifier, root=database.root, monotonic=time.monotonic)
    host = JudgedHost(
        [
            file_sensor(identifier=identifier, settings=LogSettings(files=(str(database.log),))),
            SessionSensor(origin=servers.origin),
        ]
    )
    unit = Subject(SubjectKind.UNIT, database.unit)
    with contextlib.ExitStack() as stack:
        stack.callback(host.close)
        held = contextlib.ExitStack()
        stack.enter_context(held)
        for _ in range(LIMIT - RESERVED):
            held.enter_context(contextlib.closing(_session("app")))
        host.look()
        assert host.of(FAULT) == []  # full, and nobody was turned away

        for _ in range(3):
            with pytest.raises(Refused, match="53300"):
                _session("app")
        host.until(lambda: any(r.severity is Severity.HIGH for r in host.of(FAULT, subject=unit)))

        report = host.of(FAULT, subject=unit)[-1]
        assert {reason.code for reason in report.reasons} >= {
            ReasonCode.SESSIONS_REFUSED,
            ReasonCode.SESSIONS_NEAR_LIMIT,
        }
        (evidence,) = [each for each in report.evidence if isinstance(each, SessionsEvidence)]
        assert (evidence.port, evidence.sessions, evidence.refused) == (PORT, LIMIT - RESERVED, 3)

        host.later(3600)
        assert CasePhase.CLEARED not in host.phases(FAULT, unit)  # nobody asks, and nothing is free

        held.close()
        host.until(lambda: not sessions_on(PORT))  # the server notices by itself that they left
        host.later(61)
        host.later(31)
        assert host.phases(FAULT, unit)[-1] is CasePhase.CLEARED
        assert host.of(FAULT, subject=unit)[-1].reasons[-1].code is ReasonCode.SESSIONS_FREE_AGAIN
    assert {report.fault_class for report in host.reports} == {FAULT}
