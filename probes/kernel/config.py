"""What the privileged side reads of the agent's configuration: `[sensors]`, `[http]` and `[[scope]]`.

Other tables are the agent's. Whatever is not understood is refused with file, line and key.
"""

from __future__ import annotations

import enum
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from probes.kernel.scope_config import ScopeConfig, read_scopes, why_not_roots_alone
from probes.scopes import ScopeInvalid

DEFAULT_SOCKET = "/run/nanobot/handover.sock"
DEFAULT_PORTS = (8000, 4000, 11434, 8080)
MAX_PORTS = 64
_MAX_LIBRARIES = 16


class ConfigInvalid(Exception):
    """The loader's part of the configuration cannot be used; the message names file and key."""


class CaptureWay(enum.StrEnum):
    """How the traffic of model servers is seen."""

    CGROUP = "cgroup"  # two programs on the cgroup v2 root
    PACKET = "packet"  # a packet socket, for hosts without that hierarchy


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """The table `[http]`: which ports are model servers', how they are watched, and which libssl besides."""

    ports: tuple[int, ...] = DEFAULT_PORTS
    capture: CaptureWay = CaptureWay.CGROUP
    tls_libraries: tuple[str, ...] = ()

    @property
    def is_off(self) -> bool:
        """Whether nothing is watched: no port, and no library, which is watched without one."""
        return not self.ports and (self.capture is CaptureWay.PACKET or not self.tls_libraries)


@dataclass(frozen=True, slots=True)
class LoaderConfig:
    """All of it."""

    disabled: frozenset[str] = frozenset()
    socket: Path = Path(DEFAULT_SOCKET)
    http: HttpConfig = field(default_factory=HttpConfig)
    scopes: ScopeConfig = field(default_factory=ScopeConfig)


def read_config(path: Path, *, sensors: Iterable[str]) -> LoaderConfig:
    """Read all of it; `sensors` are the names there are. Raise ConfigInvalid for what is not understood."""
    try:
        with path.open() as file:
            text = file.read()
            only_roots = why_not_roots_alone(path, file.fileno())
        tables = tomllib.loads(text)
    except OSError as error:
        raise ConfigInvalid(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigInvalid(f"{path}: is not valid TOML: {error}") from error
    disabled, socket = _sensors(_Table("sensors", tables, path, text), frozenset(sensors))
    http = _http(_Table("http", tables, path, text))
    try:
        scopes = read_scopes(tables, only_roots=only_roots)
    except ScopeInvalid as error:
        raise ConfigInvalid(f"{path}:{_line_of('scope', '', text)}: {error}") from error
    return LoaderConfig(disabled, socket, http, scopes)


class _Table:
    """One table of the file, and how to refuse what is in it."""

    def __init__(self, name: str, tables: dict[str, Any], path: Path, text: str) -> None:
        self._name, self._path, self._text = name, path, text
        found = tables.get(name, {})
        self.values: dict[str, Any] = found if isinstance(found, dict) else {}
        if not isinstance(found, dict):
            raise self.refusal("", "is no table")

    def refusal(self, key: str, why: str) -> ConfigInvalid:
        dotted = f"{self._name}.{key}" if key else self._name
        return ConfigInvalid(f"{self._path}:{_line_of(self._name, key, self._text)}: {dotted}: {why}")

    def only(self, *known: str) -> None:
        unknown = sorted(set(self.values) - set(known))
        if unknown:
            raise self.refusal(unknown[0], "unknown key")

    def items(self, key: str, kind: type, what: str, default: tuple[Any, ...]) -> tuple[Any, ...]:
        value = self.values.get(key, list(default))
        if not isinstance(value, list) or not all(type(item) is kind for item in value):
            raise self.refusal(key, f"expected a list of {what}")
        for item in value:
            if value.count(item) > 1:
                raise self.refusal(key, f"{item!r} stands there twice")
        return tuple(value)


def _sensors(table: _Table, known: frozenset[str]) -> tuple[frozenset[str], Path]:
    disabled = table.values.get("disabled", [])
    if not isinstance(disabled, list) or not all(isinstance(name, str) for name in disabled):
        raise table.refusal("disabled", "expected a list of sensor names")
    for name in disabled:
        if name not in known:
            raise table.refusal("disabled", f"no sensor {name!r}; there are {', '.join(sorted(known))}")
    socket = table.values.get("socket", DEFAULT_SOCKET)
    if not _is_absolute(socket):
        raise table.refusal("socket", "expected an absolute path")
    table.only("disabled", "socket")
    return frozenset(disabled), Path(socket)


def _http(table: _Table) -> HttpConfig:
    ports = table.items("ports", int, "port numbers", DEFAULT_PORTS)
    if len(ports) > MAX_PORTS:
        raise table.refusal("ports", f"{len(ports)} ports, at most {MAX_PORTS}")
    for port in ports:
        if not 1 <= port <= 65535:
            raise table.refusal("ports", f"{port} is no port (1 to 65535)")
    try:
        capture = CaptureWay(table.values.get("capture", CaptureWay.CGROUP))
    except ValueError as error:
        ways = " or ".join(f'"{way}"' for way in CaptureWay)
        raise table.refusal("capture", f"expected {ways}") from error
    libraries = table.items("tls_libraries", str, "paths", ())
    if len(libraries) > _MAX_LIBRARIES:
        raise table.refusal("tls_libraries", f"{len(libraries)} libraries, at most {_MAX_LIBRARIES}")
    if not all(_is_absolute(library) for library in libraries):
        raise table.refusal("tls_libraries", "expected absolute paths")
    table.only("ports", "capture", "tls_libraries")
    return HttpConfig(ports, capture, libraries)


def _is_absolute(path: object) -> bool:
    return isinstance(path, str) and path.startswith("/") and "\0" not in path


def _line_of(table: str, key: str, text: str) -> int:
    """Return the line that sets `key` of the table, or the table's own; tomllib keeps no positions."""
    found, inside = 1, False
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped.startswith("["):
            inside = stripped.partition("#")[0].strip("[] ") == table
            found = number if inside else found
        elif stripped.startswith(table) and not inside:
            found = number
        elif inside and key and stripped.partition("=")[0].strip(" \"'") == key:
            return number
    return found
