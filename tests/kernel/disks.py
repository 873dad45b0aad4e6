"""Small real disks for tests: a loop device over a sparse file, a filesystem on it, and what can befall both.

A device is taken by `losetup --find`, so tests that run beside each other never share one, and is let go on
any exit. Nothing touches a mount that was not made here.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


@dataclass
class Disk:
    """A loop device with an ext4 of 1 KiB blocks, mounted at `point`."""

    image: Path
    device: str
    point: Path

    @property
    def name(self) -> str:
        """The kernel's name."""
        return Path(self.device).name

    @property
    def number(self) -> str:
        """``major:minor``."""
        return Path(f"/sys/class/block/{self.name}/dev").read_text().strip()

    def mount(self, *options: str) -> None:
        """Mount it."""
        with_ = ["-o", ",".join(options)] if options else []
        _run("mount", *with_, self.device, str(self.point))

    def remount(self, *options: str) -> None:
        """Mount it otherwise."""
        _run("mount", "-o", ",".join(("remount", *options)), str(self.point))

    def unmount(self) -> None:
        """Unmount it, as somebody who pulls the plug would: whatever is open."""
        _run("umount", "-l", str(self.point))

    def fill(self, *, leave: int = 0) -> Path:
        """Write until nothing is left but `leave` bytes, and return the file."""
        full = self.point / "full"
        free = os.statvfs(self.point).f_bavail * os.statvfs(self.point).f_frsize
        with full.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            for _ in range((free - leave) // 65536 + (0 if leave else 64)):
                file.write(bytes(65536))
        os.sync()
        return full

    def fail(self) -> None:
        """Raise a filesystem error, by ext4's own switch."""
        Path(f"/sys/fs/ext4/{self.name}/trigger_fs_error").write_text("1")

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Hold up whoever writes."""
        _run("fsfreeze", "--freeze", str(self.point))
        try:
            yield
        finally:
            _run("fsfreeze", "--unfreeze", str(self.point))

    def drop_caches(self) -> None:
        """Make the next read come from the disk."""
        os.sync()
        _forget(self.device)

    def forget_image(self) -> None:
        """Make the disk's next read come from the disk below it."""
        os.sync()
        _forget(str(self.image))


def _forget(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def read_directly(made: Disk, count: int) -> None:
    """Read `count` pages past the cache of the disk."""
    buffer = mmap.mmap(-1, mmap.PAGESIZE)
    descriptor = os.open(made.device, os.O_RDONLY | os.O_DIRECT)
    try:
        for number in range(count):
            assert os.preadv(descriptor, [buffer], number * mmap.PAGESIZE) == mmap.PAGESIZE
    finally:
        os.close(descriptor)
        buffer.close()


@contextlib.contextmanager
def disk(
    folder: Path, *, size: int = 16 * MIB, inodes: int | None = None, mounted: bool = True, options: str = ""
) -> Iterator[Disk]:
    """Make a disk, mount it unless told not to, and take everything away at the end."""
    image, point = folder / "image", folder / "mounted"
    with image.open("wb") as file:
        file.truncate(size)
    point.mkdir(exist_ok=True)
    limit = [] if inodes is None else ["-N", str(inodes)]
    _run("mkfs.ext4", "-q", "-m", "0", "-b", "1024", *limit, str(image))
    found = _run("losetup", "--find", "--show", str(image)).strip()
    made = Disk(image, found, point)
    try:
        if mounted:
            made.mount(*filter(None, options.split(",")))
        yield made
    finally:
        _let_go(made)


@contextlib.contextmanager
def thin_disk(folder: Path) -> Iterator[Disk]:
    """Make a disk that promises 16 MiB and has room for 4: what is written beyond is lost."""
    below = folder / "below"
    below.mkdir()
    _run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(below))
    try:
        with disk(below) as made:
            yield made
    finally:
        _run("umount", "-l", str(below))


def _let_go(made: Disk) -> None:
    while os.path.ismount(made.point):
        if subprocess.run(["umount", "-l", str(made.point)], check=False).returncode:
            break
    for _ in range(50):
        if subprocess.run(["losetup", "--detach", made.device], check=False).returncode == 0:
            return
        time.sleep(0.02)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout
