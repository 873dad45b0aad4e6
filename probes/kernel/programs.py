"""What a kernel program is to the loader: its source, where its functions attach, what it takes and shares.

Every name in a program's C begins with its own name, so that all enabled programs compile as one module.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from probes.observation import SensorName

_FOLDER = Path(__file__).parent


class Capability(enum.IntEnum):
    """A capability that loading or attaching takes, by its number in linux/capability.h."""

    NET_ADMIN = 12
    NET_RAW = 13
    SYS_ADMIN = 21
    PERFMON = 38
    BPF = 39


LOADING = frozenset({Capability.BPF, Capability.PERFMON})
"""What every program takes."""


class Direction(enum.IntEnum):
    """Which packets of a cgroup's sockets, by the number of the attach type in linux/bpf.h."""

    INGRESS = 0
    EGRESS = 1


class SocketCall(enum.IntEnum):
    """What a socket of a cgroup is asked to do, by the number of the attach type in linux/bpf.h."""

    BIND4 = 8
    BIND6 = 9
    CONNECT4 = 10
    CONNECT6 = 11
    SENDMSG4 = 14
    SENDMSG6 = 15


@dataclass(frozen=True, slots=True)
class Attachment:
    """One function of a program and the tracepoint it runs at.

    An attachment that is not `required` may be missing in the running kernel (`open` on arm64) without
    blinding the sensor. One that is `asleep` is loaded and not run: its reader gets the program and the
    event, and lets the one run at the other while it is worth what it costs (`probes.kernel.asleep`).
    """

    function: str
    tracepoint: str
    required: bool = True
    asleep: bool = False


@dataclass(frozen=True, slots=True)
class CgroupAttachment:
    """One function of a program and the packets it sees: of every socket of the host, in one direction."""

    function: str
    direction: Direction


@dataclass(frozen=True, slots=True)
class SocketAttachment:
    """One function of a program and the call of any of the host's sockets that it may refuse."""

    function: str
    call: SocketCall


@dataclass(frozen=True, slots=True)
class UprobeAttachment:
    """One function of a program and the call in a library that it runs at, or at whose return.

    A library that cannot be watched is noted and blinds nothing.
    """

    function: str
    object_file: str
    symbol: str
    at_return: bool = False


AnyAttachment = Attachment | CgroupAttachment | SocketAttachment | UprobeAttachment


@dataclass(frozen=True, slots=True)
class KernelProgram:
    """One `x.bpf.c`: its stem, its attachments, and the maps that go to the agent.

    `capabilities` are those that attaching it takes beside LOADING. `ports` names the macro that stands for
    the watched ports in a program that watches some, see `port_cases`. `scoped` is a program that holds the
    declared scopes: it is left out where none is declared. `more` are stems of further files of the same
    program.
    """

    sensor: SensorName
    stem: str
    attachments: tuple[AnyAttachment, ...]
    maps: tuple[str, ...]
    capabilities: frozenset[Capability] = frozenset()
    ports: str | None = None
    module: str | None = None
    more: tuple[str, ...] = ()
    scoped: bool = False

    @property
    def source(self) -> str:
        """The C text."""
        return "\n".join((_FOLDER / f"{stem}.bpf.c").read_text() for stem in (self.stem, *self.more))

    @property
    def tracepoints(self) -> tuple[Attachment, ...]:
        """Its attachments to tracepoints."""
        return tuple(a for a in self.attachments if isinstance(a, Attachment))


def port_cases(macro: str, ports: Iterable[int]) -> str:
    """Return C: ports as the cases of a switch, because comparing with constants is cheaper than a table."""
    return f"#define {macro} {' '.join(f'case {port}:' for port in sorted(set(ports)))}\n"


def shared_source() -> str:
    """Return the C that comes before every program."""
    return (_FOLDER / "ring.bpf.h").read_text()
