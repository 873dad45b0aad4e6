"""From where an address can be reached: the mesh, the container bridges, the host's own addresses.

A wildcard listener is as exposed as the host's most exposed address. 100.64.0.0/10 counts as the mesh only
while the host has a mesh interface, because providers use the same range for carrier-grade NAT
(RFC 6598); 100.115.92.0/23 is inside it and belongs to ChromeOS.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Self

import msgspec
from msgspec import Meta

from escalation.model import Reach
from probes.observation import Listener

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
HostAddresses = Sequence[tuple[str, str]]


class AllowedListener(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A port that is meant to be reachable off the mesh; every part that is given must match.

    With `last_port` all ports from `port` to that one, as the workers of a cluster take theirs from a range.
    """

    port: Annotated[int, Meta(ge=1, le=65535)]
    last_port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    address: str | None = None
    process: str | None = None
    unit: str | None = None

    def __post_init__(self) -> None:
        """Refuse an address that is none, and a range that ends before it begins."""
        if self.address is not None:
            ipaddress.ip_address(self.address)
        if self.last_port is not None and self.last_port < self.port:
            raise ValueError(f"last_port {self.last_port} is below port {self.port}")

    def matches(self, listener: Listener) -> bool:
        """Return whether `listener` is the one that is allowed."""
        return (
            self.port <= listener.port <= (self.last_port or self.port)
            and (self.address is None or parse(self.address) == parse(listener.address))
            and (self.process is None or self.process == listener.origin.process_name)
            and (self.unit is None or self.unit == listener.origin.unit)
        )


class Mesh(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the private mesh looks like on a host. Interfaces are given by the start of their name.

    `links` are networks of direct links between hosts, as that of two nodes which serve one model together:
    who is on such a link is inside.
    """

    networks: tuple[str, ...] = ("100.64.0.0/10", "fd7a:115c:a1e0::/48")
    excluded: tuple[str, ...] = ("100.115.92.0/23",)
    links: Annotated[tuple[str, ...], Meta(max_length=16)] = ()
    interfaces: tuple[str, ...] = ("tailscale",)
    bridges: tuple[str, ...] = (
        "docker",
        "br-",
        "cni",
        "podman",
        "nerdctl",
        "virbr",
        "lxcbr",
        "lxdbr",
        "incusbr",
        "veth",
        "flannel",
        "cali",
    )

    def __post_init__(self) -> None:
        """Refuse a network that is none."""
        for network in (*self.networks, *self.excluded, *self.links):
            ipaddress.ip_network(network)


def parse(text: str) -> Address | None:
    """Return the address, an IPv4-mapped one as IPv4; None for what is no address."""
    try:
        address = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@dataclass(frozen=True, slots=True)
class Reachability:
    """The host's addresses sorted by who can reach them; `None` anywhere means: nobody off the mesh.

    A host with hundreds of containers has hundreds of addresses and as many listeners, so what a wildcard
    stands for is worked out once.
    """

    mesh: Mesh
    mesh_networks: tuple[Network, ...]
    excluded: tuple[Network, ...]
    links: tuple[Network, ...]
    mesh_up: bool
    interface_of: Mapping[Address, str]
    wildcards: Mapping[int, Reach | None]
    """By the version of IP."""

    @classmethod
    def of(cls, mesh: Mesh, host_addresses: HostAddresses) -> Self:
        """Sort `host_addresses`; what cannot be read as an address is left out."""
        interface_of: dict[Address, str] = {}
        for text, name in host_addresses:
            found = parse(text)
            if found is not None:
                interface_of.setdefault(found, name)
        made = cls(
            mesh=mesh,
            mesh_networks=tuple(ipaddress.ip_network(text) for text in mesh.networks),
            excluded=tuple(ipaddress.ip_network(text) for text in mesh.excluded),
            links=tuple(ipaddress.ip_network(text) for text in mesh.links),
            mesh_up=any(name.startswith(mesh.interfaces) for name in interface_of.values()),
            interface_of=interface_of,
            wildcards={},
        )
        reach_of = {address: made.of_address(address) for address in interface_of}
        # An IPv6 wildcard takes IPv4 connections too unless its socket says otherwise, so it counts for both.
        wildcards = {4: _widest(reach for own, reach in reach_of.items() if own.version == 4)}
        return replace(made, wildcards=wildcards | {6: _widest(reach_of.values())})

    def of_address(self, address: Address) -> Reach | None:
        """Return from where one specific address can be reached.

        An address of the host's own is judged by its interface, so that a provider's 100.64.0.0/10 on the
        uplink is told apart from the mesh; any other by the mesh's networks.
        """
        if address.is_loopback or any(address in link for link in self.links):
            return None
        interface = self.interface_of.get(address)
        if interface is None:
            if self.mesh_up and self._in_mesh_networks(address):
                return None
        elif interface.startswith((*self.mesh.interfaces, *self.mesh.bridges)):
            return None
        return Reach.PUBLIC if address.is_global else Reach.PRIVATE_NETWORK

    def of_wildcard(self, wildcard: Address) -> Reach | None:
        """Return the widest reach among the host's own addresses that `wildcard` stands for."""
        return self.wildcards[wildcard.version]

    def of_listener(self, address: Address) -> Reach | None:
        """Return from where a listener on `address` can be reached, be it the wildcard.

        An address of the mesh that no interface has reaches nobody: its socket outlives a mesh that is down,
        and is made a moment before the host's addresses are read again when it comes up.
        """
        if address.is_unspecified:
            return self.of_wildcard(address)
        if self.interface_of and address not in self.interface_of and self._in_mesh_networks(address):
            return None
        return self.of_address(address)

    def of_peer(self, own: Address, peer: Address) -> Reach | None:
        """Return where `peer` is, which is connected to the host's address `own`; None for one inside.

        Who came in by a container bridge, or from the host itself, is inside whatever address it has.
        """
        if self.of_address(own) is None or peer in self.interface_of:
            return None
        return self.of_address(peer)

    def _in_mesh_networks(self, address: Address) -> bool:
        return any(address in network for network in self.mesh_networks) and not any(
            address in network for network in self.excluded
        )


def _widest(reaches: Iterable[Reach | None]) -> Reach | None:
    found = set(reaches)
    if Reach.PUBLIC in found:
        return Reach.PUBLIC
    return Reach.PRIVATE_NETWORK if Reach.PRIVATE_NETWORK in found else None
