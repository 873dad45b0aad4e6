"""`host.command_lines`: how each model server of this host was started, by keyed prints; secrets seen there.

A command line is read, taken apart, printed with a key that lives in the agent's state folder and nowhere
else, and gone when the read returns. The print is of the line as the process began: servers write titles over
theirs later. Processes of a declared scope are looked at for secrets too.

Looking at every process is what costs, so one is looked at `_LOOKS` times (a shell may become a server by
exec) and then left alone until its number is used again or `_ANEW_S` have passed.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from probes.host.command_parts import CommandParts, take_apart
from probes.host.identity import Identifier, server_kind
from probes.host.model_servers import DEFAULT_PORTS, told_port, works_for_another
from probes.host.process_stats import is_asleep
from probes.host.scope_cgroups import ScopeCgroups
from probes.host.secret_words import hide
from probes.observation import BlindReason, Instant, Observation, Origin, SensorName, ServerKind
from probes.observed.scope import CommandLine, CommandLines, CommandPart, PartPrint, SecretOption
from probes.scopes import ScopeRule
from probes.sensor import SensorBlind
from probes.settings import CommandLineSettings

NAME: Final = SensorName("host.command_lines")
KEY_FILE: Final = "prints.key"
ACCEPTED: Final = "accepted-"
"""How the files begin in which a person accepts a change; each holds the name of one server."""

LINES_MAX: Final = 64
ACCEPTED_MAX: Final = 16

_PORTS: Final = {**DEFAULT_PORTS, ServerKind.OPEN_WEBUI: 8080, ServerKind.RAY: 6379}
_KEY_BYTES: Final = 32
_LINE_BYTES: Final = 1 << 15
_ARGUMENTS_MAX: Final = 2048
_NAME_BYTES: Final = 300
_LOOKS: Final = 3
_ANEW_S: Final = 600.0
_SCOPE_PROCESSES: Final = 64
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class _Server:
    """One server's process and the prints of how it began."""

    origin: Origin
    line: CommandLine


