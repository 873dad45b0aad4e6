"""What the observer says when the server is in a namespace of its own, and when the network loses packets."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from probes.kernel.handover import Handover
from tests.routes.answers import End
from tests.routes.driver import Driver
from tests.routes.observing import Observing
from tests.routes.scenarios import SCENARIOS
from tests.routes.serving import SERVED, Servers
from tests.routes.test_observed import ENDING, by_model, check, compare, without_holes

pytestmark = [pytest.mark.root, pytest.mark.ebpf]

_HERE, _THERE = "198.18.7.1", "198.18.7.2"  # RFC 2544: for tests of network devices


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace with one link to the host's."""

    name: str
    interface: str
    interface_here: str

    @property
    def enter(self) -> tuple[str, ...]:
        """Return the command that runs another inside."""
        return ("nsenter", f"--net=/run/netns/{self.name}", "--")

    def retransmitted(self) -> int:
        """Return how many TCP segments were sent again from inside."""
        lines = _run(*self.enter, "cat", "/proc/net/snmp").splitlines()
        names, values = (line.split() for line in lines if line.startswith("Tcp:"))
        return int(values[names.index("RetransSegs")])


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """A namespace as a container has one: a pair of veths, and a server's end of it."""
    if shutil.which("ip") is None:
        pytest.skip("needs ip (package iproute2)")
    name, here, there = (f"rt{os.getpid()}{end}" for end in "nab")
    _run("ip", "netns", "add", name)
    with contextlib.ExitStack() as left:
        left.callback(_run, "ip", "netns", "del", name)
        _run("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        left.callback(_run, "ip", "link", "del", here)
        _run("ip", "address", "add", f"{_HERE}/30", "dev", here)
        _run("ip", "link", "set", here, "up")
        _run("ip", "-n", name, "address", "add", f"{_THERE}/30", "dev", there)
        _run("ip", "-n", name, "link", "set", there, "up")
        _run("ip", "-n", name, "link", "set", "lo", "up")
        yield Namespace(name, there, here)


async def test_a_server_in_a_namespace_of_its_own(
    handed: Handover, servers: Servers, namespace: Namespace
) -> None:
    """Behind a veth, as containers are: every scenario as on the host."""
    server = servers.start("uvicorn-uvloop", host=_THERE, prefix=namespace.enter)
    async with Observing(handed, server.port) as observing, Driver(server.url) as driver:
        seen = await driver.all(SCENARIOS)
        facts = await observing.settled(server.port, len(seen))
        assert observing.lost == 0
        check(without_holes(seen, observing), facts)


@pytest.mark.timeout(120)
async def test_lost_packets_never_make_a_fault(
    handed: Handover, servers: Servers, namespace: Namespace
) -> None:
    """With 4 % of the packets lost both ways, each exchange is told as it was, or as unobserved."""
    server = servers.start("go", host=_THERE, prefix=namespace.enter)
    lossy = [sys.executable, str(SERVED / "loss.py")]
    _run(*namespace.enter, *lossy, namespace.interface, "0.04")
    _run(*lossy, namespace.interface_here, "0.04")
    arriving = [s for s in ENDING if s.answer.end is not End.RESET]  # a lost reset is not sent again
    async with Observing(handed, server.port) as observing, Driver(server.url, connections=8) as driver:
        seen = await driver.at_once(arriving)
        facts = by_model(await observing.settled(server.port, len(seen)))
    assert namespace.retransmitted() > 0
    true = {one.truth.model: one.truth for one in seen}
    wrong = [line for model, said in facts.items() for line in compare(true[model], said)]
    assert "\n".join(wrong) == ""
    assert len(facts) + sum(u.count for u in observing.unobserved) == len(seen)
    assert len(facts) > len(seen) * 0.9
