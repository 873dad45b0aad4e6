"""`host.listeners`: every listening TCP socket of the host, at the start and once a minute.

The kernel's events (`kernel.listener`) are quick but begin when the agent does and say nothing of the
network namespace; this is the whole truth of the host's own namespace, some seconds old. A socket names its
cgroup and not its process, so a listener has a name where all processes of its cgroup have the same one.

Beside it stand the ports that a container engine publishes, where one runs, and who is connected to services
that give command of the host (`control_services.py`), where one listens beyond loopback: a host without them
pays nothing for this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from probes.host import control_services
from probes.host.identity import Identifier, decode_name
from probes.host.publications import UNITS, Publications, publications
from probes.host.sockets import ListeningSocket, SocketsUnreadable, host_addresses, listening_sockets
from probes.host.stalls import small_file
from probes.observation import (
    BlindReason,
    ControlListener,
    ControlListeners,
    Instant,
    Listener,
    ListenerInventory,
    Observation,
    Origin,
    PublishedPorts,
    SensorName,
)
from probes.sensor import SensorBlind

NAME = SensorName("host.listeners")
CONTROL_MAX: Final = 64
_MEMBERS_MAX: Final = 4096
_NAMED_MAX: Final = 64


class HostListeners:
    """Takes the inventory of listeners and of the host's own addresses."""

    name = NAME
    period_s = 60.0

    def __init__(
        self,
        *,
        identifier: Identifier,
        root: Path | None = None,
        proc: Path = Path("/proc"),
        sockets: Callable[[], tuple[ListeningSocket, ...]] = listening_sockets,
        addresses: Callable[[], tuple[tuple[str, str], ...]] = host_addresses,
        connected: Callable[[int], tuple[tuple[str, str], ...]] = control_services.connected_to,
    ) -> None:
        """`root` is where the cgroup v2 hierarchy is mounted; without it no listener's process is known."""
        self._identifier = identifier
        self._root = root
        self._proc = proc
        self._sockets = sockets
        self._addresses = addresses
        self._connected = connected
        self._engine = False

    def __repr__(self) -> str:
        return "HostListeners()"

    def open(self) -> None:
        """Try once, so that a host whose table cannot be read is blind from the start."""
        self._table()

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return one inventory, between what is published and what commands the host, if there is any."""
        sockets = self._table()
        groups = {one.cgroup_id for one in sockets}
        origins = {group: self._named(self._identifier.origin(cgroup_id=group)) for group in groups}
        listeners = tuple(Listener(one.address, one.port, origins[one.cgroup_id]) for one in sockets)
        published, before = self._published(listeners), self._engine
        self._engine = published is not None
        if published is None and before:
            published = Publications(known=True, ports=())  # the engine is gone, and its proxies with it
        found: list[Observation] = []
        if published is not None:
            found.append(PublishedPorts(sensor=NAME, at=now, known=published.known, ports=published.ports))
        found.append(
            ListenerInventory(sensor=NAME, at=now, listeners=listeners, host_addresses=self._addresses())
        )
        control = self._control(listeners, published)
        if control:
            found.append(ControlListeners(sensor=NAME, at=now, listeners=control))
        return found

    def waiting(self) -> bool:
        """There is always an inventory."""
        return True

    def settle(self) -> None:
        """Nothing to note: every inventory is whole."""

    def wakeup_fd(self) -> int | None:
        """An inventory waits for its turn."""
        return None

    def close(self) -> None:
        """Hold nothing, let go of nothing."""

    def _table(self) -> tuple[ListeningSocket, ...]:
        try:
            return self._sockets()
        except SocketsUnreadable as error:
            raise SensorBlind(BlindReason.UNSUPPORTED_PLATFORM, str(error)) from error

    def _published(self, listeners: Iterable[Listener]) -> Publications | None:
        """Look at the engine's own processes, where its service has a cgroup."""
        paths = {one.origin.cgroup_path for one in listeners if one.origin.unit in UNITS}
        paths |= {f"/system.slice/{unit}" for unit in UNITS}
        pids = [pid for path in sorted(path for path in paths if path) for pid in self._members(path)]
        return publications(pids, proc=self._proc) if pids else None

    def _control(
        self, listeners: Iterable[Listener], published: Publications | None
    ) -> tuple[ControlListener, ...]:
        inner = {(one.address, one.port): one.container_port for one in published.ports} if published else {}
        found: list[ControlListener] = []
        for one in listeners:
            if _is_loopback(one.address):
                continue
            behind = inner.get((one.address, one.port))
            port = one.port if behind is None else behind
            if port not in control_services.PORTS or len(found) >= CONTROL_MAX:
                continue
            # What the engine's proxy is called says nothing about the container behind it.
            pids = self._members(one.origin.cgroup_path) if behind is None else []
            names = control_services.names_of(self._proc, pids)
            service = control_services.service_at(port, names)
            assert service is not None
            found.append(
                ControlListener(
                    service=service,
                    address=one.address,
                    port=one.port,
                    origin=one.origin,
                    recognised=control_services.recognised(service, names),
                    published=behind is not None,
                    peers=self._peers(one.port),
                )
            )
        return tuple(found)

    def _peers(self, port: int) -> tuple[tuple[str, str], ...]:
        try:
            return self._connected(port)
        except OSError:  # a sandbox without netlink: nobody is known to be connected
            return ()

    def _named(self, origin: Origin) -> Origin:
        """Return `origin` with the name of its processes, where all of them have one."""
        pids = self._members(origin.cgroup_path)
        if not pids or len(pids) > _NAMED_MAX:
            return origin
        names = {small_file(f"{self._proc}/{pid}/comm").removesuffix(b"\n") for pid in pids} - {b""}
        return replace(origin, process_name=decode_name(names.pop())) if len(names) == 1 else origin

    def _members(self, path: str | None) -> list[int]:
        """Return the processes of a cgroup, none where they cannot be read; the root's belong to nobody."""
        if self._root is None or path is None or path == "/":
            return []
        try:
            words = Path(f"{self._root}{path}", "cgroup.procs").read_text().split()
        except (OSError, ValueError):
            return []
        return [int(word) for word in words[:_MEMBERS_MAX] if word.isdecimal() and word != "0"]


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"
