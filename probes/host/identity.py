"""Who a process is: its unit or container and which model server it belongs to, from /proc and cgroup paths.

Nothing here asks the container engine's socket, which is as good as root. A command line is looked at to
recognise a server and is gone when the function returns. A pid alone names nobody (it may have been used
again by the time we look), so facts from /proc count only when that process began before the event.

A command line lies in the memory of its process. While that is in uninterruptible sleep the reading may never
end, so it is done with a deadline; what does not come back leaves the server unknown, and is not read again
until it has.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.host.cgroups import CgroupPaths
from probes.host.process_stats import is_asleep
from probes.host.storage_calls import BoundedCalls
from probes.observation import CgroupId, Origin, ServerKind

_CONTAINER = re.compile(r"(?P<engine>(?:[A-Za-z0-9_.]+[-:])*)(?P<id>[0-9a-f]{64})(?:\.scope)?")
_UNIT = re.compile(r".+\.(?:service|scope)")
_ARGUMENT_BYTES = 4096
_ASLEEP_S = 0.1
_TICKS = os.sysconf("SC_CLK_TCK")

# How a server's main process or its children call themselves; the kernel keeps 15 bytes of a name.
_BY_NAME: tuple[tuple[str, ServerKind], ...] = (
    ("VLLM::", ServerKind.VLLM),
    ("gcs_server", ServerKind.RAY),
    ("litellm", ServerKind.LITELLM),
    ("ollama", ServerKind.OLLAMA),
    ("postgres", ServerKind.POSTGRESQL),
    ("ray::", ServerKind.RAY),
    ("raylet", ServerKind.RAY),
    ("speaches", ServerKind.WHISPER),
    ("trtllm-", ServerKind.TENSORRT_LLM),
    ("vllm", ServerKind.VLLM),
    ("whisper", ServerKind.WHISPER),
)
# Scripts, modules and applications that an interpreter or an application server runs.
_BY_ARGUMENT: tuple[tuple[str, ServerKind], ...] = (
    ("faster_whisper", ServerKind.WHISPER),
    ("litellm", ServerKind.LITELLM),
    ("open_webui", ServerKind.OPEN_WEBUI),
    ("open-webui", ServerKind.OPEN_WEBUI),
    ("speaches", ServerKind.WHISPER),
    ("tensorrt_llm", ServerKind.TENSORRT_LLM),
    ("trtllm-llmapi-launch", ServerKind.TENSORRT_LLM),
    ("trtllm-serve", ServerKind.TENSORRT_LLM),
    ("vllm", ServerKind.VLLM),
    ("whisper", ServerKind.WHISPER),
)
_RUNS_SCRIPTS = re.compile(r"(?:python[0-9.]*|uvicorn|gunicorn|hypercorn|mpirun|sh|bash)")


@dataclass(frozen=True, slots=True)
class Place:
    """What a cgroup path says: the systemd unit, or the container."""

    unit: str | None
    container_id: str | None


def place_of(path: str) -> Place:
    """Read unit and container out of a cgroup path; a container's own inner units do not count."""
    unit = None
    for part in path.split("/"):
        match = _CONTAINER.fullmatch(part)
        if match and "conmon" not in match["engine"]:
            return Place(None, match["id"])
        if _UNIT.fullmatch(part):
            unit = part
    return Place(unit, None)


def paths_of(proc_cgroup: str) -> tuple[str | None, tuple[str, ...]]:
    """Return the v2 path of /proc/PID/cgroup (None without one) and all others, systemd's first."""
    unified, systemd, others = None, [], []
    for line in proc_cgroup.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not path.startswith("/"):
            continue
        if number == "0" and not controllers:
            unified = path
        elif controllers == "name=systemd":
            systemd.append(path)
        else:
            others.append(path)
    return unified, tuple(dict.fromkeys([*systemd, *others]))


def server_kind(name: str, arguments: Sequence[str]) -> ServerKind:
    """Recognise a model server by its process name and how it was started."""
    program = arguments[0].rpartition("/")[2] if arguments else ""
    if name.startswith("llama-server") or program == "llama-server":
        inside_ollama = bool(arguments) and "/ollama/" in arguments[0]
        return ServerKind.OLLAMA if inside_ollama else ServerKind.LLAMA_CPP
    for candidate in (name, program):
        for prefix, kind in _BY_NAME:
            if candidate.startswith(prefix):
                return kind
    if not _RUNS_SCRIPTS.fullmatch(program):
        return ServerKind.OTHER
    for argument in _what_it_runs(arguments[1:]):
        script = argument.rpartition("/")[2]
        for prefix, kind in _BY_ARGUMENT:
            if script.startswith(prefix):
                return kind
    return ServerKind.OTHER


def _what_it_runs(arguments: Sequence[str]) -> list[str]:
    """Return the script or module, and for a server the application: the first two that are no options."""
    found: list[str] = []
    for argument in arguments[:12]:
        if argument.startswith("-"):
            continue
        found.append(argument)
        if len(found) == 2:
            break
    return found