class CommandLineSensor:
    """Tells how the servers of this host were started."""

    name = NAME
    period_s = 30.0

    def __init__(
        self,
        *,
        identifier: Identifier,
        rules: Sequence[ScopeRule],
        root: Path | None,
        settings: CommandLineSettings,
        proc: Path = Path("/proc"),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`root` is where the cgroup v2 hierarchy is mounted."""
        self._identifier = identifier
        self._scopes = ScopeCgroups(rules=rules, root=root, monotonic=monotonic)
        self._folder = Path(settings.state_dir)
        self._proc = str(proc)
        self._monotonic = monotonic
        self._key = b""
        self._looks: dict[int, int] = {}
        self._began_s = 0.0
        self._known: OrderedDict[tuple[int, int], _Server] = OrderedDict()

    def __repr__(self) -> str:
        return f"CommandLineSensor({NAME}, servers={len(self._known)}, processes={len(self._looks)})"

    def open(self) -> None:
        """Take the key, or make it; raise SensorBlind where it cannot be kept or /proc shows nothing."""
        if not os.path.exists(f"{self._proc}/self/stat"):  # noqa: PTH110 -- hot path, no Path objects
            raise SensorBlind(BlindReason.UNSUPPORTED_PLATFORM, f"there is no {self._proc}")
        if not _bytes(f"{self._proc}/1/stat"):
            raise SensorBlind(
                BlindReason.READ_FAILED,
                f"other users' processes are hidden: {self._proc} is mounted with hidepid",
            )
        self._key = key_of(self._folder / KEY_FILE)
        self._began_s = self._monotonic()

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return every server and every process of a scope that runs now."""
        if self._monotonic() - self._began_s >= _ANEW_S:
            self._looks, self._began_s = {}, self._monotonic()
        try:
            pids = [int(name) for name in os.listdir(self._proc) if name.isdecimal()]  # noqa: PTH208 -- hot path
        except OSError as error:
            raise SensorBlind(BlindReason.READ_FAILED, f"list {self._proc}: {error.strerror}") from error
        servers = self._servers(pids, now)
        held, whole = self._held(now, {line.origin.pid: line for line in servers})
        lines = [held.pop(line.origin.pid, line) for line in servers] + list(held.values())
        return [
            CommandLines(
                sensor=NAME,
                at=now,
                key=_print(self._key, ("key",)),
                lines=tuple(lines[:LINES_MAX]),
                complete=whole and len(lines) <= LINES_MAX,
                accepted=self._accepted(),
            )
        ]

    def waiting(self) -> bool:
        """There is always something to look at."""
        return True

    def settle(self) -> None:
        """Nothing to note: the next read tells all again."""

    def wakeup_fd(self) -> int | None:
        """A look waits for its turn."""
        return None

    def close(self) -> None:
        """Forget everything."""
        self._looks.clear()
        self._known.clear()
        self._key = b""

    def _servers(self, pids: Sequence[int], now: Instant) -> list[CommandLine]:
        """Return the eldest process of each server: workers share the command line of the first."""
        known = {pid for pid, _ in self._known}
        looks = self._looks
        self._looks = {pid: looks[pid] for pid in pids if pid in looks}
        alive: dict[tuple[int, int], _Server] = {}
        for pid in pids:
            times = self._looks.get(pid, 0)
            if pid not in known and (times >= _LOOKS or is_asleep(f"{self._proc}/{pid}")):
                continue  # of one in uninterruptible sleep the line may never come: it is looked at later
            self._looks[pid] = min(times + 1, _LOOKS)
            server = self._looked_at(pid, now)
            if server is not None and server.origin.start_ticks is not None:
                alive[pid, server.origin.start_ticks] = server
        self._known = OrderedDict(sorted(alive.items(), key=lambda item: (item[0][1], item[0][0])))
        eldest: dict[tuple[str | None, ServerKind, int], CommandLine] = {}
        for server in self._known.values():
            place = (server.origin.cgroup_path, server.origin.server, server.line.port)
            eldest.setdefault(place, server.line)
        return list(eldest.values())

    def _looked_at(self, pid: int, now: Instant) -> _Server | None:
        start = self._start_ticks(pid)
        if start is None:
            return None
        found = self._known.get((pid, start))
        if found is not None:
            return found
        name = _bytes(f"{self._proc}/{pid}/comm").removesuffix(b"\n").decode(errors="replace")
        arguments = self._arguments(pid)
        kind = server_kind(name, arguments)
        if kind not in _PORTS or works_for_another(name, list(arguments)) or not _serves(kind, arguments):
            return None
        origin = self._identifier.origin(pid=pid)
        if origin.start_ticks != start:
            return None
        parts = take_apart(kind, arguments)
        line = CommandLine(
            origin=replace(origin, server=kind),
            started=_moment(start, now),
            port=told_port(list(arguments)) or _PORTS[kind],
            print=_print(self._key, parts.whole),
            parts=self._parts(parts),
            context_tokens=parts.context_tokens,
            secrets=parts.secrets,
        )
        return _Server(line.origin, line)

    def _parts(self, parts: CommandParts) -> tuple[PartPrint, ...]:
        words: Mapping[CommandPart, tuple[str, ...]] = parts.words
        return tuple(
            PartPrint(part, _print(self._key, words[part])[:16] if words.get(part) else "")
            for part in CommandPart
        )

    def _held(
        self, now: Instant, servers: Mapping[int | None, CommandLine]
    ) -> tuple[dict[int | None, CommandLine], bool]:
        """Return the processes of declared scopes, and whether that is all of them."""
        held: dict[int | None, CommandLine] = {}
        whole = True
        for scope in self._scopes.now():
            folder = self._scopes.folder(scope)
            words = _bytes(f"{folder}/cgroup.procs").split()
            pids = [int(word) for word in words if word.isdigit() and word != b"0"]
            whole = whole and len(pids) <= _SCOPE_PROCESSES
            for pid in pids[:_SCOPE_PROCESSES]:
                server = servers.get(pid)
                if server is not None:
                    held[pid] = replace(server, scope=scope)
                    continue
                if is_asleep(f"{self._proc}/{pid}"):
                    whole = False
                    continue
                found = hide(self._arguments(pid))[1]
                if found:
                    held[pid] = self._stranger(pid, scope, found, now)
        return held, whole

    def _stranger(self, pid: int, scope: str, found: tuple[SecretOption, ...], now: Instant) -> CommandLine:
        origin = self._identifier.origin(pid=pid)
        started = now if origin.start_ticks is None else _moment(origin.start_ticks, now)
        return CommandLine(origin=origin, started=started, port=0, print="", scope=scope, secrets=found)

    def _accepted(self) -> tuple[str, ...]:
        """Take the acceptances that lie in the state folder; each counts once."""
        names: list[str] = []
        try:
            files = sorted(name for name in os.listdir(self._folder) if name.startswith(ACCEPTED))  # noqa: PTH208
            for file in files[:ACCEPTED_MAX]:
                raw = _bytes(str(self._folder / file))[:_NAME_BYTES]
                os.unlink(self._folder / file)  # noqa: PTH108 -- beside listdir
                names.append(raw.decode(errors="replace").strip())
        except OSError:
            pass  # without a folder there is nothing accepted; the next read tries again
        return tuple(name for name in names if name)

    def _arguments(self, pid: int) -> tuple[str, ...]:
        folder = f"{self._proc}/{pid}"
        raw = b"" if is_asleep(folder) else _bytes(f"{folder}/cmdline")[:_LINE_BYTES]
        words = raw.split(b"\0")[:_ARGUMENTS_MAX]
        while words and not words[-1]:
            words.pop()
        return tuple(word.decode(errors="replace") for word in words)

    def _start_ticks(self, pid: int) -> int | None:
        # The name stands in brackets and may itself hold brackets and newlines: count from the last one.
        fields = _bytes(f"{self._proc}/{pid}/stat").rpartition(b")")[2].split()
        try:
            return int(fields[19])  # field 22, proc(5)
        except (IndexError, ValueError):
            return None


def key_of(path: Path) -> bytes:
    """Return the key of the prints, made at the first time; raise SensorBlind where it cannot be kept."""
    try:
        try:
            key = path.read_bytes()
        except FileNotFoundError:
            key = secrets.token_bytes(_KEY_BYTES)
            _write(path, key)
    except OSError as error:
        raise SensorBlind(BlindReason.READ_FAILED, f"keep {path}: {error.strerror}") from error
    if len(key) != _KEY_BYTES:
        raise SensorBlind(
            BlindReason.READ_FAILED, f"{path} is no key of {_KEY_BYTES} bytes: remove it for another"
        )
    return key


def _write(path: Path, key: bytes) -> None:
    """Put `key` there durably, whole or not at all: a full disk leaves nothing that is taken for a key."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def accept(folder: Path, server: str) -> None:
    """Leave word for the agent that a person accepts how `server` is started now; raise OSError.

    The folder is the agent's own, so it is entered by a descriptor and nothing in it is followed or replaced.
    """
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        name = f"{ACCEPTED}{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o644, dir_fd=place)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)  # whatever the mask: the agent, another account, has to read it
            file.write(server.encode(errors="replace")[:_NAME_BYTES])
    finally:
        os.close(place)


def _serves(kind: ServerKind, arguments: Sequence[str]) -> bool:
    """Whether a program that is server and client in one was started as a server, with its own command line.

    A title that a process wrote over its command line is one word with spaces, and says nothing of it.
    """
    if not arguments or (len(arguments) == 1 and (" " in arguments[0] or "::" in arguments[0])):
        return False
    if kind is ServerKind.OLLAMA:
        return "serve" in arguments[1:3] or "start" in arguments[1:3]
    if kind is ServerKind.VLLM:
        return "serve" in arguments[:8] or any("api_server" in word for word in arguments[:8])
    return True


def _print(key: bytes, words: Iterable[str]) -> str:
    digest = hashlib.blake2b(key=key, digest_size=16)
    for word in words:
        raw = word.encode(errors="replace")
        digest.update(len(raw).to_bytes(4, "big") + raw)
    return digest.hexdigest()


def _moment(start_ticks: int, now: Instant) -> Instant:
    boot_ns = start_ticks * 1_000_000_000 // _TICKS
    return Instant(boot_ns, now.unix_ns - (now.boot_ns - boot_ns))


def _bytes(path: str) -> bytes:
    """Return the beginning of a file, nothing where it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
