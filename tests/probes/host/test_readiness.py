"""host.readiness: servers until they listen, in any network, and the size of their shared memory."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from probes.host.clock import now
from probes.host.known_servers import KnownServer, KnownServers
from probes.host.readiness import TELL_S, ReadinessSensor
from probes.observation import BlindReason, Origin, ServerKind, ServerReadiness
from probes.sensor import SensorBlind
from probes.testing import instant

PORT = 8000
TABLE = "  sl  local_address rem_address   st tx_queue rx_queue\n"
LISTENER = "   0: 00000000:1F40 00000000:0000 0A 00000000:00000000 00:00000000\n"
CLIENT = "   1: 0100007F:1F40 0100007F:C001 01 00000000:00000000 00:00000000\n"
SHM = "900 890 0:99 / /dev/shm rw,nosuid - tmpfs shm rw,size=65536k,inode64\n"


class Host:
    """A made-up /proc with one server, and a clock that a test moves."""

    def __init__(self, proc: Path) -> None:
        self.proc = proc
        self.at_s = 100.0
        for pid in ("self", "41"):
            (proc / pid / "net").mkdir(parents=True)
            (proc / pid / "net/tcp").write_text(TABLE)
        (proc / "41/mountinfo").write_text(SHM)
        self.known = KnownServers()
        self.serve(41)
        self.sensor = ReadinessSensor(known=self.known, proc=proc, monotonic=lambda: self.at_s)
        self.sensor.open()

    def serve(self, *pids: int, companion: bool = False) -> None:
        self.known.post(
            KnownServer(Origin(pid=pid, start_ticks=500, server=ServerKind.VLLM), PORT, (pid,), companion)
            for pid in pids
        )

    def sockets(self, *lines: str, table: str = "tcp") -> None:
        (self.proc / "41/net" / table).write_text(TABLE + "".join(lines))

    def looks(self, after_s: float = 15.0) -> list[ServerReadiness]:
        """Let time pass and read once."""
        self.at_s += after_s
        return [each for each in self.sensor.read(instant(self.at_s)) if isinstance(each, ServerReadiness)]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """One server that does not listen yet."""
    return Host(tmp_path)


def test_a_server_is_told_until_it_listens(host: Host) -> None:
    """At every look while it does not, once when it does, and now and then afterwards."""
    assert [each.listens for each in host.looks() + host.looks()] == [False, False]
    host.sockets(CLIENT, LISTENER)
    assert [each.listens for each in host.looks()] == [True]
    assert host.looks() + host.looks() == []
    assert [each.listens for each in host.looks(TELL_S)] == [True]


def test_a_server_that_never_listens_is_looked_at_less_and_less(host: Host) -> None:
    """Its port may be another one, and a table of sockets is dear."""
    first = sum(len(host.looks()) for _ in range(119))
    then = sum(len(host.looks()) for _ in range(400))
    host.looks(43200)
    last = sum(len(host.looks()) for _ in range(400))
    assert (first, then, last) == (119, 100, 10)


def test_a_connection_to_the_port_is_no_listener(host: Host) -> None:
    """Only the state counts."""
    host.sockets(CLIENT)
    assert [each.listens for each in host.looks()] == [False]


def test_a_listener_of_ipv6_counts(host: Host) -> None:
    """The second table is looked at as well."""
    host.sockets(LISTENER.replace("00000000:1F40", "0" * 32 + ":1F40"), table="tcp6")
    assert [each.listens for each in host.looks()] == [True]


def test_a_table_that_cannot_be_read_is_unknown(host: Host) -> None:
    """It went while we looked."""
    (host.proc / "41/net/tcp").unlink()
    assert [each.listens for each in host.looks()] == [None]


def test_tells_the_size_of_shared_memory(host: Host) -> None:
    """As its own mount table has it, in bytes."""
    assert [each.shared_memory_bytes for each in host.looks()] == [64 << 20]


@pytest.mark.parametrize(
    ("line", "size"),
    [
        (SHM.replace("size=65536k", "size=16g"), 16 << 30),
        (SHM.replace(",size=65536k", ""), None),
        (SHM.replace("size=65536k", "size=50%"), None),
        ("", None),
    ],
)
def test_a_size_that_is_not_told_is_none(host: Host, line: str, size: int | None) -> None:
    """The host's own has no option of that name."""
    (host.proc / "41/mountinfo").write_text(line)
    assert [each.shared_memory_bytes for each in host.looks()] == [size]


def test_a_new_life_is_looked_at_anew(host: Host) -> None:
    """The same number with another start is another server."""
    host.sockets(LISTENER)
    host.looks()
    host.known.post([KnownServer(Origin(pid=41, start_ticks=900), PORT, (41,))])
    host.sockets()
    assert [each.listens for each in host.looks()] == [False]


def test_companions_load_no_model(host: Host) -> None:
    """A gateway or a database is not looked at."""
    host.serve(41, companion=True)
    assert host.looks() == []


def test_a_system_without_a_table_cannot_be_seen(tmp_path: Path) -> None:
    """macOS has none."""
    with pytest.raises(SensorBlind) as caught:
        ReadinessSensor(known=KnownServers(), proc=tmp_path).open()
    assert caught.value.blind.reason is BlindReason.UNSUPPORTED_PLATFORM


def test_sees_a_real_process_begin_to_listen() -> None:
    """A process of our own, by the real files."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    code = (
        "import socket, sys\n"
        f"s = socket.socket(); s.bind(('127.0.0.1', {port})); print('bound', flush=True)\n"
        "sys.stdin.readline()\n"
        "s.listen(); print('listens', flush=True); sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        known = KnownServers()
        ticks = int(Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[19])
        known.post([KnownServer(Origin(pid=server.pid, start_ticks=ticks), port, (server.pid,))])
        moments = iter((0.0, 15.0))
        sensor = ReadinessSensor(known=known, monotonic=lambda: next(moments))
        sensor.open()
        server.stdout.readline()
        (before,) = sensor.read(now())
        server.stdin.write("\n")
        server.stdin.flush()
        server.stdout.readline()
        (after,) = sensor.read(now())
        server.stdin.write("\n")
    assert isinstance(before, ServerReadiness)
    assert isinstance(after, ServerReadiness)
    assert (before.listens, after.listens) == (False, True)
    assert 0 <= after.at.since_s(after.started) < 60


@given(st.binary(max_size=300))
def test_takes_any_bytes_for_tables(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    """Whatever stands there, a server is told or left out, and nothing is raised."""
    host = Host(tmp_path_factory.mktemp("proc"))
    (host.proc / "41/net/tcp").write_bytes(raw)
    (host.proc / "41/mountinfo").write_bytes(raw)
    assert len(host.looks()) == 1
