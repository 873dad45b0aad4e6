"""Two hosts on one cable: network namespaces joined by a veth pair, with faults of the network to order."""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

PYTHON = (sys.executable, "-I", "-S", "-c")
_NETWORKS = itertools.count(1)
_T = TypeVar("_T")
_CLONE_NEWNET = 0x40000000
_SINK = (
    "import socket\n"
    "s = socket.create_server(('', 5001))\nprint('ready', flush=True)\n"
    "c, _ = s.accept()\nwhile c.recv(1 << 20): pass\n"
)
_SOURCE = (
    "import socket, sys\n"
    "s = socket.create_connection((sys.argv[1], 5001))\n"
    "for _ in sys.stdin:\n    s.sendall(bytes(2_000_000)); print('sent', flush=True)\n"
)


@dataclass(frozen=True)
class TwoHosts:
    """The namespaces `here` and `there`, their addresses on the cable, and one that nobody has."""

    here: str
    there: str
    my_address: str
    its_address: str
    nobodys_address: str

    def exec_here(self, *command: str) -> list[str]:
        """Return a command that runs `command` in the namespace here."""
        return ["ip", "netns", "exec", self.here, *command]

    def exec_there(self, *command: str) -> list[str]:
        """Return a command that runs `command` in the namespace there."""
        return ["ip", "netns", "exec", self.there, *command]

    def ip(self, *arguments: str) -> None:
        """Run ip(8) here."""
        _run("ip", "-n", self.here, *arguments)

    def lose(self, percent: int) -> None:
        """Drop that share of the packets that arrive there: netem for kernels that were built without."""
        _run("tc", "-n", self.there, "qdisc", "replace", "dev", "cable", "clsact")
        _run("tc", "-n", self.there, "filter", "del", "dev", "cable", "ingress")
        if percent:
            # What is lost is a segment then, as on a real cable, and not a bundle of forty.
            self.ip("link", "set", "cable", "gso_max_segs", "1")
            # load a random word; above the share: pass (TC_ACT_OK), else drop (TC_ACT_SHOT)
            above = 0xFFFFFFFF * percent // 100
            code = f"4,32 0 0 {0xFFFFF000 + 56},37 1 0 {above},6 0 0 2,6 0 0 0"
            arguments = ("bpf", "direct-action", "bytecode", code)
            _run("tc", "-n", self.there, "filter", "add", "dev", "cable", "ingress", *arguments)

    @contextmanager
    def transfer(self) -> Iterator[Callable[[], None]]:
        """Connect from here to there; each call of what is yielded sends two megabytes."""
        with ExitStack() as stack:
            stack.enter_context(_child(self.exec_there(*PYTHON, _SINK), "ready"))
            source = stack.enter_context(_child(self.exec_here(*PYTHON, _SOURCE, self.its_address), None))

            def send() -> None:
                assert source.stdin is not None
                assert source.stdout is not None
                source.stdin.write("\n")
                source.stdin.flush()
                assert source.stdout.readline() == "sent\n"

            yield send

    @contextmanager
    def sysfs_here(self) -> Iterator[Path]:
        """Return the sysfs of the namespace here, through a process that lives there."""
        with _child(self.exec_here("sh", "-c", "echo ready; exec cat"), "ready") as process:
            yield Path(f"/proc/{process.pid}/root/sys")

    @contextmanager
    def listening_there(self, port: int) -> Iterator[None]:
        """Let something listen there."""
        code = (
            f"import socket, sys\ns = socket.create_server(('', {port}), backlog=64)\n"
            "print('ready', flush=True)\nsys.stdin.read()"
        )
        with _child(self.exec_there(*PYTHON, code), "ready"):
            yield

    def ask_here(self, function: Callable[[], _T]) -> _T:
        """Call a function in the namespace here, on a thread of its own."""
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self._enter_and_call, function).result()

    def _enter_and_call(self, function: Callable[[], _T]) -> _T:
        libc = ctypes.CDLL(None, use_errno=True)
        file = os.open(f"/run/netns/{self.here}", os.O_RDONLY)
        try:
            assert libc.setns(file, _CLONE_NEWNET) == 0
        finally:
            os.close(file)
        return function()


@contextmanager
def two_hosts() -> Iterator[TwoHosts]:
    """Make the two and take them down; skip where there are no namespaces."""
    if shutil.which("ip") is None or shutil.which("tc") is None or not Path("/proc/self/ns/net").exists():
        pytest.skip("needs ip and tc (iproute2)")
    number = next(_NETWORKS)  # the kernel's counts of an address outlive the test that made them
    names = (f"nb-here-{os.getpid()}-{number}", f"nb-there-{os.getpid()}-{number}")
    hosts = TwoHosts(*names, *(f"198.18.{number % 256}.{host}" for host in (1, 2, 99)))
    for name in (hosts.here, hosts.there):
        _run("ip", "netns", "add", name)
    try:
        _run(
            *("ip", "link", "add", "cable", "netns", hosts.here),
            *("type", "veth", "peer", "name", "cable", "netns", hosts.there),
        )
        for name, address in ((hosts.here, hosts.my_address), (hosts.there, hosts.its_address)):
            _run("ip", "-n", name, "link", "set", "lo", "up")
            _run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "cable")
            _run("ip", "-n", name, "link", "set", "cable", "up")
        yield hosts
    finally:
        for name in (hosts.here, hosts.there):
            _run("ip", "netns", "delete", name)


@contextmanager
def _child(command: list[str], says: str | None) -> Iterator[subprocess.Popen[str]]:
    """Run a process with pipes to it until it has said so, and end it afterwards."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if says is not None:
            assert process.stdout.readline() == f"{says}\n"
        yield process
    finally:
        process.stdin.close()
        process.kill()
        process.wait(10)
        process.stdout.close()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=20)
