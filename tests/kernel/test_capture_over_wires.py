"""The capture of a server behind a virtual cable, as a container is, with and without loss on the way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

from probes.http.segment import FIN, Segment
from probes.kernel import handover
from probes.kernel.http_capture import HttpCapture
from tests.kernel import traffic
from tests.kernel.conftest import AS_IN_ITS_UNIT, MAIN, Cgroups
from tests.kernel.traffic import noise, stream

pytestmark = [
    pytest.mark.root,
    pytest.mark.ebpf,
    pytest.mark.skipif(shutil.which("ip") is None, reason="needs ip (Debian: iproute2)"),
]

_PORT = 25_000 + os.getpid() % 5_000
# Server and client in a network namespace each, a veth pair between. Where `every` is not 0 a program at each
# end of the cable drops every packet of that number as it arrives.
_CABLE = """
import ctypes, os, platform, struct, subprocess
def drop(every, client):
    sys.path.insert(0, given["root"])
    import bcc
    from probes.kernel.cgroup_links import _SYSCALL_BPF
    from probes.kernel.headers import find_headers
    found = find_headers(release=os.uname().release, machine=os.uname().machine)
    os.environ["BCC_KERNEL_SOURCE"] = str(found.source)
    text = '''BPF_ARRAY(seen, u64, 1);
    int each(struct __sk_buff *skb) {
        int zero = 0;
        u64 *count = seen.lookup(&zero);
        if (!count) return -1;
        __sync_fetch_and_add(count, 1);
        return *count % EVERY ? -1 : 2;
    }'''
    module = bcc.BPF(text=text.replace("EVERY", str(every)).encode(), cflags=list(found.flags))
    program = module.load_func(b"each", bcc.BPF.SCHED_CLS)
    libc = ctypes.CDLL(None, use_errno=True)
    mine = os.open("/proc/self/ns/net", os.O_RDONLY)
    for namespace, device in ((os.open(f"/proc/{client}/ns/net", os.O_RDONLY), "there"), (mine, "here")):
        libc.setns(namespace, 0)
        attributes = struct.pack("=IIII", program.fd, socket.if_nametoindex(device), 46, 0)  # BPF_TCX_INGRESS
        if libc.syscall(_SYSCALL_BPF[platform.machine()], 28, attributes, len(attributes)) < 0:
            print(json.dumps({"skip": f"no program on a cable: {os.strerror(ctypes.get_errno())}"}))
            sys.exit()
    return module
CLIENT = PRELUDE + '''
print("ready", flush=True)
sys.stdin.readline()
c = socket.create_connection((given["address"], given["port"]))
for number, (asked, answered) in enumerate(given["sizes"]):
    c.sendall(noise(10 * number, asked))
    assert read(c, answered) == noise(10 * number + 1, answered)
c.close()
'''
words = ["unshare", "--net", sys.executable, "-I", "-S", "-c", CLIENT, json.dumps(given)]
client = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
client.stdout.readline()
def ip(*arguments, inside=None):
    enter = ["nsenter", "-t", str(inside), "-n"] if inside else []
    done = subprocess.run([*enter, "ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        print(json.dumps({"skip": f"ip {' '.join(arguments)}: {done.stderr}"})); client.kill(); sys.exit()
ip("link", "add", "here", "type", "veth", "peer", "name", "there", "netns", str(client.pid))
for device, host, inside in (("here", "1", None), ("there", "2", client.pid)):
    ip("addr", "add", f"10.99.0.{host}/24", "dev", device, inside=inside)
    ip("addr", "add", f"fd99::{host}/64", "dev", device, "nodad", inside=inside)
    ip("link", "set", device, "up", inside=inside)
kept = drop(given["every"], client.pid) if given["every"] else None
with listen(given["address"], given["port"]) as listener:
    print("go", file=client.stdin, flush=True)
    server, _ = listener.accept()
    for number, (asked, answered) in enumerate(given["sizes"]):
        assert read(server, asked) == noise(10 * number, asked)
        server.sendall(noise(10 * number + 1, answered))
    assert server.recv(1) == b""
    server.close()
assert client.wait(30) == 0
again = [line.split() for line in open("/proc/self/net/snmp") if line.startswith("Tcp:")]
print(json.dumps({"again": int(dict(zip(*again))["RetransSegs"])}))
"""


@pytest.fixture(scope="module")
def handed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[handover.Handover]:
    """The programs, attached with the capabilities of the loader's unit."""
    taken = traffic.load_capture(tmp_path_factory.mktemp("wires"), [_PORT], prefix=AS_IN_ITS_UNIT)
    yield taken
    taken.close()


def exchange_over_a_cable(
    handed: handover.Handover, group: Cgroups, *, address: str, every: int, sizes: list[tuple[int, int]]
) -> tuple[list[Segment], int]:
    """Run the exchanges; return the server's segments and how many packets it had to send again."""
    capture = HttpCapture(handover=handed)
    capture.open()
    given = {"address": address, "port": _PORT, "every": every, "sizes": sizes, "root": str(MAIN.parents[2])}
    prelude = traffic.script("", **given)[-2].removesuffix("up()\n")
    code = f"PRELUDE = {prelude!r}\n{_CABLE}"
    words = ["unshare", "--net", "/usr/bin/python3", "-I", "-c", prelude + code, json.dumps(given)]
    found: list[Segment] = []
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, preexec_fn=group.enter) as child:  # noqa: PLW1509
        while child.poll() is None:
            found.extend(s for s in capture.segments() if s.cgroup_id == group.id)
        assert child.stdout is not None
        said = json.loads(child.stdout.read())
    found.extend(s for s in capture.segments() if s.cgroup_id == group.id)
    capture.close()
    if "skip" in said:
        pytest.skip(said["skip"])
    assert child.returncode == 0
    return found, int(said["again"])


@pytest.mark.parametrize("address", ["10.99.0.1", "fd99::1"])
def test_a_client_outside_of_the_container_is_seen_at_the_server(
    handed: handover.Handover, cgroups: Callable[..., Cgroups], address: str
) -> None:
    """Another network namespace, a cable between them: every byte, once."""
    sizes = [(500, 3000), (3000, 60_000)]
    found, _ = exchange_over_a_cable(handed, cgroups(), address=address, every=0, sizes=sizes)
    for to_server, which in ((True, 0), (False, 1)):
        whole = stream(found, to_server=to_server)
        assert whole.data == b"".join(noise(10 * i + which, size[which]) for i, size in enumerate(sizes))
        assert (whole.untold, whole.skipped) == (0, 0)
    assert {s.to_server for s in found if s.flags & FIN} == {True, False}


def test_what_is_lost_on_the_wire_and_sent_again_leaves_no_hole(
    handed: handover.Handover, cgroups: Callable[..., Cgroups]
) -> None:
    """Every eleventh packet is dropped: out of order, more than once, and still every byte in its place."""
    sizes = [(700 + 10 * i, 6000 + 100 * i) for i in range(40)]
    found, again = exchange_over_a_cable(handed, cgroups(), address="10.99.0.1", every=11, sizes=sizes)
    assert again > 0
    for to_server, which in ((True, 0), (False, 1)):
        whole = stream(found, to_server=to_server)
        assert whole.data == b"".join(noise(10 * i + which, size[which]) for i, size in enumerate(sizes))
        assert whole.untold == 0
    carried = sum(len(s.data) for s in found if not s.to_server)
    assert carried > sum(answered for _, answered in sizes)
