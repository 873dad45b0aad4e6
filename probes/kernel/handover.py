"""The handover: what the loader gives the agent, and how it travels.

The loader connects to the agent's Unix stream socket and sends one frame: a header (magic, version,
descriptor count, manifest length), the manifest as JSON, then the descriptors in chunks of SCM_RIGHTS, each
chunk with one byte that says how many it brings. The agent answers `ok` or `no` and a reason, and both close.
Either side asks the kernel who the other is (SO_PEERCRED) before a byte is believed. JSON and not a packed
struct because the manifest is kept across upgrades of the agent, in systemd's FD store, and is read by
whatever version runs next.

Error tree: `HandoverError` > `PeerRefused` (wrong uid at the other end), `ManifestInvalid` (what came is no
manifest, or does not fit its descriptors).
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from probes.observation import Blind, BlindReason, SensorName

MANIFEST_VERSION = 1
MAX_MANIFEST_BYTES = 1 << 20
MAX_DESCRIPTORS = 512

_HEADER = struct.Struct("=4sHHI")
_MAGIC = b"nbho"
_CHUNK = 64  # the kernel carries at most 253 a message (SCM_MAX_FD)
_PEER = struct.Struct("=iII")
_REASON_BYTES = 200
_CODES = frozenset("bBhHiIqQ")


class HandoverError(Exception):
    """Anything that goes wrong in a handover; the message says at which step."""


class PeerRefused(HandoverError):
    """The process at the other end is not who it has to be."""


class ManifestInvalid(HandoverError):
    """What came is not a manifest, or does not fit the descriptors that came with it."""


@dataclass(frozen=True, slots=True)
class Field:
    """One member of a struct: `code` as in Python's struct module, or `16s` for bytes."""

    name: str
    code: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A C struct as the compiler laid it out."""

    size: int
    fields: tuple[Field, ...]

    def reader(self) -> Callable[[bytes], dict[str, Any]]:
        """Return a function from bytes to values by name; it raises ValueError when they are too few."""
        names, whole, size = tuple(f.name for f in self._in_order()), self._format(), self.size

        def read(data: bytes) -> dict[str, Any]:
            if len(data) < size:
                raise ValueError(f"record of {len(data)} bytes, expected {size}")
            return dict(zip(names, whole.unpack_from(data), strict=True))

        return read

    def unpacker(self, *names: str) -> Callable[[bytes], tuple[Any, ...]]:
        """Return a function from bytes to the values of exactly these fields, in the order in which they lie.

        It raises struct.error when the bytes are too few; `unpacker` raises ManifestInvalid when the fields
        are others.
        """
        found = tuple(f.name for f in self._in_order())
        if found != names:
            raise ManifestInvalid(f"fields {', '.join(found)}, expected {', '.join(names)}")
        return self._format().unpack_from

    def _in_order(self) -> list[Field]:
        return sorted(self.fields, key=lambda f: f.offset)

    def _format(self) -> struct.Struct:
        """One format for the whole record, holes skipped: a record is decoded in one call."""
        text, at = "=", 0
        for part in self._in_order():
            if part.offset < at:
                raise ManifestInvalid(f"field {part.name} overlaps the one before it")
            text += f"{part.offset - at}x{part.code}"
            at = part.offset + part.size
        return struct.Struct(text)


@dataclass(frozen=True, slots=True)
class MapEntry:
    """One map: `fd` is its place among the descriptors."""

    name: str
    kind: str
    fd: int
    key_size: int
    value_size: int
    max_entries: int
    key: Layout | None = None
    value: Layout | None = None


@dataclass(frozen=True, slots=True)
class SensorEntry:
    """What became of one sensor's program. `blind` is None when it is attached.

    `ports` are those that it watches, where it watches some: as it was told when it was loaded, whatever the
    configuration says by now.
    """

    sensor: SensorName
    maps: tuple[MapEntry, ...] = ()
    attachments: tuple[int, ...] = ()
    blind: Blind | None = None
    errno: int | None = None
    notes: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything the agent must know about the descriptors it gets."""

    kernel_boot_id: str
    loaded_boot_ns: int
    sensors: tuple[SensorEntry, ...]
    version: int = MANIFEST_VERSION

    def to_bytes(self) -> bytes:
        """Return the manifest as JSON."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Parse and check a manifest; raise ManifestInvalid naming what is wrong."""
        if len(data) > MAX_MANIFEST_BYTES:
            raise ManifestInvalid(f"manifest of {len(data)} bytes, at most {MAX_MANIFEST_BYTES}")
        try:
            raw = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ManifestInvalid(f"manifest is not JSON: {error}") from error
        version = _int(_dict(raw, "manifest"), "version", "manifest")
        if version != MANIFEST_VERSION:
            raise ManifestInvalid(f"manifest version {version}, this agent reads {MANIFEST_VERSION}")
        sensors = tuple(_sensor(item, i) for i, item in enumerate(_list(raw, "sensors", "manifest")))
        names = [entry.sensor for entry in sensors]
        if len(set(names)) != len(names):
            raise ManifestInvalid("manifest names a sensor twice")
        return cls(
            kernel_boot_id=_text(raw, "kernel_boot_id", "manifest"),
            loaded_boot_ns=_int(raw, "loaded_boot_ns", "manifest"),
            sensors=sensors,
        )

    def descriptor_count(self) -> int:
        """Return how many descriptors the manifest speaks of."""
        used = [m.fd for s in self.sensors for m in s.maps] + [a for s in self.sensors for a in s.attachments]
        return max(used, default=-1) + 1


