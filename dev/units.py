"""What the shipped units say, for those who run a program as its unit does."""

from __future__ import annotations

import shlex
from pathlib import Path

_UNITS = Path(__file__).resolve().parent.parent / "systemd"


def environment_of(unit: str) -> dict[str, str]:
    """Return the variables that a unit sets."""
    lines = (_UNITS / unit).read_text().splitlines()
    words = [word for line in lines if line.startswith("Environment=") for word in shlex.split(line[12:])]
    return dict(word.split("=", 1) for word in words)
