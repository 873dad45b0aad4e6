"""Traffic with a known content: what a test has others send, and what came of it put together again."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from probes.http.segment import SYN, Segment
from probes.kernel import handover
from tests.kernel.conftest import MAIN, Cgroups

_LOAD = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from probes.kernel.capabilities import keep_only
from probes.kernel.config import CaptureWay, HttpConfig
from probes.kernel.handover import send
from probes.kernel.http_capture import PROGRAM
from probes.kernel.loader import load
from probes.kernel.programs import LOADING, Capability
keep_only(LOADING | PROGRAM.capabilities | {Capability.NET_RAW, Capability.SYS_ADMIN})
http = HttpConfig(tuple(map(int, sys.argv[3].split(","))), CaptureWay(sys.argv[4]), tuple(sys.argv[5:]))
loaded = load((PROGRAM,), http=http)
send(Path(sys.argv[2]), loaded.manifest, loaded.descriptors, agent_uids={0}, timeout_s=50)
"""


# Runs in a network namespace of its own with nothing but loopback, so that ports belong to the test alone.
_PRELUDE = """
import fcntl, json, random, socket, struct, sys, threading
def noise(seed, size):
    return random.Random(seed).randbytes(size)
def up():
    with socket.socket() as s:
        fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 0x41))  # SIOCSIFFLAGS: IFF_UP | IFF_RUNNING
def listen(address, port):
    s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address, port)); s.listen()
    return s
def read(s, size):
    data = bytearray()
    while len(data) < size:
        piece = s.recv(1 << 20)
        if not piece:
            break
        data += piece
    return bytes(data)
def exchange(client, server, seed, asked, answered):
    writer = threading.Thread(target=client.sendall, args=(noise(seed, asked),)); writer.start()
    assert read(server, asked) == noise(seed, asked)
    writer.join()
    writer = threading.Thread(target=server.sendall, args=(noise(seed + 1, answered),)); writer.start()
    assert read(client, answered) == noise(seed + 1, answered)
    writer.join()
given = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
"""


def load_capture(
    folder: Path,
    ports: Sequence[int],
    *,
    prefix: list[str],
    way: str = "cgroup",
    libraries: Sequence[str] = (),
) -> handover.Handover:
    """Load the capture alone, in a process of its own, and take the handover."""
    path = folder / "handover.sock"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(50)
        arguments = [str(MAIN.parents[2]), str(path), ",".join(map(str, ports)), way, *libraries]
        loader = subprocess.Popen([*prefix, "/usr/bin/python3", "-I", "-c", _LOAD, *arguments])
        connection, _ = listener.accept()
        with connection:
            taken = handover.receive(connection, timeout_s=50)
            handover.accept(connection)
        assert loader.wait(50) == 0
    return taken


def noise(seed: int, size: int) -> bytes:
    """Return the bytes that the script's own `noise` sends."""
    return random.Random(seed).randbytes(size)


def script(code: str, *, apart: bool = True, **given: object) -> list[str]:
    """Return the command that runs a piece of Python with the helpers above, in a namespace of its own."""
    python = [sys.executable, "-I", "-S", "-c"]
    if not apart:
        return [*python, _PRELUDE + code, json.dumps(given)]
    return ["unshare", "--net", *python, _PRELUDE + "up()\n" + code, json.dumps(given)]


def run(group: Cgroups, code: str, *, apart: bool = True, **given: object) -> str:
    """Run a script inside a cgroup to its end; return what it said."""
    done = group.run(script(code, apart=apart, **given))
    assert done.returncode == 0, done.stderr
    return done.stdout


def start(group: Cgroups, code: str, **given: object) -> subprocess.Popen[str]:
    """Start a script inside a cgroup, with pipes to it."""
    return subprocess.Popen(
        script(code, **given),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=group.enter,  # noqa: PLW1509 - as in conftest
    )


@dataclass
class Reading:
    """Reads a capture for one cgroup; the rest of the machine's traffic is left out."""

    segments: Callable[[], list[Segment]]
    group: Cgroups

    def now(self) -> list[Segment]:
        """Return what waits."""
        return [s for s in self.segments() if s.cgroup_id == self.group.id]

    def until(self, enough: Callable[[list[Segment]], bool], seconds: float = 5.0) -> list[Segment]:
        """Read until it is enough or time is up; return everything."""
        found: list[Segment] = []
        end = time.monotonic() + seconds
        while True:
            found.extend(self.now())
            if enough(found) or time.monotonic() > end:
                return found
            time.sleep(0.01)


def connections(segments: list[Segment]) -> dict[int, list[Segment]]:
    """Sort segments by connection, in order of appearance."""
    sorted_: dict[int, list[Segment]] = {}
    for segment in segments:
        sorted_.setdefault(segment.connection, []).append(segment)
    return sorted_


@dataclass(frozen=True)
class Stream:
    """One direction of a connection: what was captured lies at its place, what was left out is told."""

    data: bytes
    captured: int
    skipped: int
    untold: int  # bytes that are neither

    def agrees_with(self, sent: bytes) -> bool:
        """Whether every captured byte is the sent one and the length is right."""
        return len(self.data) == len(sent) and all(
            mine in (-1, theirs) for mine, theirs in zip(self._known, sent, strict=True)
        )

    _known: tuple[int, ...] = ()


def stream(segments: list[Segment], *, to_server: bool, first: int | None = None) -> Stream:
    """Put one direction together, from its SYN or from sequence number `first`.

    Kernel 6.1 shows no SYN of a server over IPv6: there it begins with the first segment.
    """
    mine = [s for s in segments if s.to_server == to_server]
    if first is None:
        first = next((s.seq + 1 for s in mine if s.flags & SYN), mine[0].seq)
    place: dict[int, int] = {}
    for piece in mine:
        if piece.flags & SYN:
            assert (piece.data, piece.skipped) == (b"", 0)
            continue
        at = (piece.seq - first) % (1 << 32)
        for offset, byte in enumerate(piece.data):
            place[at + offset] = byte
        for offset in range(at + len(piece.data), at + len(piece.data) + piece.skipped):
            place.setdefault(offset, -1)
    length = max(place, default=-1) + 1
    known = tuple(place.get(i, -2) for i in range(length))
    return Stream(
        data=bytes(max(0, k) for k in known),
        captured=sum(k >= 0 for k in known),
        skipped=known.count(-1),
        untold=known.count(-2),
        _known=known,
    )
