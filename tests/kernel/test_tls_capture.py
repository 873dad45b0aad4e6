"""What servers say through OpenSSL, on real uprobes and a real libssl: the plain bytes, of servers alone."""

from __future__ import annotations

import re
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probes.http.segment import FIN, Segment
from probes.kernel import handover
from probes.kernel.http_capture import NAME, HttpCapture
from tests.kernel import traffic
from tests.kernel.conftest import AS_IN_ITS_UNIT, Cgroups
from tests.kernel.traffic import Reading, connections, noise, stream

pytestmark = [pytest.mark.root, pytest.mark.ebpf]

_PORT = 18331
_HANDSHAKE = """
import ssl
def secured(listener, kind=ssl.PROTOCOL_TLS_CLIENT):
    asking = ssl.SSLContext(kind); asking.check_hostname = False; asking.verify_mode = ssl.CERT_NONE
    answering = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); answering.load_cert_chain(given["pem"])
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    ends = {}
    def shake(): ends["server"] = answering.wrap_socket(server, server_side=True)
    other = threading.Thread(target=shake); other.start()
    ends["client"] = asking.wrap_socket(client); other.join()
    return ends["client"], ends["server"]
with listen("127.0.0.1", given["port"]) as listener:
    client, server = secured(listener)
    if given["greeting"]:  # the server speaks first, as in no HTTP
        server.sendall(b"220 ready"); assert len(read(client, 9)) == 9
    for number, (asked, answered) in enumerate(given["sizes"]):
        text = given["begin"].encode() + noise(10 * number, asked)
        client.sendall(text); assert read(server, len(text)) == text
        writer = threading.Thread(target=server.sendall, args=(noise(10 * number + 1, answered),))
        writer.start()
        assert read(client, answered) == noise(10 * number + 1, answered)
        writer.join()
    server.close(); client.close()
    del server, client
import gc; gc.collect()
"""


@pytest.fixture(scope="module")
def libssl() -> str:
    """The library that this machine's Python uses."""
    assert ssl.OPENSSL_VERSION
    found = re.search(r"\s(/\S*/libssl\.so\S*)$", Path("/proc/self/maps").read_text(), re.MULTILINE)
    if found is None:
        pytest.skip("this Python has its OpenSSL built in")
    return found[1]


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A key and a certificate."""
    path = tmp_path_factory.mktemp("pem") / "server.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x",
         "-keyout", path, "-out", path.with_suffix(".crt")],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())
    return str(path)


@pytest.fixture(scope="module")
def handed(tmp_path_factory: pytest.TempPathFactory, libssl: str) -> Iterator[handover.Handover]:
    """The capture with the library watched, the capabilities of the loader's unit, and CAP_SYS_ADMIN."""
    prefix = [word.replace("+net_admin", "+net_admin,+sys_admin") for word in AS_IN_ITS_UNIT]
    folder = tmp_path_factory.mktemp("tls")
    taken = traffic.load_capture(folder, [1], prefix=prefix, libraries=[libssl, "/none/libssl.so"])
    yield taken
    taken.close()


@pytest.fixture
def reading(handed: handover.Handover, cgroups: Callable[..., Cgroups]) -> Iterator[Reading]:
    """What a cgroup of the test's own says through the library."""
    capture = HttpCapture(handover=handed)
    capture.open()
    for _ in capture.segments():
        pass
    yield Reading(lambda: list(capture.segments()), cgroups())
    capture.close()


def run(
    reading: Reading, pem: str, *, begin: str, sizes: list[tuple[int, int]], greeting: bool = False
) -> None:
    """Run client and server over TLS, both in one process."""
    given = {"port": _PORT, "pem": pem, "begin": begin, "sizes": sizes, "greeting": greeting}
    traffic.run(reading.group, _HANDSHAKE, **given)


def test_the_plain_bytes_of_a_server_are_seen_and_its_client_is_not(reading: Reading, pem: str) -> None:
    """Both directions of the server's end, byte by byte, closed when the connection is freed."""
    sizes = [(100, 5000), (3000, 40_000)]
    run(reading, pem, begin="POST /v1/chat/completions HTTP/1.1\r\n", sizes=sizes)

    def ended(found: list[Segment]) -> bool:
        return {s.to_server for s in found if s.flags & FIN} == {True, False}

    found = reading.until(ended)
    assert len(connections(found)) == 1
    assert {(s.port, s.cgroup_id) for s in found} == {(0, reading.group.id)}
    asked = stream(found, to_server=True, first=0)
    answered = stream(found, to_server=False, first=0)
    begin = b"POST /v1/chat/completions HTTP/1.1\r\n"
    assert asked.data == b"".join(begin + noise(10 * i, size) for i, (size, _) in enumerate(sizes))
    assert answered.data == b"".join(noise(10 * i + 1, size) for i, (_, size) in enumerate(sizes))
    assert (asked.untold, asked.skipped, answered.untold, answered.skipped) == (0, 0, 0, 0)


@pytest.mark.parametrize("greeting", [True, False])
def test_what_never_asks_as_http_does_is_left_alone(reading: Reading, pem: str, greeting: bool) -> None:
    """Another protocol over the same library: nothing of it is copied."""
    run(reading, pem, begin="EHLO example\r\n", sizes=[(10, 10)], greeting=greeting)
    run(reading, pem, begin="GET / HTTP/1.1\r\n", sizes=[(0, 7)])
    found = reading.until(lambda seen: any(s.flags & FIN for s in seen))
    assert len(connections(found)) == 1
    assert stream(found, to_server=True, first=0).data == b"GET / HTTP/1.1\r\n"


def test_a_library_that_cannot_be_watched_is_noted_and_blinds_nothing(handed: handover.Handover) -> None:
    """The rest of the capture works, and the note names the file once."""
    entry = handed.entry(NAME)
    assert entry is not None
    assert entry.blind is None
    assert entry.notes == ("/none/libssl.so: No such file or directory",)
    assert len(entry.attachments) == 2 + 9


def test_without_the_privilege_it_is_noted_and_blinds_nothing(tmp_path: Path, libssl: str) -> None:
    """The unit as it is shipped: what is not encrypted is seen, and the note says what it takes."""
    taken = traffic.load_capture(tmp_path, [1], prefix=AS_IN_ITS_UNIT, libraries=[libssl])
    entry = taken.entry(NAME)
    taken.close()
    assert entry is not None
    assert entry.blind is None
    if len(entry.attachments) > 2:
        pytest.skip("this kernel asks uprobes for CAP_PERFMON alone")
    assert entry.notes == (f"{libssl}: Permission denied: it takes CAP_SYS_ADMIN",)
