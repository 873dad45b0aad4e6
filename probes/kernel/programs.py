"""What a kernel program is to the loader: its source, where its functions attach, and the maps it shares.

Every name in a program's C begins with its own name, so that all enabled programs compile as one module.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from probes.observation import SensorName

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Attachment:
    """One function of a program and the tracepoint it runs at.

    An attachment that is not `required` may be missing in the running kernel (`open` on arm64) without
    blinding the sensor.
    """

    function: str
    tracepoint: str
    required: bool = True


@dataclass(frozen=True, slots=True)
class KernelProgram:
    """One `x.bpf.c`: its stem, its attachments, and the maps that go to the agent."""

    sensor: SensorName
    stem: str
    attachments: tuple[Attachment, ...]
    maps: tuple[str, ...]

    @property
    def source(self) -> str:
        """The C text."""
        return (_FOLDER / f"{self.stem}.bpf.c").read_text()


def shared_source() -> str:
    """Return the C that comes before every program."""
    return (_FOLDER / "ring.bpf.h").read_text()
