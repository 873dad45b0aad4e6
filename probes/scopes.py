"""What a declared scope may do, as rules that can be checked: read from words, refused with a reason.

Both sides read the same table `[[scope]]`: the loader, which writes the rules where nobody can change them,
and the agent, which says which cgroup each scope is. This is what both hold it against.
"""

from __future__ import annotations

import enum
import hashlib
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

SCOPES_MAX = 16
EXECUTABLES_MAX = 64
DESTINATIONS_MAX = 64
LISTENERS_MAX = 64
PATH_BYTES = 251
"""The longest path of an executable that the kernel program compares."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,245}\.(?:service|scope|slice)")
_MAPPED = b"\0" * 10 + b"\xff\xff"
_MAPPED_BITS = 96


class ScopeInvalid(ValueError):
    """A declared scope cannot be used; the message says what is wrong with it."""


class ScopeMode(enum.StrEnum):
    """What happens to a connection or a port that a scope does not allow."""

    AUDIT = "audit"  # it passes, and is told
    DENY = "deny"  # it is refused with EPERM, and is told


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeRule:
    """`[[scope]]`: what a unit (or a cgroup, by its path) may execute, connect to and listen on.

    None allows everything of that sort, an empty tuple nothing. Destinations are ``address/prefix`` with an
    optional ``:port``, listeners are ports.
    """

    name: str
    unit: str = ""
    cgroup: str = ""
    mode: ScopeMode = ScopeMode.AUDIT
    executables: tuple[str, ...] | None = None
    destinations: tuple[str, ...] | None = None
    listeners: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Destination:
    """A network, and a port of it (0: any). One of IPv4 lies in ::ffff:0:0/96, as in the kernel program."""

    address: bytes
    bits: int
    port: int

    @property
    def is_ipv4(self) -> bool:
        """Whether it is a network of IPv4; one of IPv6 holds no such address, even where it holds all."""
        return self.bits >= _MAPPED_BITS and self.address.startswith(_MAPPED)


def destination(text: str) -> Destination:
    """Read ``10.0.0.0/8``, ``10.1.2.3:443``, ``fd00::/8`` or ``[fd00::/8]:443``; raise ScopeInvalid."""
    network, port = text, ""
    if text.startswith("["):
        network, closed, port = text[1:].partition("]")
        if not closed or (port and not port.startswith(":")):
            raise ScopeInvalid(f"destination {text!r}: expected [address/prefix]:port")
        port = port[1:] or ("x" if port else "")
    elif text.count(":") == 1:
        network, _, port = text.partition(":")
        port = port or "x"
    if port and not (port.isascii() and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise ScopeInvalid(f"destination {text!r}: its port is none (1 to 65535)")
    try:
        found = ipaddress.ip_network(network)
    except ValueError as error:
        raise ScopeInvalid(f"destination {text!r}: {error}") from error
    if isinstance(found, ipaddress.IPv6Network):
        if "%" in network:
            raise ScopeInvalid(f"destination {text!r}: an interface cannot be part of it")
        return Destination(found.network_address.packed, found.prefixlen, int(port or 0))
    return Destination(_MAPPED + found.network_address.packed, _MAPPED_BITS + found.prefixlen, int(port or 0))


def label(rule: ScopeRule) -> str:
    """Return the scope as it is held, in a line: its name, its mode, and a short print of what it allows.

    The loader notes it and the agent's doctor holds it against the file, which may have changed since.
    """
    allowed = (rule.unit, rule.cgroup, rule.executables, rule.destinations, rule.listeners)
    short = hashlib.blake2b(repr(allowed).encode(errors="replace"), digest_size=4).hexdigest()
    return f"scope {rule.name}: {rule.mode.value} ({short})"


def check(rules: Iterable[ScopeRule]) -> None:
    """Raise ScopeInvalid for the first rule that cannot be kept."""
    seen: set[str] = set()
    places: set[str] = set()
    for number, rule in enumerate(rules, start=1):
        if number > SCOPES_MAX:
            raise ScopeInvalid(f"{SCOPES_MAX} scopes are the most there can be")
        if not _NAME.fullmatch(rule.name):
            raise ScopeInvalid(f"scope {rule.name!r}: a name has a-z, 0-9, _ and -, at most 32 of them")
        try:
            _check(rule)
        except ScopeInvalid as error:
            raise ScopeInvalid(f"scope {rule.name}: {error}") from error
        if rule.name in seen:
            raise ScopeInvalid(f"scope {rule.name}: declared twice")
        place = rule.unit or rule.cgroup
        if place in places:
            raise ScopeInvalid(f"scope {rule.name}: {place} has a scope already")
        seen.add(rule.name)
        places.add(place)


def _check(rule: ScopeRule) -> None:
    if bool(rule.unit) == bool(rule.cgroup):
        raise ScopeInvalid("name exactly one of unit and cgroup")
    if rule.unit and not _UNIT.fullmatch(rule.unit):
        raise ScopeInvalid(f"{rule.unit!r} is no name of a service, scope or slice")
    parts = rule.cgroup.split("/")
    if rule.cgroup and (rule.cgroup == "/" or parts[0] or not all(parts[1:]) or {".", ".."} & set(parts)):
        raise ScopeInvalid(f"{rule.cgroup!r} is no path below the root of the cgroups, as /system.slice/x")
    if "\0" in rule.cgroup or len(rule.cgroup.encode(errors="replace")) > 1024:
        raise ScopeInvalid("its cgroup is no path")
    if rule.executables is None and rule.destinations is None and rule.listeners is None:
        raise ScopeInvalid("limits nothing: name executables, destinations or listeners")
    _check_lists(rule)


def _check_lists(rule: ScopeRule) -> None:
    for path in rule.executables or ():
        if not path.startswith("/") or "\0" in path or len(path.encode(errors="replace")) > PATH_BYTES:
            raise ScopeInvalid(f"executable {path!r} is no absolute path of at most {PATH_BYTES} bytes")
    for text in rule.destinations or ():
        destination(text)
    for port in rule.listeners or ():
        if not 1 <= port <= 65535:
            raise ScopeInvalid(f"listener {port} is no port (1 to 65535)")
    for what, found, most in (
        ("executables", rule.executables, EXECUTABLES_MAX),
        ("destinations", rule.destinations, DESTINATIONS_MAX),
        ("listeners", rule.listeners, LISTENERS_MAX),
    ):
        if len(found or ()) > most:
            raise ScopeInvalid(f"{len(found or ())} {what}, at most {most}")
