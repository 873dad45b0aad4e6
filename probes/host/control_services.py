"""Which ports let whoever reaches them command the host or read all it holds, and who is connected to them.

A port is no proof: each service is also recognised by the processes in the listener's cgroup. Ports that many
programs use (`SHARED`) mean nothing without that. Ray's global store and Redis have the same port, so there
the process says which it is. Ports and names are those of the projects' own documentation.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from probes.host.sockets import canonical, dump
from probes.observation import ControlService

PORTS: Final = {
    2375: ControlService.DOCKER_API,
    2379: ControlService.ETCD,
    5432: ControlService.POSTGRESQL,
    6379: ControlService.RAY_GCS,
    8265: ControlService.RAY_DASHBOARD,
    8888: ControlService.JUPYTER,
    10001: ControlService.RAY_CLIENT,
    10250: ControlService.KUBELET,
    10255: ControlService.KUBELET,
    11434: ControlService.OLLAMA,
    18789: ControlService.OPENCLAW,
}
SHARED: Final = frozenset({8888, 10001, 10255})
"""Ports that a listener must be recognised on before it means anything."""

PEERS_MAX: Final = 256
_PROCESSES: Final = 64
_READ_BYTES: Final = 4096
_RAY: Final = ("gcs_server", "raylet", "ray::")
_NAMES: Final = {
    ControlService.DOCKER_API: ("dockerd",),
    ControlService.ETCD: ("etcd",),
    ControlService.POSTGRESQL: ("postgres",),
    ControlService.REDIS: ("redis-server", "valkey-server", "keydb-server"),
    ControlService.RAY_GCS: _RAY,
    ControlService.RAY_DASHBOARD: _RAY,
    ControlService.RAY_CLIENT: _RAY,
    ControlService.JUPYTER: ("jupyter",),
    ControlService.KUBELET: ("kubelet", "k3s"),
    ControlService.OLLAMA: ("ollama",),
    ControlService.OPENCLAW: ("openclaw", "clawdbot"),
}
"""How a service's processes call themselves, or what an interpreter runs as one."""

_INTERPRETER: Final = re.compile(r"python[0-9.]*|node|nodejs|bun|sh|bash")
_NETLINK_SOCK_DIAG: Final = 4  # linux/netlink.h
_SOCK_DIAG_BY_FAMILY: Final = 20
_TCP: Final = 6
_ESTABLISHED: Final = 1
_DIAG: Final = struct.Struct("=BBBB2s2s16s16sI8sIIIII")  # struct inet_diag_msg
_WIDTH: Final = {int(socket.AF_INET): 4, int(socket.AF_INET6): 16}


def names_of(proc: Path, pids: Sequence[int]) -> tuple[str, ...]:
    """Return what these processes are called, and what an interpreter among them runs; at most 64."""
    found: list[str] = []
    for pid in pids[:_PROCESSES]:
        name, arguments = _read(proc, pid, "comm"), _read(proc, pid, "cmdline")
        program = arguments[0].rpartition("/")[2] if arguments else ""
        found += [word for word in (*name, program) if word]
        if _INTERPRETER.fullmatch(program) and "-c" not in arguments:
            script = next((word for word in arguments[1:4] if word and not word.startswith("-")), "")
            found += [part for part in script.split("/") if part]
    return tuple(found)


def _read(proc: Path, pid: int, name: str) -> list[str]:
    try:
        with (proc / str(pid) / name).open("rb") as file:
            raw = file.read(_READ_BYTES)
    except OSError:
        return []
    return [part.decode(errors="replace") for part in raw.rstrip(b"\n").split(b"\0")[:4]]


def recognised(service: ControlService, names: Sequence[str]) -> bool | None:
    """Return whether one of these processes is that service's; None where there are none to look at."""
    if not names:
        return None
    return any(name.startswith(_NAMES[service]) for name in names)


def service_at(port: int, names: Sequence[str]) -> ControlService | None:
    """Return which service listens on `port`, told apart by its processes' names; None for no such port."""
    service = PORTS.get(port)
    if service is ControlService.RAY_GCS and not recognised(service, names):
        return ControlService.REDIS
    return service


def connected_to(port: int) -> tuple[tuple[str, str], ...]:
    """Return (own address, peer's address) of the established connections to a local port, sorted.

    The kernel sorts by port before it answers. Raises OSError where it does not answer at all.
    """
    found: set[tuple[str, str]] = set()
    for family in _WIDTH:
        # struct inet_diag_req_v2: family, protocol, extensions, padding, states, then the socket id
        wanted = struct.pack("=BBBBI", family, _TCP, 0, 0, 1 << _ESTABLISHED) + port.to_bytes(2, "big")
        for kind, body in dump(_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, wanted.ljust(56, b"\0")):
            found.update(parse_connection(kind, body, port))
            if len(found) >= PEERS_MAX:
                return tuple(sorted(found))
    return tuple(sorted(found))


def parse_connection(kind: int, body: bytes, port: int) -> Iterator[tuple[str, str]]:
    """Read one answer of sock_diag; anything but a connection to `port` yields nothing."""
    if kind != _SOCK_DIAG_BY_FAMILY or len(body) < _DIAG.size:
        return
    family, state, _, _, own_port, _, own, peer, *_ = _DIAG.unpack_from(body)
    width = _WIDTH.get(family)
    if state != _ESTABLISHED or width is None or int.from_bytes(own_port, "big") != port:
        return
    yield canonical(own[:width]), canonical(peer[:width])
