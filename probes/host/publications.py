"""Ports of containers that a container engine publishes on the host, from the command lines of its proxies.

Docker starts one `docker-proxy` for each published port, in the service's own cgroup, and names both ends in
its arguments (moby, cmd/docker-proxy). So only that cgroup's processes are looked at, and only where that
service is there. With the proxy switched off (`--userland-proxy=false`, or the same word in daemon.json)
there is no socket at all, only a rule of the firewall that takes root to read: then what is published is not
known.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from probes.observation import PublishedPort

PROXIES_MAX: Final = 2048
"""A port that is published for IPv4 and IPv6 has two proxies."""

UNITS: Final = frozenset({"docker.service", "snap.docker.dockerd.service"})
_OPTIONS: Final = ("-host-ip", "-host-port", "-container-ip", "-container-port", "-proto")
_READ_BYTES: Final = 4096
_SETTINGS_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Publications:
    """What is published, and whether that is all: not without proxies, nor where there are too many."""

    known: bool
    ports: tuple[PublishedPort, ...]


def publications(
    pids: Sequence[int], *, proc: Path = Path("/proc"), settings: Path = Path("/etc/docker/daemon.json")
) -> Publications | None:
    """Return what the engine whose processes these are publishes; None where none of them is an engine."""
    known: bool | None = None
    found: set[tuple[str, int, str, int]] = set()
    whole = True
    for pid in pids:
        if len(found) >= PROXIES_MAX:
            whole = False
            break
        arguments = _arguments(proc, pid)
        program = arguments[0].rpartition("/")[2] if arguments else ""
        if program == "dockerd":
            known = not _without_proxy(arguments) and not _told_without(settings)
        elif program == "docker-proxy":
            port = parse_proxy(arguments)
            if port is not None:
                found.add(port)
    if known is None and not found:
        return None
    ports = tuple(
        PublishedPort(address=address, port=port, container_address=inner, container_port=inner_port)
        for address, port, inner, inner_port in sorted(found)
    )
    return Publications(whole and known is not False, ports)


def parse_proxy(arguments: Sequence[str]) -> tuple[str, int, str, int] | None:
    """Return (host address, host port, container's address, its port) of a proxy for TCP; None for others."""
    said = {
        name.replace("--", "-", 1): value
        for name, value in zip(arguments, [*arguments, ""][1:], strict=True)
        if name.replace("--", "-", 1) in _OPTIONS
    }
    if said.get("-proto", "tcp") != "tcp":
        return None
    ports = [said.get("-host-port", ""), said.get("-container-port", "")]
    if not all(text.isascii() and text.isdecimal() and 0 < int(text[:6]) < 65536 for text in ports):
        return None
    addresses = [said.get("-host-ip", ""), said.get("-container-ip", "")]
    if not all(0 < len(text) <= 45 for text in addresses):
        return None
    return addresses[0], int(ports[0]), addresses[1], int(ports[1])


def _arguments(proc: Path, pid: int) -> list[str]:
    try:
        with (proc / str(pid) / "cmdline").open("rb") as file:
            raw = file.read(_READ_BYTES)
    except OSError:
        return []
    return [part.decode(errors="replace") for part in raw.split(b"\0")[:64]]


def _without_proxy(arguments: Sequence[str]) -> bool:
    return any(word in {"--userland-proxy=false", "-userland-proxy=false"} for word in arguments)


def _told_without(settings: Path) -> bool:
    """Return whether the engine's file switches the proxy off; a file that cannot be read says nothing."""
    try:
        with settings.open("rb") as file:
            said = json.loads(file.read(_SETTINGS_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(said, dict) and said.get("userland-proxy") is False