class Identifier:
    """Finds the Origin of a pid or of a cgroup id."""

    def __init__(
        self,
        *,
        cgroups: CgroupPaths,
        proc: Path = Path("/proc"),
        read: Callable[[str], bytes] | None = None,
    ) -> None:
        """`read` reads the beginning of a command line; it may wait for ever."""
        self._cgroups = cgroups
        self._proc = proc
        self._read = read or _beginning
        self._asleep: BoundedCalls[bytes] = BoundedCalls(ask=self._read, round_s=_ASLEEP_S)
        self._asking = threading.Lock()

    def keep_warm(self) -> None:
        """Learn the cgroups that there are, now and then, so that those of the dead are known."""
        self._cgroups.keep_warm()

    def origin(
        self,
        *,
        pid: int | None = None,
        cgroup_id: CgroupId | None = None,
        process_name: bytes | None = None,
        at_boot_ns: int | None = None,
        stuck: bool = False,
    ) -> Origin:
        """Return everything that can still be known; unknown stays None.

        `process_name` is what the kernel said at the event and wins over /proc. `at_boot_ns` is when that
        was: a process that began later only has the same number. `stuck` says that one of its threads is
        known to be stuck in the kernel, whatever its main thread does.
        """
        name = decode_name(process_name) if process_name is not None else None
        known_pid = pid if pid is not None and pid > 0 else None
        start_ticks = self._start_ticks(known_pid) if known_pid is not None else None
        if start_ticks is not None and at_boot_ns is not None and _begins_after(start_ticks, at_boot_ns):
            start_ticks = None
        alive = known_pid is not None and start_ticks is not None
        unified, others = paths_of(self._text(known_pid, "cgroup")) if alive else (None, ())
        arguments = self._arguments(known_pid, stuck=stuck) if alive else ()
        if name is None and alive:
            name = decode_name(self._bytes(known_pid, "comm").removesuffix(b"\n"))
        path = self._cgroups.path(cgroup_id) if cgroup_id is not None else None
        if cgroup_id is None and unified is not None:
            cgroup_id = self._cgroups.id_of(unified)
        candidates = [p for p in (path, unified, *others) if p is not None]
        telling = next((p for p in candidates if place_of(p) != Place(None, None)), None)
        shown = telling or next((p for p in candidates if p != "/"), candidates[0] if candidates else None)
        place = place_of(shown) if shown is not None else Place(None, None)
        return Origin(
            cgroup_id=cgroup_id,
            cgroup_path=shown,
            unit=place.unit,
            container_id=place.container_id,
            pid=known_pid,
            start_ticks=start_ticks,
            process_name=name,
            server=server_kind(name or "", arguments),
        )

    def batch(self) -> Batch:
        """Return a memory for the events of one read, so that a storm from one process asks /proc once."""
        return Batch(self)

    def memory_paths(self, pid: int) -> dict[str, str]:
        """Return the cgroup path by v1 controller of a living process; the v2 path has the empty name."""
        found = {}
        for line in self._text(pid, "cgroup").splitlines():
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            for controller in controllers.split(","):
                found[controller] = path
        return found

    def _start_ticks(self, pid: int | None) -> int | None:
        # The name stands in brackets and may itself hold brackets and newlines: count from the last one.
        _, _, rest = self._bytes(pid, "stat").rpartition(b")")
        fields = rest.split()
        try:
            return int(fields[19])  # field 22, proc(5)
        except (IndexError, ValueError):
            return None

    def _arguments(self, pid: int | None, *, stuck: bool) -> tuple[str, ...]:
        raw = self._command_line(f"{self._proc}/{pid}", stuck=stuck)[:_ARGUMENT_BYTES]
        return tuple(part.decode(errors="replace") for part in raw.split(b"\0") if part)

    def _command_line(self, folder: str, *, stuck: bool) -> bytes:
        path = f"{folder}/cmdline"
        if not stuck and not is_asleep(folder):
            try:
                return self._read(path)
            except OSError:
                return b""
        with self._asking:  # the loop and the thread of the slow sensors ask
            answer = self._asleep.answers([path])[path]
        return answer if isinstance(answer, bytes) else b""

    def _text(self, pid: int | None, name: str) -> str:
        return self._bytes(pid, name).decode(errors="replace")

    def _bytes(self, pid: int | None, name: str) -> bytes:
        try:
            with (self._proc / str(pid) / name).open("rb") as file:
                return file.read(1 << 16)
        except OSError:
            return b""


class Batch:
    """The origins of one read's events, each process looked up once."""

    def __init__(self, identifier: Identifier) -> None:
        self._identifier = identifier
        self._known: dict[tuple[int, int, bytes], Origin] = {}

    def origin(self, event: Mapping[str, Any]) -> Origin:
        """Return the origin of an event with `pid`, `cgroup_id`, `process` and `time_ns`."""
        key = (event["pid"], event["cgroup_id"], event["process"])
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._identifier.origin(
                pid=event["pid"],
                cgroup_id=CgroupId(event["cgroup_id"]),
                process_name=event["process"],
                at_boot_ns=event["time_ns"],
            )
        return found


def _beginning(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(_ARGUMENT_BYTES)


def decode_name(raw: bytes) -> str:
    """Return a process name as text: up to the first NUL, undecodable bytes replaced."""
    return raw.partition(b"\0")[0].decode(errors="replace")


def _begins_after(start_ticks: int, boot_ns: int) -> bool:
    return start_ticks * 1_000_000_000 // _TICKS > boot_ns + 1_000_000_000 // _TICKS
