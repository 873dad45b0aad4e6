"""The versions of the driver on this host: what is loaded, and what whoever starts now would load."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from probes.gpu.facts import DriverFacts, pci_address
from probes.gpu.nvml import SONAME

LOOK_S: Final = 10.0
REPEAT_S: Final = 60.0

_MODULE = re.compile(r"^NVRM version:.*?Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)", re.MULTILINE)
_FILE = re.compile(r"libnvidia-ml\.so\.(\d+(?:\.\d+)+)")
_EXCLUDED = re.compile(r"^GPU Excluded:\s*Yes\b", re.MULTILINE)
_DISPLAY_CLASS = "0x03"
_NVIDIA = "0x10de"


def module_version(text: str) -> str | None:
    """Return the kernel module's version from /proc/driver/nvidia/version."""
    found = _MODULE.search(text)
    return found[1] if found else None


def file_version(path: Path) -> str | None:
    """Return the version in the name of the library's file."""
    found = _FILE.fullmatch(path.name)
    return found[1] if found else None


def devices(sys_folder: Path = Path("/sys")) -> tuple[str, ...] | None:
    """Return the PCI addresses of NVIDIA's GPUs; None where the system does not list its devices."""
    folder = sys_folder / "bus" / "pci" / "devices"
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return None
    return tuple(name for name in names if _is_gpu(folder / name))


def held(sys_folder: Path = Path("/sys"), proc: Path = Path("/proc")) -> tuple[str, ...]:
    """Return the PCI addresses of the GPUs that NVIDIA's driver has taken, and that NVML should count.

    One that is given to a guest belongs to another driver. A virtual function (it has a `physfn`) and a GPU
    that the driver was told to leave alone (NVreg_ExcludedGpus) are the driver's, and not counted by NVML.
    """
    folder = sys_folder / "bus" / "pci" / "drivers" / "nvidia"
    try:
        names = sorted(entry.name for entry in folder.iterdir() if pci_address(entry.name) == entry.name)
    except OSError:
        return ()
    return tuple(
        name
        for name in names
        if _is_gpu(folder / name) and not (folder / name / "physfn").exists() and not _is_excluded(proc, name)
    )


def _is_excluded(proc: Path, name: str) -> bool:
    try:
        told = (proc / "driver" / "nvidia" / "gpus" / name / "information").read_text(errors="replace")
    except OSError:
        return False
    return _EXCLUDED.search(told) is not None


def _is_gpu(device: Path) -> bool:
    try:
        vendor = (device / "vendor").read_text().strip()
        return vendor == _NVIDIA and (device / "class").read_text().startswith(_DISPLAY_CLASS)
    except (OSError, ValueError):
        return False


class Versions:
    """Looks every `LOOK_S`, and tells what is new, or at the latest after `REPEAT_S`."""

    def __init__(self, *, proc: Path = Path("/proc")) -> None:
        self._file = proc / "driver" / "nvidia" / "version"
        self._told: DriverFacts | None = None
        self._told_s = 0.0
        self._looked_s: float | None = None
        self.loaded: str | None = None

    def __repr__(self) -> str:
        return f"Versions({SONAME}: {self._told})"

    def look(self, on_disk: Callable[[], Path | None], now_s: float) -> DriverFacts | None:
        """Return the versions when there is something to tell."""
        if self._looked_s is not None and now_s - self._looked_s < LOOK_S:
            return None
        self._looked_s = now_s
        path = on_disk()
        facts = DriverFacts(
            module=self.module(), loaded=self.loaded, disk=file_version(path) if path else None
        )
        if facts == self._told and now_s - self._told_s < REPEAT_S:
            return None
        self._told, self._told_s = facts, now_s
        return facts

    def module(self) -> str | None:
        """Return the version of the kernel module; None when it is not loaded."""
        try:
            return module_version(self._file.read_text(errors="replace"))
        except OSError:
            return None
