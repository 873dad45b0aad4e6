"""The system bus, as far as it is needed: one connection, calls with an end in time, signals.

The one module that uses jeepney, for marshalling; the socket, the handshake and the framing are here, so
that time and size have bounds: a message announces its length, and one that announces more than `_MAX_BYTES`
ends the connection. A message that cannot be read is counted and left out. Whatever is not an answer waits as
a signal, at most `_SIGNALS_MAX`; what does not fit is counted as lost.

Errors: BusError > BusGone (cannot be reached, hung up, or no answer in time), BusRefused (an error answer; it
names the error), LibraryMissing (jeepney is not installed).
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

SOCKET: Final = "/run/dbus/system_bus_socket"
_CALL_S: Final = 2.0
_MAX_BYTES: Final = 4 << 20
_FIXED: Final = 16
_LINE_BYTES: Final = 1024
_SIGNALS_MAX: Final = 2048
_READ_BYTES: Final = 1 << 16
Target = tuple[str, str, str]
"""Whom a call goes to: a bus name, an object path and an interface."""

_BUS: Final[Target] = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


class BusError(Exception):
    """Anything that goes wrong with the bus."""


class BusGone(BusError):
    """Cannot be reached, hung up, or did not answer in time."""


class BusRefused(BusError):
    """An error answer; the message is its name."""


class LibraryMissing(BusError):
    """The library that marshals is not installed."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal: who sent it (a unique name), from which object, what it is and what it carries."""

    sender: str
    path: str
    interface: str
    member: str
    body: tuple[Any, ...]


