"""Which addresses lie on this machine or on the mesh, where plain HTTP is no risk."""

from __future__ import annotations

import ipaddress
from typing import Final

MESH: Final = (ipaddress.ip_network("100.64.0.0/10"), ipaddress.ip_network("fd7a:115c:a1e0::/48"))
"""The addresses that Tailscale gives (RFC 6598's shared space, and its own part of the private one)."""


def is_loopback_or_mesh(host: str) -> bool:
    """Return whether `host` is an address of this machine or of the mesh; a name is neither."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or any(address in network for network in MESH)
