"""Descriptors: taken only from the loader, kept before they are accepted, restored whole or not at all."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.process.descriptors import Reception, keep, restore
from agent.testing import KERNEL_BOOT
from agent.testing_ports import FakeSupervisor
from probes.kernel import handover as wire
from probes.kernel.handover import Handover, HandoverError, Manifest, SensorEntry
from probes.observation import SensorName

MANIFEST = Manifest(
    kernel_boot_id=KERNEL_BOOT,
    loaded_boot_ns=1,
    sensors=(SensorEntry(sensor=SensorName("kernel.oom_kill"), attachments=(0, 1, 2)),),
)


@pytest.fixture
def pipes() -> Iterator[tuple[int, ...]]:
    """Three descriptors that can be told apart."""
    ends = [os.pipe() for _ in range(3)]
    yield tuple(read for read, _ in ends)
    for pair in ends:
        for end in pair:
            os.close(end)


def inodes(descriptors: tuple[int, ...]) -> list[int]:
    return [os.fstat(descriptor).st_ino for descriptor in descriptors]


def test_kept_handover_comes_back_whole(pipes: tuple[int, ...]) -> None:
    """A new process gets the same manifest and the same files, in order."""
    supervisor = FakeSupervisor()
    keep(supervisor, Handover(MANIFEST, pipes), before=0)
    back = restore(supervisor, kernel_boot_id=KERNEL_BOOT)
    assert back is not None
    assert back.manifest == MANIFEST
    assert inodes(back.descriptors) == inodes(pipes)
    back.close()


def test_second_handover_replaces_the_first(pipes: tuple[int, ...]) -> None:
    """The store keeps duplicates by name, so the old ones go first, even when there were more."""
    supervisor = FakeSupervisor()
    keep(supervisor, Handover(MANIFEST, pipes), before=0)
    smaller = Manifest(kernel_boot_id=KERNEL_BOOT, loaded_boot_ns=2, sensors=())
    keep(supervisor, Handover(smaller, pipes[:1]), before=3)
    assert [name for name, _ in supervisor.store] == ["nanobot.0", "nanobot.manifest"]
    back = restore(supervisor, kernel_boot_id=KERNEL_BOOT)
    assert back is not None
    assert back.manifest == smaller
    back.close()


@pytest.mark.parametrize("lost", ["nanobot.1", "nanobot.manifest"])
def test_incomplete_set_is_let_go_as_a_whole(pipes: tuple[int, ...], lost: str) -> None:
    """Nothing half is used, and nothing of it stays in the store."""
    supervisor = FakeSupervisor()
    keep(supervisor, Handover(MANIFEST, pipes), before=0)
    supervisor.drop(lost)
    assert restore(supervisor, kernel_boot_id=KERNEL_BOOT) is None
    assert supervisor.store == []


def test_set_of_another_boot_or_with_duplicates_is_let_go(pipes: tuple[int, ...]) -> None:
    """Descriptors of a kernel that is no more, or kept twice under one name, are of no use."""
    supervisor = FakeSupervisor()
    keep(supervisor, Handover(MANIFEST, pipes), before=0)
    assert restore(supervisor, kernel_boot_id="another") is None
    keep(supervisor, Handover(MANIFEST, pipes), before=0)
    supervisor.keep("nanobot.0", pipes[1])
    assert restore(supervisor, kernel_boot_id=KERNEL_BOOT) is None


def test_nothing_kept_is_nothing_to_restore() -> None:
    """The first start of a unit finds an empty store."""
    assert restore(FakeSupervisor(), kernel_boot_id=KERNEL_BOOT) is None


async def send(path: Path, descriptors: tuple[int, ...]) -> None:
    await asyncio.get_running_loop().run_in_executor(
        None, lambda: wire.send(path, MANIFEST, descriptors, agent_uids={os.geteuid()}, timeout_s=5)
    )


async def test_takes_a_handover_from_the_loader(tmp_path: Path, pipes: tuple[int, ...]) -> None:
    """The loader hears `ok` only after the descriptors are in safe keeping; the agent uses them."""
    supervisor = FakeSupervisor()
    arrived: asyncio.Queue[Handover] = asyncio.Queue()
    path = tmp_path / "handover.sock"
    async with Reception(
        path=path,
        loader_uid=os.geteuid(),
        take=lambda handover: keep(supervisor, handover, before=0),
        received=arrived.put,
    ):
        assert path.stat().st_mode & 0o777 == 0o666
        for _ in range(2):
            await send(path, pipes)
            handover = await asyncio.wait_for(arrived.get(), 5)
            assert inodes(handover.descriptors) == inodes(pipes)
            handover.close()
        assert len({name for name, _ in supervisor.store}) == 4
    assert not path.exists()
    for _, descriptor in supervisor.store:
        os.close(descriptor)


async def test_refuses_everybody_else(tmp_path: Path, pipes: tuple[int, ...]) -> None:
    """A peer that is not the loader is refused and counted; listening goes on."""
    path = tmp_path / "handover.sock"

    async def never(_: Handover) -> None:
        raise AssertionError("taken")

    async with Reception(
        path=path, loader_uid=os.geteuid() + 1, take=lambda _: None, received=never
    ) as reception:
        with pytest.raises(HandoverError, match=r"refused|hand over"):
            await send(path, pipes)
        assert reception.refused == 1
        with pytest.raises(HandoverError):
            await send(path, pipes)
        assert reception.refused == 2


async def test_garbage_and_a_failing_store_are_refused(tmp_path: Path, pipes: tuple[int, ...]) -> None:
    """Bytes that are no handover, and descriptors that cannot be kept, end in a refusal."""
    path = tmp_path / "handover.sock"

    def fail(_: Handover) -> None:
        raise OSError("store full")

    async def never(_: Handover) -> None:
        raise AssertionError("taken")

    async with Reception(path=path, loader_uid=os.geteuid(), take=fail, received=never) as reception:
        stranger = socket.socket(socket.AF_UNIX)
        await asyncio.get_running_loop().run_in_executor(None, stranger.connect, str(path))
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
        stranger.close()
        with pytest.raises(HandoverError):
            await send(path, pipes)
        assert reception.refused == 2


async def test_folder_that_is_missing_costs_only_the_handover(tmp_path: Path) -> None:
    """The agent runs without the socket and says what is wrong."""

    async def never(_: Handover) -> None:
        raise AssertionError("taken")

    async with Reception(
        path=tmp_path / "none" / "x.sock", loader_uid=0, take=lambda _: None, received=never
    ) as reception:
        assert reception.error is not None
        assert "x.sock" in reception.error