class SystemBus:
    """One connection. Owned and used by one thread."""

    def __init__(self, *, path: str = SOCKET, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._monotonic = monotonic
        self._jeepney: Any = None
        self._link: socket.socket | None = None
        self._received = bytearray()
        self._signals: deque[Signal] = deque()
        self._replies: dict[int, Any] = {}
        self._serial = 0
        self.lost = 0
        self.unreadable = 0

    def __repr__(self) -> str:
        return f"SystemBus({self._path}, {'open' if self._link else 'closed'}, lost={self.lost})"

    def open(self) -> None:
        """Connect, say who we are and register; raise BusError."""
        self._jeepney = _library()
        end_s = self._monotonic() + _CALL_S
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.settimeout(_CALL_S)
            link.connect(self._path)
            self._authenticate(link, end_s)
        except OSError as error:
            link.close()
            raise BusGone(f"connect to {self._path}: {error.strerror or error}") from error
        except BusGone:
            link.close()
            raise
        self._link = link
        self.call(_BUS, "Hello")

    def match(self, rule: str) -> None:
        """Ask for the signals that a rule describes."""
        self.call(_BUS, "AddMatch", "s", (rule,))

    def owner(self, name: str) -> str:
        """Return the unique name of who owns `name`."""
        (found,) = self.call(_BUS, "GetNameOwner", "s", (name,))
        return str(found)

    def call(
        self, target: Target, member: str, signature: str | None = None, arguments: tuple[Any, ...] = ()
    ) -> tuple[Any, ...]:
        """Return what a method answers; raise BusRefused, or BusGone when there is no answer in time."""
        destination, path, interface = target
        address = self._jeepney.DBusAddress(path, destination, interface)
        serial = self._send(self._jeepney.new_method_call(address, member, signature, arguments))
        end_s = self._monotonic() + _CALL_S
        while serial not in self._replies:
            self._wait(end_s)
            self._take()
        reply = self._replies.pop(serial)
        if reply.header.message_type is self._jeepney.MessageType.error:
            name = reply.header.fields.get(self._jeepney.HeaderFields.error_name)
            raise BusRefused(f"{member}: {str(name)[:200]}")
        return tuple(reply.body)

    def signals(self) -> Iterator[Signal]:
        """Yield the signals that have come since the last time; raise BusGone when the bus hung up."""
        while self._readable(0.0) and len(self._signals) < _SIGNALS_MAX:
            self._take()
        while self._signals:
            yield self._signals.popleft()

    def close(self) -> None:
        """Hang up; calling it again does nothing."""
        if self._link is not None:
            self._link.close()
        self._link = None
        self._received.clear()
        self._signals.clear()
        self._replies.clear()

    def _authenticate(self, link: socket.socket, end_s: float) -> None:
        """Say our uid; the bus knows it from the socket anyway (D-Bus specification, EXTERNAL)."""
        link.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
        said = b""
        while not said.endswith(b"\r\n"):
            link.settimeout(max(0.01, end_s - self._monotonic()))
            piece = link.recv(256)
            said += piece
            if not piece or len(said) > _LINE_BYTES:
                raise BusGone(f"{self._path} hung up while it was told who we are")
        if not said.startswith(b"OK "):
            raise BusGone(f"{self._path} does not take us for who we are")
        link.sendall(b"BEGIN\r\n")

    def _send(self, message: Any) -> int:
        if self._link is None:
            raise BusGone("the bus is not open")
        self._serial += 1
        try:
            self._link.settimeout(_CALL_S)
            self._link.sendall(message.serialise(serial=self._serial))
        except OSError as error:
            raise BusGone(f"send to {self._path}: {error}") from error
        return self._serial

    def _readable(self, timeout_s: float) -> bool:
        if self._link is None:
            raise BusGone("the bus is not open")
        ready, _, _ = select.select([self._link], [], [], timeout_s)
        return bool(ready)

    def _wait(self, end_s: float) -> None:
        left_s = end_s - self._monotonic()
        if left_s <= 0 or not self._readable(left_s):
            raise BusGone("no answer in time")

    def _take(self) -> None:
        """Take what has arrived and sort it."""
        assert self._link is not None
        try:
            data = self._link.recv(_READ_BYTES)
        except OSError as error:
            raise BusGone(f"read from {self._path}: {error}") from error
        if not data:
            raise BusGone(f"{self._path} hung up")
        self._received += data
        for raw in frames(self._received):
            self._sort(raw)

    def _sort(self, raw: bytes) -> None:
        message = self._message(raw)
        if message is None:
            return
        kinds, fields = self._jeepney.MessageType, self._jeepney.HeaderFields
        header = message.header
        if header.message_type in (kinds.method_return, kinds.error):
            answered = header.fields.get(fields.reply_serial)
            if answered == self._serial:  # anything older was given up
                self._replies = {answered: message}
        elif header.message_type is kinds.signal:
            if len(self._signals) >= 2 * _SIGNALS_MAX:
                self.lost += 1
                return
            self._signals.append(
                Signal(
                    sender=str(header.fields.get(fields.sender, "")),
                    path=str(header.fields.get(fields.path, "")),
                    interface=str(header.fields.get(fields.interface, "")),
                    member=str(header.fields.get(fields.member, "")),
                    body=tuple(message.body),
                )
            )

    def _message(self, raw: bytes) -> Any:
        try:
            return self._jeepney.Message.from_buffer(raw)
        except _UNREADABLE:
            self.unreadable += 1
            return None


_UNREADABLE: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
"""What a parser of bytes may stumble over, in a library that promises nothing about bad ones."""


def frames(received: bytearray) -> Iterator[bytes]:
    """Take the whole messages out of `received`; raise BusGone at bytes that begin none.

    The fixed part of a header holds the lengths of body and fields (D-Bus specification, Message Format).
    """
    while len(received) >= _FIXED:
        order = {ord("l"): "<", ord("B"): ">"}.get(received[0])
        if order is None or received[3] != 1:
            raise BusGone("what came is no message of the bus")
        (body,) = struct.unpack_from(order + "I", received, 4)
        (fields,) = struct.unpack_from(order + "I", received, 12)
        size = (_FIXED + fields + 7) // 8 * 8 + body
        if size > _MAX_BYTES:
            raise BusGone(f"a message of {size} bytes")
        if len(received) < size:
            return
        raw = bytes(received[:size])
        del received[:size]
        yield raw


def _library() -> Any:
    try:
        import jeepney  # noqa: PLC0415  # the loader imports the registry without any package
    except ImportError as error:
        raise LibraryMissing("the package jeepney is not installed") from error
    return jeepney
