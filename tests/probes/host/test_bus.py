"""The system bus: a stand-in on a real socket that answers, hangs, hangs up and talks nonsense."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import jeepney
import pytest
from hypothesis import given, strategies as st

from probes.host.bus import BusGone, BusRefused, SystemBus, frames

_RULE = "type='signal'"
Script = Callable[[socket.socket], None]


class Daemon:
    """Takes one connection, lets it in, and answers each call as `script` says."""

    def __init__(self, path: Path, script: Callable[[Daemon, jeepney.Message], None]) -> None:
        self.path = str(path)
        self.greeting = b"OK 1234\r\n"
        self._script = script
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen(1)
        self.link = socket.socket()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self.link.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()
        self.link.close()

    def reply(
        self, call: jeepney.Message, signature: str | None = None, body: tuple[object, ...] = ()
    ) -> None:
        """Answer a call."""
        self.send(jeepney.new_method_return(call, signature, body))

    def send(self, message: jeepney.Message) -> None:
        """Send a message."""
        self.link.sendall(message.serialise(serial=7))

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            self.link.close()
            self.link, _ = self._listener.accept()
            said = b""
            while not said.endswith(b"\r\n"):
                said += self.link.recv(1024)
            assert said == b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n"
            self.link.sendall(self.greeting)
            if self.link.recv(7) != b"BEGIN\r\n":
                return
            parser = jeepney.Parser()
            while data := self.link.recv(65536):
                for call in parser.feed(data):
                    self._script(self, call)


def member(call: jeepney.Message) -> str:
    """Return which method is called."""
    return str(call.header.fields[jeepney.HeaderFields.member])


def signal(name: str, signature: str | None = None, body: tuple[object, ...] = ()) -> jeepney.Message:
    """Return a signal."""
    emitter = jeepney.DBusAddress("/a", interface="org.example.Face")
    message = jeepney.new_signal(emitter, name, signature, body)
    message.header.fields[jeepney.HeaderFields.sender] = ":1.5"
    return message


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[[Callable[[Daemon, jeepney.Message], None]], Daemon]]:
    """Start stand-ins that answer as told."""
    started: list[Daemon] = []

    def start(script: Callable[[Daemon, jeepney.Message], None]) -> Daemon:
        started.append(Daemon(tmp_path / "bus", script))
        return started[-1]

    yield start
    for one in started:
        one.close()


@contextlib.contextmanager
def connected(daemon: Daemon) -> Iterator[SystemBus]:
    """Connect; hang up at the end."""
    bus = SystemBus(path=daemon.path)
    with contextlib.closing(bus):
        bus.open()
        yield bus


def answer(daemon: Daemon, call: jeepney.Message) -> None:
    """Answer what every connection needs."""
    if member(call) == "GetNameOwner":
        daemon.reply(call, "s", (":1.5",))
    else:
        daemon.reply(call)


Start = Callable[[Callable[[Daemon, jeepney.Message], None]], Daemon]


def test_calls_are_answered_and_signals_wait_meanwhile(daemon: Start) -> None:
    """A signal that arrives before an answer is kept, in order."""

    def script(here: Daemon, call: jeepney.Message) -> None:
        if member(call) == "AddMatch":
            here.send(signal("First", "b", (True,)))
            here.send(signal("Second"))
        answer(here, call)

    with connected(daemon(script)) as bus:
        bus.match(_RULE)
        assert bus.owner("org.example") == ":1.5"
        told = list(bus.signals())
    assert [(one.sender, one.member, one.body) for one in told] == [
        (":1.5", "First", (True,)),
        (":1.5", "Second", ()),
    ]


def test_an_error_answer_is_a_refusal_by_its_name(daemon: Start) -> None:
    """The name of the error is told."""

    def script(here: Daemon, call: jeepney.Message) -> None:
        if member(call) == "AddMatch":
            here.send(jeepney.new_error(call, "org.freedesktop.DBus.Error.AccessDenied"))
        else:
            answer(here, call)

    with connected(daemon(script)) as bus, pytest.raises(BusRefused, match=r"AddMatch: .*AccessDenied"):
        bus.match(_RULE)


def test_no_answer_in_time_is_a_bus_that_is_gone(daemon: Start) -> None:
    """By a clock that jumps over the end: nobody waits for ever."""
    times = [0.0]

    def script(here: Daemon, call: jeepney.Message) -> None:
        if member(call) == "Hello":
            answer(here, call)

    bus = SystemBus(path=daemon(script).path, monotonic=lambda: times.pop() if len(times) > 1 else times[0])
    with contextlib.closing(bus):
        bus.open()
        times[:] = [100.0, 0.0]
        with pytest.raises(BusGone, match="no answer in time"):
            bus.match(_RULE)


def test_a_bus_that_is_not_there_or_refuses_us_is_gone(tmp_path: Path, daemon: Start) -> None:
    """No socket; and one that does not take us for who we are."""
    with pytest.raises(BusGone, match="connect to"):
        SystemBus(path=str(tmp_path / "none")).open()
    here = daemon(answer)
    here.greeting = b"REJECTED EXTERNAL\r\n"
    with pytest.raises(BusGone, match="does not take us"):
        SystemBus(path=here.path).open()


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        struct.pack("<cBBBIII", b"l", 4, 0, 1, 1 << 30, 1, 0),  # announces a gigabyte
        struct.pack("<cBBBIII", b"l", 4, 0, 1, 0, 1, 1 << 27),
        struct.pack("<cBBBIII", b"l", 4, 0, 9, 0, 1, 0),  # another protocol
    ],
)
def test_nonsense_and_huge_messages_end_the_connection(daemon: Start, raw: bytes) -> None:
    """Before anything of that size is kept."""

    def script(here: Daemon, call: jeepney.Message) -> None:
        answer(here, call)
        if member(call) == "AddMatch":
            here.link.sendall(raw)

    def twice(bus: SystemBus) -> None:
        bus.match(_RULE)
        bus.match(_RULE)

    with connected(daemon(script)) as bus, pytest.raises(BusGone):
        twice(bus)


def test_a_message_that_cannot_be_read_is_counted_and_left_out(daemon: Start) -> None:
    """Well framed and full of nonsense; what follows it is heard."""
    broken = struct.pack("<cBBBIII", b"l", 4, 0, 1, 8, 1, 8) + b"\xff" * 16

    def script(here: Daemon, call: jeepney.Message) -> None:
        if member(call) == "AddMatch":
            here.link.sendall(broken)
            here.send(signal("After"))
        answer(here, call)

    with connected(daemon(script)) as bus:
        bus.match(_RULE)
        assert [one.member for one in bus.signals()] == ["After"]
        assert bus.unreadable == 1


def test_a_bus_that_hangs_up_is_gone(daemon: Start) -> None:
    """While nobody asks for anything."""
    here = daemon(answer)
    with connected(here) as bus:
        here.close()
        with pytest.raises(BusGone, match="hung up"):
            list(bus.signals())


@given(raw=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=4))
def test_any_bytes_are_frames_or_a_bus_that_is_gone(raw: bytes, cuts: list[int]) -> None:
    """Whatever arrives, in whatever pieces: bounded frames, or the connection ends."""
    received, taken = bytearray(), b""
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    with contextlib.suppress(BusGone):
        for begin, end in itertools.pairwise(edges):
            received += raw[begin:end]
            for frame in frames(received):
                assert len(frame) >= 16
                taken += frame
        assert taken + bytes(received) == raw


@given(raw=st.binary(min_size=16, max_size=200))
def test_any_frame_is_read_or_counted(raw: bytes) -> None:
    """The library's parser may stumble; the connection goes on."""
    bus = SystemBus()
    bus._jeepney = jeepney
    bus._sort(b"l" + raw[1:3] + b"\1" + raw[4:])
    assert bus.unreadable in (0, 1)
