"""The handover: whole, refused or clearly broken, and never a descriptor left open."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from probes.kernel import handover
from probes.kernel.handover import (
    Field,
    Handover,
    HandoverError,
    Layout,
    Manifest,
    ManifestInvalid,
    MapEntry,
    PeerRefused,
    SensorEntry,
)
from probes.observation import Blind, BlindReason, SensorName

_LAYOUT = Layout(16, (Field("time_ns", "Q", 0, 8), Field("process", "8s", 8, 8)))


def _manifest(maps: int = 2) -> Manifest:
    seeing = SensorEntry(
        SensorName("kernel.a"),
        maps=tuple(MapEntry(f"m{i}", "ringbuf", i + 1, 0, 0, 4096, None, _LAYOUT) for i in range(maps)),
        attachments=(0,),
        notes=("this kernel has no tracepoint x:y",),
        ports=(8000, 65535),
    )
    blind = SensorEntry(SensorName("kernel.b"), blind=Blind(BlindReason.NO_HEADERS, "install"), errno=2)
    return Manifest("boot", 7, (seeing, blind))


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Callable[[int], list[int]]]:
    """Open some files with different content."""
    opened: list[int] = []

    def make(count: int) -> list[int]:
        for number in range(count):
            path = tmp_path / f"file{number}"
            path.write_text(str(number))
            opened.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        return opened

    yield make
    for fd in opened:
        os.close(fd)


class Agent:
    """An agent that takes one handover on a thread."""

    def __init__(self, path: Path, *, answer: str = "ok", loader_uids: tuple[int, ...] | None = None) -> None:
        self.taken: Handover | None = None
        self.error: HandoverError | None = None
        self._answer = answer
        self._uids = (os.getuid(),) if loader_uids is None else loader_uids
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def join(self) -> Agent:
        self._thread.join(20)
        self._listener.close()
        return self

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            try:
                self.taken = handover.receive(connection, loader_uids=self._uids, timeout_s=10)
            except HandoverError as error:
                self.error = error
                return
            if self._answer == "ok":
                handover.accept(connection)
            else:
                handover.refuse(connection, self._answer)


@pytest.mark.parametrize("count", [3, 64, 65, 253, 300])
def test_descriptors_arrive_whole_and_in_order(
    tmp_path: Path, files: Callable[[int], list[int]], count: int
) -> None:
    """Also more than the kernel carries in one message; close-on-exec at the other end."""
    agent, sent = Agent(tmp_path / "s"), files(count)
    handover.send(tmp_path / "s", _manifest(), sent, agent_uids=[os.getuid()], timeout_s=10)
    taken = agent.join().taken
    assert taken is not None
    assert taken.manifest == _manifest()
    assert [os.pread(fd, 10, 0) for fd in taken.descriptors] == [str(i).encode() for i in range(count)]
    assert not any(os.get_inheritable(fd) for fd in taken.descriptors)
    maps = taken.maps(SensorName("kernel.a"))
    assert {name: handed.fd for name, handed in maps.items()} == {
        "m0": taken.descriptors[1],
        "m1": taken.descriptors[2],
    }
    assert taken.maps(SensorName("nobody")) == {}
    taken.close()


def test_a_listener_of_another_user_gets_nothing(tmp_path: Path, files: Callable[[int], list[int]]) -> None:
    """The loader asks the kernel who is listening before it sends a byte."""
    agent = Agent(tmp_path / "s")
    with pytest.raises(PeerRefused, match=f"served by uid {os.getuid()}, expected one of"):
        handover.send(tmp_path / "s", _manifest(), files(3), agent_uids=[4_000_000], timeout_s=10)
    assert isinstance(agent.join().error, ManifestInvalid)  # the connection ended inside the header


def test_a_loader_of_another_user_is_not_heard(tmp_path: Path, files: Callable[[int], list[int]]) -> None:
    """The agent takes descriptors from root only."""
    agent = Agent(tmp_path / "s", loader_uids=(4_000_000,))
    with pytest.raises(HandoverError):
        handover.send(tmp_path / "s", _manifest(), files(3), agent_uids=[os.getuid()], timeout_s=10)
    assert isinstance(agent.join().error, PeerRefused)


def test_a_refusal_reaches_the_loader_with_its_reason(
    tmp_path: Path, files: Callable[[int], list[int]]
) -> None:
    """Nothing pretends that it worked."""
    agent = Agent(tmp_path / "s", answer="the store is full")
    with pytest.raises(HandoverError, match="refused: the store is full"):
        handover.send(tmp_path / "s", _manifest(), files(3), agent_uids=[os.getuid()], timeout_s=10)
    taken = agent.join().taken
    assert taken is not None
    taken.close()


def test_nobody_listening_is_said_with_the_path(tmp_path: Path) -> None:
    """The message names the socket."""
    with pytest.raises(HandoverError, match=f"hand over to {tmp_path}/s: .*No such file"):
        handover.send(tmp_path / "s", _manifest(), [], agent_uids=[0], timeout_s=1)


def _receive(*messages: tuple[bytes, list[int]]) -> Handover:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            for data, fds in messages:
                if fds:
                    socket.send_fds(theirs, [data], fds)
                else:
                    theirs.sendall(data)
        return handover.receive(ours, loader_uids=[os.getuid()], timeout_s=5)


def _frame(manifest: bytes, count: int, *, length: int | None = None, magic: bytes = b"nbho") -> bytes:
    return struct.pack("=4sHHI", magic, 1, count, len(manifest) if length is None else length) + manifest


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        (b"", "inside the header: 0 of 12"),
        (b"nbho", "inside the header: 4 of 12"),
        (_frame(b"{}", 0, magic=b"HTTP"), "does not speak the handover protocol"),
        (_frame(b"{}", 513), "513 descriptors announced, at most 512"),
        (_frame(b"", 0, length=(1 << 20) + 1), "manifest of 1048577 bytes announced"),
        (_frame(b"{}", 0, length=99), "inside the manifest: 2 of 99"),
        (_frame(b"{", 0), "manifest is not JSON"),
        (_frame(b"\xff\xfe", 0), "manifest is not JSON"),
        (_frame(b"[]", 0), "manifest is no object"),
        (_frame(b"{}", 0), "manifest.version is no whole number"),
        (_frame(b'{"version":2}', 0), "manifest version 2, this agent reads 1"),
        (_frame(b"[" * 100_000, 0), "manifest is not JSON"),
        (_frame(_manifest().to_bytes(), 0), "speaks of 3 descriptors, 0 came"),
        (_frame(_manifest().to_bytes(), 3), "ended after 0 of 3 descriptors"),
        (_frame(_manifest().to_bytes(), 3) + b"\x03", "0 descriptors came where 3 were announced"),
    ],
)
def test_a_hostile_or_cut_frame_is_named(frame: bytes, complaint: str) -> None:
    """Whatever comes, the error says what was wrong with it."""
    with pytest.raises(ManifestInvalid, match=complaint):
        _receive((frame, []))


def test_descriptors_of_a_broken_handover_are_closed(files: Callable[[int], list[int]]) -> None:
    """Too many, too early or too few: nothing stays open."""
    sent = files(5)
    before = len(list(Path("/proc/self/fd").iterdir()))
    whole = _frame(_manifest().to_bytes(), 3)
    for messages in (
        [(whole[:20], sent[:1]), (whole[20:], [])],
        [(whole, []), (b"\x05", sent)],
        [(whole, []), (b"\x02", sent[:3])],
        [(whole, []), (b"\x02", sent[:2])],
    ):
        with pytest.raises(HandoverError):
            _receive(*messages)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@given(st.binary(max_size=300))
def test_any_bytes_are_a_manifest_or_refused(data: bytes) -> None:
    """Never another exception than ours."""
    with pytest.raises(ManifestInvalid):
        Manifest.from_bytes(data)


@given(data=st.data())
def test_a_manifest_with_one_thing_changed_is_read_or_refused(data: st.DataObject) -> None:
    """Every place in it is checked, however deep."""
    raw = json.loads(_manifest().to_bytes())
    at = raw
    while True:
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else list(range(len(at)))))
        child = at[key]
        if isinstance(child, dict | list) and child and data.draw(st.booleans()):
            at = child
            continue
        at[key] = data.draw(
            st.one_of(
                st.none(),
                st.integers(),
                st.text(max_size=4),
                st.just([]),
                st.just({}),
                st.floats(),
                st.booleans(),
            )
        )
        break
    try:
        read = Manifest.from_bytes(json.dumps(raw).encode())
    except ManifestInvalid:
        return
    assert Manifest.from_bytes(read.to_bytes()) == read


def test_a_manifest_survives_its_own_form() -> None:
    """What the store keeps is what the next agent reads."""
    assert Manifest.from_bytes(_manifest().to_bytes()) == _manifest()


def test_a_manifest_of_an_earlier_loader_names_no_ports() -> None:
    """It is read all the same: the store keeps it across an upgrade of the agent."""
    raw = json.loads(_manifest().to_bytes())
    for sensor in raw["sensors"]:
        del sensor["ports"]
    read = Manifest.from_bytes(json.dumps(raw).encode())
    assert [entry.ports for entry in read.sensors] == [(), ()]


@pytest.mark.parametrize("port", [0, 65536, "8000", True, None])
def test_what_is_no_port_is_refused(port: object) -> None:
    """With the sensor that it stands at."""
    raw = json.loads(_manifest().to_bytes())
    raw["sensors"][0]["ports"] = [80, port]
    with pytest.raises(ManifestInvalid, match=r"sensors\[0\]\.ports: .* is no port"):
        Manifest.from_bytes(json.dumps(raw).encode())


def test_fields_are_unpacked_when_they_are_the_expected_ones() -> None:
    """A reader that knows its fields gets them as they lie; for others it is told which there are."""
    assert _LAYOUT.unpacker("time_ns", "process")(bytes(range(16))) == (
        0x0706050403020100,
        bytes(range(8, 16)),
    )
    with pytest.raises(ManifestInvalid, match="fields time_ns, process, expected process"):
        _LAYOUT.unpacker("process")


@given(st.binary(max_size=40))
def test_records_are_decoded_or_too_short(data: bytes) -> None:
    """Kernel bytes become values by the compiler's own layout; a short record is refused."""
    read = _LAYOUT.reader()
    if len(data) < 16:
        with pytest.raises(ValueError, match=f"record of {len(data)} bytes, expected 16"):
            read(data)
    else:
        assert read(data) == {"time_ns": int.from_bytes(data[:8], "little"), "process": data[8:16]}
