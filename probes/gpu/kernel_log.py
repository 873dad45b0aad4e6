"""What the NVIDIA driver writes into the kernel log, line by line. Pure; who reads the log is another matter.

The forms are those of the driver's sources (open-gpu-kernel-modules: kernel_rc.c, osapi.c, osinit.c). A line
names a process as it called itself, which is hostile text; the rest of a message is dropped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from probes.gpu.facts import pci_address

LINE_MAX: Final = 4096
_NAME_MAX: Final = 64
_PID_MAX: Final = 2**22
_XID_MAX: Final = 2**32


@dataclass(frozen=True, slots=True)
class XidLine:
    """``NVRM: Xid (PCI:0000:01:00): 31, pid=77, name=python, ...``, with the MIG instance if it names one."""

    pci: str | None
    number: int
    pid: int | None
    process_name: str | None
    gpu_instance: int | None


@dataclass(frozen=True, slots=True)
class FallenOffLine:
    """A GPU does not answer on its bus; this comes with or without an Xid 79."""

    pci: str | None


@dataclass(frozen=True, slots=True)
class InitFailedLine:
    """The driver could not initialise a GPU (``RmInitAdapter failed!``)."""

    pci: str | None


@dataclass(frozen=True, slots=True)
class MismatchLine:
    """A program brought a library of one version to a module of another (``API mismatch``)."""

    client: str
    module: str
    pid: int | None


DriverLine = XidLine | FallenOffLine | InitFailedLine | MismatchLine

_XID = re.compile(
    r"NVRM: Xid \((?P<pci>(?:PCI:)?[0-9A-Fa-f:.]{1,24})(?: GPU-I:(?P<instance>[0-9]{1,4}))?[^()]{0,32}\): "
    r"(?P<number>[0-9]{1,10})(?:, pid='?(?P<pid>[0-9]{1,10}|<[^>]{0,16}>)'?)?"
    r"(?:, name=(?P<name>[^,]{0,64}))?(?:[,\s.]|$)"
)
_OFF_THE_BUS = re.compile(r"^(?:.*?GPU (?P<pci>[0-9A-Fa-f:.]{7,20})\b)?.*?fallen off the bus")
_INIT_FAILED = re.compile(r"(?:GPU (?P<pci>[0-9A-Fa-f:.]{7,20}): )?RmInitAdapter failed!")
_VERSION = r"[0-9]{1,5}(?:\.[0-9]{1,5}){1,3}"
_MISMATCH = re.compile(
    rf"API mismatch: the client (?:'[^']{{0,64}}' \(pid (?P<pid>[0-9]{{1,10}})\) )?has the version "
    rf"(?P<client>{_VERSION}), but this kernel module has the version (?P<module>{_VERSION})"
)
_WRAP = re.compile(r"(?:#012|\s)+(?:NVRM:\s*)?")  # one message over several lines, each with the prefix again


def parse(line: str) -> DriverLine | None:
    """Return what a line says of a GPU, or None; text after `LINE_MAX` characters is not looked at."""
    text = line[:LINE_MAX]
    if "NVRM:" not in text:
        return None
    if (found := _XID.search(text)) is not None:
        return _xid(found)
    whole = _WRAP.sub(" ", text)
    if (found := _MISMATCH.search(whole)) is not None:
        return MismatchLine(found["client"], found["module"], _pid(found["pid"]))
    if (found := _INIT_FAILED.search(whole)) is not None:
        return InitFailedLine(pci_address(found["pci"] or ""))
    if "fallen off the bus" in whole and (found := _OFF_THE_BUS.search(whole)) is not None:
        return FallenOffLine(pci_address(found["pci"] or ""))
    return None


def _xid(found: re.Match[str]) -> XidLine | None:
    number = int(found["number"])
    if number >= _XID_MAX:
        return None
    name = found["name"]
    return XidLine(
        pci=pci_address(found["pci"]),
        number=number,
        pid=_pid(found["pid"]),
        process_name=None if not name or name.startswith("<") else name[:_NAME_MAX],
        gpu_instance=None if found["instance"] is None else int(found["instance"]),
    )


def _pid(text: str | None) -> int | None:
    if text is None or not text.isdecimal():
        return None
    pid = int(text)
    return pid if 0 < pid <= _PID_MAX else None
