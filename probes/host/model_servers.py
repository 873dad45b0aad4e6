"""Which model servers run here: who serves in a cgroup, and which processes look like a server at all.

Command lines are looked at to recognise a server and to read its port, and are gone when a function returns.
The port that a process was told to serve on is a guess (it may come from an environment that nobody may
read); it is for suggestions to a person.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from probes.host.identity import Identifier, server_kind
from probes.observation import CgroupId, Origin, ServerKind

DEFAULT_PORTS: Final = {
    ServerKind.LITELLM: 4000,
    ServerKind.LLAMA_CPP: 8080,
    ServerKind.OLLAMA: 11434,
    ServerKind.TENSORRT_LLM: 8000,
    ServerKind.VLLM: 8000,
    ServerKind.WHISPER: 8000,
}
"""Where each kind serves when nobody says otherwise, by its own documentation."""

COMPANION_PORTS: Final = {
    ServerKind.LITELLM: 4000,
    ServerKind.OPEN_WEBUI: 8080,
    ServerKind.POSTGRESQL: 5432,
    ServerKind.RAY: 6379,
}
"""The same for what runs no model itself and is needed all the same."""

_ALL_PORTS: Final = DEFAULT_PORTS | COMPANION_PORTS

_PORT_OPTION = re.compile(r"--port(?:=(\d{1,5}))?")
_PROCESSES = 64
_FRESH_S = 30.0
_CGROUPS = 256


@dataclass(frozen=True, slots=True)
class ModelServer:
    """A process that looks like a model server, and the port that it seems to serve on."""

    kind: ServerKind
    pid: int
    port: int


def running(proc: Path = Path("/proc")) -> tuple[ModelServer, ...]:
    """Return the main processes of model servers, by pid; workers that serve nobody are left out."""
    found = [server for pid in _pids(proc) if (server := looked_at(proc, pid)) is not None]
    return tuple(sorted(found, key=lambda server: server.pid))


class Servers:
    """Says who serves in a cgroup, with a short memory: the answer is asked for with every exchange."""

    def __init__(self, *, identifier: Identifier, root: Path | None, monotonic: Callable[[], float]) -> None:
        """`root` is where the cgroup v2 hierarchy is mounted."""
        self._identifier = identifier
        self._root = root
        self._monotonic = monotonic
        self._known: OrderedDict[int, tuple[float, Origin]] = OrderedDict()

    def __repr__(self) -> str:
        return f"Servers(root={self._root}, known={len(self._known)})"

    def origin(self, cgroup_id: int) -> Origin:
        """Return who serves from this cgroup (0: unknown), as far as one process or one kind stands out."""
        if not cgroup_id:
            return Origin()
        now = self._monotonic()
        known = self._known.get(cgroup_id)
        if known is not None and now - known[0] < _FRESH_S:
            return known[1]
        found = self._found(CgroupId(cgroup_id))
        self._known[cgroup_id] = (now, found)
        self._known.move_to_end(cgroup_id)
        while len(self._known) > _CGROUPS:
            self._known.popitem(last=False)
        return found

    def _found(self, cgroup_id: CgroupId) -> Origin:
        place = self._identifier.origin(cgroup_id=cgroup_id)
        pids = self._members(place.cgroup_path)
        members = [self._identifier.origin(pid=pid, cgroup_id=cgroup_id) for pid in pids]
        servers = [member for member in members if member.server is not ServerKind.OTHER]
        if len({server.server for server in servers}) == 1:
            return min(servers, key=lambda server: (server.start_ticks or 0, server.pid or 0))
        if len(members) == 1:
            return members[0]
        # Several, and none stands out: the cgroup is known, the process is not.
        return replace(place, pid=None, start_ticks=None, process_name=None, server=ServerKind.OTHER)

    def _members(self, path: str | None) -> list[int]:
        if self._root is None or path is None:
            return []
        try:
            lines = Path(f"{self._root}{path}", "cgroup.procs").read_text().split()
        except (OSError, ValueError):
            return []
        return [int(line) for line in lines[:_PROCESSES] if line.isdecimal() and line != "0"]


def looked_at(proc: Path, pid: int, *, companions: bool = False) -> ModelServer | None:
    """Return what model server a process is, None for anything else and for what works for one.

    With `companions` also the databases and interfaces that belong to one.
    """
    try:
        name = (proc / str(pid) / "comm").read_bytes().removesuffix(b"\n").decode(errors="replace")
        raw = (proc / str(pid) / "cmdline").read_bytes()[:4096]
    except OSError:
        return None
    arguments = [part.decode(errors="replace") for part in raw.split(b"\0") if part]
    if not arguments:
        return None  # it has ended and nobody has asked how, or it is the kernel's own
    kind = server_kind(name, arguments)
    ports = _ALL_PORTS if companions else DEFAULT_PORTS
    if kind not in ports or works_for_another(name, arguments):
        return None
    return ModelServer(kind, pid, told_port(arguments) or ports[kind])


def works_for_another(name: str, arguments: Sequence[str]) -> bool:
    """Whether the process works for another one that serves: engine cores, runners of Ollama, backends."""
    if bool(arguments) and arguments[0].startswith("postgres: "):
        return True
    inside_ollama = bool(arguments) and "/ollama/" in arguments[0]
    return name.startswith(("VLLM::", "ray::")) or inside_ollama or "runner" in arguments[1:2]


def told_port(arguments: Sequence[str]) -> int | None:
    """Return the port that a command line names, None where it names none."""
    for option, following in zip(arguments, [*arguments[1:], ""], strict=True):
        match = _PORT_OPTION.fullmatch(option)
        if match is None:
            continue
        text = match[1] or following
        if text.isdecimal() and 0 < int(text) < 65536:
            return int(text)
    return None


def _pids(proc: Path) -> Iterator[int]:
    try:
        names = [entry.name for entry in proc.iterdir()]
    except OSError:
        return
    yield from (int(name) for name in names if name.isdecimal())
