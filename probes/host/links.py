"""`host.links`: carriers of the host's network hardware and error counters of its RDMA ports, from sysfs.

RDMA (RoCE, InfiniBand) goes past TCP, so nothing of the kernel's sockets shows what its links do; the
device's own counters do, and every user may read them (Documentation/ABI/stable/sysfs-class-infiniband, and
the vendor's under hw_counters). Interfaces without a device behind them (bridges, the containers' pairs)
come and go with the containers and are left out.

A link is told at the first read, when something about it changed, and for `_AFTER_S` from then on, so that
its calm is told as well. Everything else is silence, and costs a few small files a read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from probes.observation import BlindReason, Instant, InterfaceLink, Observation, RdmaPort, SensorName
from probes.sensor import SensorBlind

NAME: Final = SensorName("host.links")
COUNTERS: Final = (
    "counters/link_downed",
    "counters/symbol_error",
    "counters/port_rcv_errors",
    "hw_counters/local_ack_timeout_err",
    "hw_counters/rnr_nak_retry_err",
    "hw_counters/packet_seq_err",
    "hw_counters/out_of_sequence",
    "hw_counters/roce_adp_retrans",
)

_INTERFACES_MAX: Final = 64
_PORTS_MAX: Final = 32
_SEARCH_S: Final = 60.0
_AFTER_S: Final = 900.0
_IFF_UP: Final = 1  # linux/if.h
_CARRIER: Final = {"1": True, "0": False}  # it cannot be read where the interface is switched off
_ACTIVE: Final = "4:"  # IB_PORT_ACTIVE, as sysfs prints it: "4: ACTIVE"


@dataclass(slots=True)
class _Interface:
    """One interface at the last look."""

    changes: int | None = None
    state: tuple[bool | None, bool] | None = None
    stirred: Instant | None = None


@dataclass(slots=True)
class _Port:
    """One RDMA port: the interface on its device, and its counters at the last look, by their files."""

    interface: str | None
    counters: dict[str, int | None] = field(default_factory=dict)
    active: bool | None = None
    stirred: Instant | None = None


class LinksSensor:
    """Watches carriers and RDMA counters."""

    name = NAME
    period_s = 10.0

    def __init__(self, *, sys_: Path = Path("/sys"), counts: Callable[[str], bool] | None = None) -> None:
        """`counts` says of an interface's folder in sysfs whether it is watched; else hardware is."""
        self._net = f"{sys_}/class/net"
        self._rdma = f"{sys_}/class/infiniband"
        self._counts = counts or _is_hardware
        self._interfaces: dict[str, _Interface] = {}
        self._ports: dict[tuple[str, int], _Port] = {}
        self._searched: Instant | None = None
        self._read_at: Instant | None = None

    def __repr__(self) -> str:
        return f"LinksSensor({NAME}, interfaces={len(self._interfaces)}, rdma ports={len(self._ports)})"

    def open(self) -> None:
        """Raise SensorBlind where there is no sysfs."""
        self.close()
        if not os.path.isdir(self._net):  # noqa: PTH112 -- hot path, no Path objects
            raise SensorBlind(BlindReason.UNSUPPORTED_PLATFORM, f"{sys.platform} has no {self._net}")

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return what there is to say of each link."""
        window_s = self.period_s if self._read_at is None else now.since_s(self._read_at)
        self._read_at = now
        if self._searched is None or now.since_s(self._searched) >= _SEARCH_S:
            self._search()
            self._searched = now
        return [*self._links(now, window_s), *self._rdma_ports(now, window_s)]

    def waiting(self) -> bool:
        """There is always a link to look at."""
        return True

    def settle(self) -> None:
        """Nothing to note: the counters are the kernel's."""

    def wakeup_fd(self) -> int | None:
        """A look waits for its turn."""
        return None

    def close(self) -> None:
        """Forget everything."""
        self._interfaces.clear()
        self._ports.clear()
        self._searched = self._read_at = None

    def _search(self) -> None:
        names = [name for name in _names(self._net) if self._counts(f"{self._net}/{name}")]
        known = self._interfaces
        self._interfaces = {name: known.get(name) or _Interface() for name in names[:_INTERFACES_MAX]}
        ports: dict[tuple[str, int], _Port] = {}
        for device in _names(self._rdma):
            interface = next(iter(_names(f"{self._rdma}/{device}/device/net")), None)
            for number in _names(f"{self._rdma}/{device}/ports"):
                if number.isdecimal() and len(number) < 4 and len(ports) < _PORTS_MAX:
                    key = (device, int(number))
                    ports[key] = self._ports.get(key) or _Port(interface)
        self._ports = ports

    def _links(self, now: Instant, window_s: float) -> Iterator[InterfaceLink]:
        for name, link in self._interfaces.items():
            folder = f"{self._net}/{name}"
            changes = _number(f"{folder}/carrier_changes")
            flags = _text(f"{folder}/flags")
            if changes is None or not flags:
                continue  # it is gone; the next search notices
            enabled = bool(_hexadecimal(flags) & _IFF_UP)
            state = (_CARRIER.get(_text(f"{folder}/carrier")) if enabled else False, enabled)
            rise = 0 if link.changes is None else max(0, changes - link.changes)
            if rise or state != link.state:
                link.stirred = now
            link.changes, link.state = changes, state
            if link.stirred is not None and now.since_s(link.stirred) <= _AFTER_S:
                yield InterfaceLink(
                    sensor=NAME,
                    at=now,
                    interface=name,
                    up=state[0],
                    enabled=enabled,
                    changes=rise,
                    window_s=window_s,
                )

    def _rdma_ports(self, now: Instant, window_s: float) -> Iterator[RdmaPort]:
        for (device, number), port in self._ports.items():
            folder = f"{self._rdma}/{device}/ports/{number}"
            told = _text(f"{folder}/state")
            if not told:
                continue
            active = told.startswith(_ACTIVE)
            rises = tuple(self._rises(folder, port))
            if rises or active != port.active:
                port.stirred = now
            port.active = active
            if port.stirred is not None and now.since_s(port.stirred) <= _AFTER_S:
                yield RdmaPort(
                    sensor=NAME,
                    at=now,
                    device=device,
                    port=number,
                    active=active,
                    interface=port.interface,
                    rises=rises,
                    window_s=window_s,
                )

    @staticmethod
    def _rises(folder: str, port: _Port) -> Iterator[tuple[str, int]]:
        for counter in COUNTERS:
            before, now = port.counters.get(counter), _number(f"{folder}/{counter}")
            port.counters[counter] = now
            if before is not None and now is not None and now > before:
                yield counter.partition("/")[2], now - before


def _is_hardware(folder: str) -> bool:
    return os.path.exists(f"{folder}/device")  # noqa: PTH110 -- hot path, no Path objects


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 -- hot path, no Path objects
    except OSError:
        return []


def _number(path: str) -> int | None:
    text = _text(path)
    return int(text) if text.isdecimal() and len(text) <= 20 else None


def _hexadecimal(text: str) -> int:
    try:
        return int(text[:18], 16)
    except ValueError:
        return 0


def _text(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 -- hot path, no Path objects
            return file.read(64).decode("ascii", "replace").strip()
    except OSError:
        return ""
