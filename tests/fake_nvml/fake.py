"""Builds the fake library, and gives each test a copy of its own."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

from tests.fake_nvml.header import header
from tests.fake_nvml.profiles import VERSION, Machine

_SOURCE = Path(__file__).with_name("fake_nvml.c")
NAME = "libnvidia-ml.so.1"


def build(folder: Path, version: str = VERSION) -> Path:
    """Compile the library of one driver version; return libnvidia-ml.so.VERSION."""
    (folder / "nvml.h").write_text(header())
    built = folder / f"libnvidia-ml.so.{version}"
    subprocess.run(
        [
            *("gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{NAME}"),
            *(f"-I{folder}", f'-DFAKE_NVML_VERSION="{version}"', "-o", str(built), str(_SOURCE)),
        ],
        check=True,
        timeout=120,
    )
    return built


class FakeNvml:
    """An installed fake library: `folder` holds it as a driver package would, and the state beside it.

    Each has a file of its own, so that nothing which one test left blocked is in the way of another.
    """

    def __init__(self, *, built: Path, folder: Path) -> None:
        self.folder = folder
        self.link = folder / NAME
        self.state = folder / "state"
        self.install(built)

    def __repr__(self) -> str:
        return f"FakeNvml({self.link.resolve().name})"

    def install(self, built: Path) -> None:
        """Put the library of a version in place of the other, as an upgrade does."""
        shutil.copy(built, self.folder / built.name)
        fresh = self.folder / "link"
        fresh.symlink_to(built.name)
        fresh.replace(self.link)

    def become(self, machine: Machine) -> None:
        """Be this machine from the next call on."""
        fresh = self.folder / "fresh"
        fresh.write_text(machine.text())
        fresh.replace(self.state)

    def calls(self, name: str) -> int:
        """Return how often a call was made to the library as it is now."""
        count = ctypes.CDLL(str(self.link.resolve())).fake_nvml_calls
        count.restype = ctypes.c_ulonglong
        return int(count(name.encode()))

    def environment(self) -> dict[str, str]:
        """Return the environment of a process that finds this library by its name."""
        return os.environ | {"LD_LIBRARY_PATH": str(self.folder), "FAKE_NVML_STATE": str(self.state)}