@dataclass(frozen=True, slots=True)
class HandedMap:
    """A map through its descriptor."""

    entry: MapEntry
    fd: int


@dataclass(frozen=True, slots=True)
class Handover:
    """A manifest with the descriptors it speaks of, open in this process."""

    manifest: Manifest
    descriptors: tuple[int, ...] = field(repr=False)

    def __post_init__(self) -> None:
        needed = self.manifest.descriptor_count()
        if needed > len(self.descriptors):
            raise ManifestInvalid(f"manifest speaks of {needed} descriptors, {len(self.descriptors)} came")

    def entry(self, sensor: SensorName) -> SensorEntry | None:
        """Return what the manifest says of a sensor, or None when it says nothing."""
        return next((entry for entry in self.manifest.sensors if entry.sensor == sensor), None)

    def maps(self, sensor: SensorName) -> Mapping[str, HandedMap]:
        """Return a sensor's maps by name."""
        entry = self.entry(sensor)
        return {m.name: HandedMap(m, self.descriptors[m.fd]) for m in entry.maps} if entry else {}

    def close(self) -> None:
        """Close every descriptor; calling it again is harmless only before they are reused."""
        for fd in self.descriptors:
            os.close(fd)


def kernel_boot_id(path: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """Return the kernel's id of this boot."""
    return path.read_text().strip()


def peer_uid(connection: socket.socket) -> int:
    """Return the uid of the process at the other end, as the kernel noted it at connect or listen."""
    _, uid, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return int(uid)


def send(
    path: Path, manifest: Manifest, descriptors: Sequence[int], *, agent_uids: Iterable[int], timeout_s: float
) -> None:
    """Hand everything to the agent that listens at `path` and wait until it says that it has it.

    Raises PeerRefused when the listener runs as none of `agent_uids`, HandoverError for everything else.
    """
    payload = manifest.to_bytes()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            uid, allowed = peer_uid(connection), frozenset(agent_uids)
            if uid not in allowed:
                raise PeerRefused(f"{path} is served by uid {uid}, expected one of {sorted(allowed)}")
            connection.sendall(
                _HEADER.pack(_MAGIC, MANIFEST_VERSION, len(descriptors), len(payload)) + payload
            )
            for start in range(0, len(descriptors), _CHUNK):
                chunk = list(descriptors[start : start + _CHUNK])
                socket.send_fds(connection, [bytes([len(chunk)])], chunk)
            reply = _read_reply(connection)
    except OSError as error:
        raise HandoverError(f"hand over to {path}: {error}") from error
    if reply != b"ok":
        raise HandoverError(
            f"the agent at {path} refused: {reply[2:].decode(errors='replace').strip() or 'no answer'}"
        )


def receive(connection: socket.socket, *, loader_uids: Iterable[int] = (0,), timeout_s: float) -> Handover:
    """Take a handover from an accepted connection; nothing stays open when it is refused.

    The caller keeps the descriptors first and then calls `accept`, or `refuse` when it cannot. Raises
    PeerRefused before a byte is read when the other end is not one of `loader_uids`.
    """
    uid, allowed = peer_uid(connection), frozenset(loader_uids)
    if uid not in allowed:
        raise PeerRefused(f"a handover from uid {uid}, expected one of {sorted(allowed)}")
    connection.settimeout(timeout_s)
    descriptors: list[int] = []
    try:
        return _receive(connection, descriptors)
    except OSError as error:
        _close_all(descriptors)
        raise HandoverError(f"receive a handover: {error}") from error
    except BaseException:
        _close_all(descriptors)
        raise


def accept(connection: socket.socket) -> None:
    """Tell the loader that its descriptors are kept."""
    connection.sendall(b"ok")


def refuse(connection: socket.socket, reason: str) -> None:
    """Tell the loader why its descriptors are not kept."""
    connection.sendall(b"no" + reason.encode(errors="replace")[:_REASON_BYTES])


def _receive(connection: socket.socket, descriptors: list[int]) -> Handover:
    magic, _, count, length = _HEADER.unpack(_read_exactly(connection, _HEADER.size, "header", descriptors))
    if magic != _MAGIC:
        raise ManifestInvalid("the other end does not speak the handover protocol")
    if count > MAX_DESCRIPTORS:
        raise ManifestInvalid(f"{count} descriptors announced, at most {MAX_DESCRIPTORS}")
    if length > MAX_MANIFEST_BYTES:
        raise ManifestInvalid(f"manifest of {length} bytes announced, at most {MAX_MANIFEST_BYTES}")
    manifest = Manifest.from_bytes(_read_exactly(connection, length, "manifest", descriptors))
    if descriptors:
        raise ManifestInvalid("descriptors came before their turn")
    while len(descriptors) < count:
        _read_chunk(connection, descriptors, count)
    return Handover(manifest, tuple(descriptors))


def _read_reply(connection: socket.socket) -> bytes:
    reply = b""
    while len(reply) < 2 + _REASON_BYTES and reply != b"ok":
        piece = connection.recv(2 + _REASON_BYTES - len(reply))
        if not piece:
            break
        reply += piece
    return reply


def _read_exactly(connection: socket.socket, size: int, what: str, descriptors: list[int]) -> bytes:
    data = b""
    while len(data) < size:
        piece, fds, _, _ = socket.recv_fds(connection, size - len(data), 1)
        descriptors.extend(fds)
        if not piece:
            raise ManifestInvalid(f"the connection ended inside the {what}: {len(data)} of {size} bytes")
        data += piece
    return data


def _read_chunk(connection: socket.socket, descriptors: list[int], count: int) -> None:
    announced, fds, flags, _ = socket.recv_fds(connection, 1, _CHUNK)
    descriptors.extend(fds)
    for fd in fds:
        os.set_inheritable(fd, False)  # noqa: FBT003 - its only form
    if not announced:
        raise ManifestInvalid(f"the connection ended after {len(descriptors)} of {count} descriptors")
    if flags & socket.MSG_CTRUNC:
        raise HandoverError("descriptors were cut off: the limit of open files is too low (RLIMIT_NOFILE)")
    if announced[0] != len(fds) or not fds or len(descriptors) > count:
        raise ManifestInvalid(f"{len(fds)} descriptors came where {announced[0]} were announced")


def _close_all(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


def _sensor(raw: object, index: int) -> SensorEntry:
    where = f"sensors[{index}]"
    item = _dict(raw, where)
    blind = item.get("blind")
    if blind is not None:
        told = _dict(blind, f"{where}.blind")
        try:
            reason = BlindReason(_text(told, "reason", f"{where}.blind"))
        except ValueError as error:
            raise ManifestInvalid(f"{where}.blind.reason: {error}") from error
        blind = Blind(reason, _text(told, "detail", f"{where}.blind"))
    ports = _list(item, "ports", where) if "ports" in item else []  # a manifest of an earlier loader has none
    errno = item.get("errno")
    if errno is not None:
        errno = _int(item, "errno", where)
    return SensorEntry(
        sensor=SensorName(_text(item, "sensor", where)),
        maps=tuple(_map(m, f"{where}.maps[{i}]") for i, m in enumerate(_list(item, "maps", where))),
        attachments=tuple(_index(a, f"{where}.attachments") for a in _list(item, "attachments", where)),
        blind=blind,
        errno=errno,
        notes=tuple(str(note) for note in _list(item, "notes", where)),
        ports=tuple(_port(port, f"{where}.ports") for port in ports),
    )


def _map(raw: object, where: str) -> MapEntry:
    item = _dict(raw, where)
    return MapEntry(
        name=_text(item, "name", where),
        kind=_text(item, "kind", where),
        fd=_index(item.get("fd"), f"{where}.fd"),
        key_size=_size(item, "key_size", where),
        value_size=_size(item, "value_size", where),
        max_entries=_int(item, "max_entries", where),
        key=_layout(item.get("key"), f"{where}.key"),
        value=_layout(item.get("value"), f"{where}.value"),
    )


def _layout(raw: object, where: str) -> Layout | None:
    if raw is None:
        return None
    item = _dict(raw, where)
    size = _size(item, "size", where)
    fields = []
    for i, part in enumerate(_list(item, "fields", where)):
        at = f"{where}.fields[{i}]"
        member = _dict(part, at)
        code, offset, width = (
            _text(member, "code", at),
            _size(member, "offset", at),
            _size(member, "size", at),
        )
        if code not in _CODES and not (code.endswith("s") and code[:-1].isdecimal() and len(code) < 8):
            raise ManifestInvalid(f"{at}.code: {code!r} is no type code")
        if struct.calcsize(f"={code}") != width or offset + width > size:
            raise ManifestInvalid(f"{at}: {width} bytes at {offset} do not fit a record of {size}")
        fields.append(Field(_text(member, "name", at), code, offset, width))
    layout = Layout(size, tuple(fields))
    layout.reader()  # raises when the fields overlap
    return layout


def _dict(raw: object, where: str) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise ManifestInvalid(f"{where} is no object")
    return raw


def _list(item: dict[str, Any], key: str, where: str) -> list[Any]:
    value = item.get(key)
    if not isinstance(value, list):
        raise ManifestInvalid(f"{where}.{key} is no list")
    return value


def _text(item: dict[str, Any], key: str, where: str) -> str:
    value = item.get(key)
    if not isinstance(value, str):
        raise ManifestInvalid(f"{where}.{key} is no text")
    return value


def _int(item: dict[str, Any], key: str, where: str) -> int:
    value = item.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not -(1 << 63) <= value < 1 << 64:
        raise ManifestInvalid(f"{where}.{key} is no whole number of 64 bits")
    return value


def _size(item: dict[str, Any], key: str, where: str) -> int:
    value = _int(item, key, where)
    if not 0 <= value <= 1 << 16:
        raise ManifestInvalid(f"{where}.{key}: {value} is no size of a record")
    return value


def _port(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65535:
        raise ManifestInvalid(f"{where}: {value!r} is no port")
    return value


def _index(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < MAX_DESCRIPTORS:
        raise ManifestInvalid(f"{where} is no place among {MAX_DESCRIPTORS} descriptors")
    return value
