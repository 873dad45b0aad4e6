"""Exposure on real parts: sockets, cgroups, a mesh interface, a peer on a wire, a proxy."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from agent.detectors.control_plane import Config, OpenControlPlane
from agent.detectors.off_mesh_listener import Config as ListenerConfig, OffMeshListener
from agent.finding import Finding
from agent.testing import SURROUNDINGS, present, seeing
from escalation.model import ControlPlane, ControlPlaneEvidence, ReasonCode, Severity
from probes import registry
from probes.host.clock import now
from probes.observation import Observation
from probes.recording import from_line, to_line
from tests.kernel.conftest import Cgroups

pytestmark = [pytest.mark.root]

_LISTEN = """
import socket, sys
open("/proc/self/comm", "w").write(sys.argv[1])
held = [socket.create_server((address, int(port))) for address, port in zip(sys.argv[2::2], sys.argv[3::2])]
print("listens", flush=True)
sys.stdin.read()
"""
_CONNECT = """
import socket, sys
held = socket.create_connection((sys.argv[1], int(sys.argv[2])))
print("connected", flush=True)
sys.stdin.read()
"""
_PUBLISH = """
import socket, sys
held = socket.create_server(("0.0.0.0", 15432))
print("listens", flush=True)
sys.stdin.read()
"""
Inside = Callable[[int], list[str]]


@contextlib.contextmanager
def running(arguments: list[str], *, folder: Path | None = None, program: str | None = None) -> Iterator[int]:
    """Run a program, in a cgroup if one is given, and go on when its first line is out."""

    def enter() -> None:
        if folder is not None:
            (folder / "cgroup.procs").write_text(str(os.getpid()))

    child = subprocess.Popen(
        arguments,
        executable=program,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=enter,  # noqa: PLW1509 - a cgroup is entered by the child itself, and no thread runs here
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert child.stdout.readline()
        yield child.pid
    finally:
        child.stdin.close()
        child.wait(10)
        child.stdout.close()


def python(code: str, *arguments: str) -> list[str]:
    """Return the command of a piece of Python."""
    return [sys.executable, "-I", "-S", "-c", code, *arguments]


def ip(*words: str, of: int | None = None) -> None:
    """Change the network of this namespace, or of that of process `of`."""
    there = [] if of is None else ["nsenter", "-t", str(of), "-n"]
    subprocess.run([*there, "ip", *words], check=True)


def look() -> list[str]:
    """Return what the sensor tells of this namespace now, as lines."""
    spec = next(spec for spec in registry.SENSORS if spec.name == "host.listeners")
    sensor = spec.build(registry.surroundings(None))
    sensor.open()
    return [to_line(told) for told in sensor.read(now())]


def _apart(tell: Connection, inside: Inside) -> None:
    assert ctypes.CDLL(None, use_errno=True).unshare(0x40000000) == 0  # CLONE_NEWNET
    ip("link", "set", "lo", "up")
    for name, address in (("tailscale0", "100.90.1.2/32"), ("docker0", "172.17.0.1/16")):
        ip("link", "add", name, "type", "veth", "peer", "name", f"{name}-end")
        ip("address", "add", address, "dev", name)
        ip("link", "set", name, "up")
    with running(["unshare", "--net", "sh", "-c", "echo ready; exec cat"]) as far:
        ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth1", "netns", str(far))
        ip("address", "add", "8.8.4.1/24", "dev", "eth0")
        ip("link", "set", "eth0", "up")
        ip("address", "add", "8.8.4.9/24", "dev", "eth1", of=far)
        ip("link", "set", "eth1", "up", of=far)
        tell.send(inside(far))


def apart(inside: Inside) -> list[Observation]:
    """Return what `inside` saw in a namespace with a mesh, a bridge and a wire to another one."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=_apart, args=(there, inside))
    child.start()
    there.close()
    try:
        lines: list[str] = here.recv()
    finally:
        child.join(20)
        here.close()
    return [from_line(line) for line in lines]


def judged(told: list[Observation]) -> tuple[list[Finding], list[Finding]]:
    """Return what is found of control services, and of listeners."""
    control = OpenControlPlane.build(Config(), SURROUNDINGS)
    listeners = OffMeshListener.build(ListenerConfig(), SURROUNDINGS)
    seen = seeing(0, "host.listeners")
    return list(present(control, seen, *told)), list(present(listeners, seen, *told))


def test_an_open_control_service_with_a_peer_on_the_wire(cgroups: Callable[..., Cgroups]) -> None:
    """Redis on every address of a host with a public one: critical, and who is connected is told."""
    group = cgroups().folders[""]

    def inside(far: int) -> list[str]:
        with running(python(_LISTEN, "redis-server", "0.0.0.0", "6379"), folder=group):
            there = ["nsenter", "-t", str(far), "-n", *python(_CONNECT, "8.8.4.1", "6379")]
            with running(there), running(python(_CONNECT, "100.90.1.2", "6379")):
                return look()

    ((found,), (listens,)) = judged(apart(inside))
    assert found.severity is Severity.CRITICAL
    assert {reason.code for reason in found.reasons} == {
        ReasonCode.CONTROL_PLANE_REACHABLE,
        ReasonCode.HOST_HAS_PUBLIC_ADDRESS,
        ReasonCode.PEER_OFF_MESH,
    }
    assert found.evidence == (
        ControlPlaneEvidence(
            plane=ControlPlane.REDIS,
            address="0.0.0.0",
            port=6379,
            published=False,
            outside_peers=1,
            outside_peer="8.8.4.9",
        ),
    )
    assert (found.subject, listens.severity) == (listens.subject, Severity.CRITICAL)


def test_control_services_where_they_belong_stay_quiet(cgroups: Callable[..., Cgroups]) -> None:
    """On loopback, in the mesh and on a container bridge; and another program on such a port."""
    group = cgroups().folders[""]

    def inside(_: int) -> list[str]:
        own = ("127.0.0.1", "6379", "100.90.1.2", "6379", "172.17.0.1", "6379")
        with (
            running(python(_LISTEN, "redis-server", *own), folder=group),
            running(python(_CONNECT, "100.90.1.2", "6379")),
            running(python(_LISTEN, "my-own-thing", "8.8.4.1", "5432"), folder=group),
        ):
            return look()

    control, listens = judged(apart(inside))
    assert control == []
    assert [found.subject.name for found in listens if found.subject] == ["8.8.4.1:5432"]


def test_a_port_that_a_proxy_publishes(cgroups: Callable[..., Cgroups]) -> None:
    """The proxy names the container's port: a database behind another port of the host is found."""
    engine = cgroups().folders[""] / "docker.service"
    engine.mkdir()
    told = "-proto tcp -host-ip 0.0.0.0 -host-port 15432 -container-ip 172.17.0.2 -container-port 5432"
    arguments = ["docker-proxy", "-I", "-S", "-c", _PUBLISH, *told.split()]

    def inside(_: int) -> list[str]:
        with running(arguments, folder=engine, program="/usr/bin/python3"):
            return look()

    try:
        ((found,), (listens,)) = judged(apart(inside))
    finally:
        engine.rmdir()
    (evidence,) = found.evidence
    assert isinstance(evidence, ControlPlaneEvidence)
    assert (evidence.plane, evidence.port, evidence.published) == (ControlPlane.POSTGRESQL, 15432, True)
    assert (found.severity, found.target, listens.target) == (Severity.CRITICAL, None, None)
    assert ReasonCode.PUBLISHED_BY_PROXY in {reason.code for reason in listens.reasons}
