"""Questions with a deadline: what is stuck holds up nobody, and is asked again once it has come back."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from probes.host.storage_calls import STUCK_MAX, BoundedCalls, Refused, Space, Unanswered, space


class Hanging:
    """Answers with the path's own name, but for those that hang until they are freed."""

    def __init__(self, *stuck: str) -> None:
        self.stuck = set(stuck)
        self.freed = threading.Event()
        self.asked: list[str] = []

    def __call__(self, path: str) -> str:
        self.asked.append(path)
        if path in self.stuck:
            self.freed.wait(30)
        return path


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    """A filesystem that never answers at /dead, freed at the end."""
    made = Hanging("/dead")
    yield made
    made.freed.set()


def test_one_dead_path_leaves_the_others_their_answers(hanging: Hanging) -> None:
    """What comes after it is asked by another thread, in the same round."""
    calls = BoundedCalls(ask=hanging, round_s=2)
    found = calls.answers(["/a", "/dead", "/b"])
    assert (found["/a"], found["/b"]) == ("/a", "/b")
    assert isinstance(found["/dead"], Unanswered)


def test_what_is_stuck_is_not_asked_again_until_it_came_back(hanging: Hanging) -> None:
    """A thread is lost once for it, not once a round; freed, it answers like the others."""
    calls = BoundedCalls(ask=hanging, round_s=2)
    for _ in range(3):
        assert isinstance(calls.answers(["/dead"])["/dead"], Unanswered)
    assert hanging.asked == ["/dead"]
    hanging.freed.set()
    for thread in threading.enumerate():
        if thread.name == "storage-given-up":
            thread.join(5)
    assert calls.answers(["/dead"])["/dead"] == "/dead"


def test_threads_that_are_lost_are_bounded() -> None:
    """Beyond so many, nothing that could hang is asked."""
    dead = [f"/dead{n}" for n in range(9)]
    hanging = Hanging(*dead)
    calls = BoundedCalls(ask=hanging, round_s=0.05)
    for _ in range(3):
        calls.answers(dead)
    hanging.freed.set()
    assert len(set(hanging.asked)) <= STUCK_MAX


def test_an_error_is_an_answer(tmp_path: Path) -> None:
    """A path that is not there, or not for us, is told with its errno."""
    found = BoundedCalls(ask=space).answers([str(tmp_path / "none"), str(tmp_path)])
    assert found[str(tmp_path / "none")] == Refused(2)
    assert isinstance(found[str(tmp_path)], Space)


def test_tells_what_an_ordinary_user_may_have(tmp_path: Path) -> None:
    """Blocks that are kept for root are neither free nor part of the whole."""
    told, raw = space(str(tmp_path)), os.statvfs(tmp_path)
    assert told.free_bytes <= raw.f_bavail * raw.f_frsize * 2
    assert told.total_bytes <= raw.f_blocks * raw.f_frsize


@pytest.mark.root
def test_a_real_mount_that_never_answers_holds_up_nobody(tmp_path: Path) -> None:
    """A filesystem of user space whose server is silent, as a dead network mount is."""
    dead = tmp_path / "dead"
    dead.mkdir()
    server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    calls = BoundedCalls(ask=space, round_s=2)
    try:
        assert libc.mount(b"silent", os.fsencode(dead), b"fuse", 0, options) == 0, os.strerror(
            ctypes.get_errno()
        )
        found = calls.answers([str(dead), str(tmp_path)])
        assert isinstance(found[str(dead)], Unanswered)
        assert isinstance(found[str(tmp_path)], Space)
        assert str(dead) in repr(calls)
    finally:
        os.close(server)  # which lets go of whoever waits
        libc.umount2(os.fsencode(dead), 2)
    for thread in threading.enumerate():
        if thread.name == "storage-given-up":
            thread.join(5)
    assert isinstance(calls.answers([str(dead)])[str(dead)], Space)
