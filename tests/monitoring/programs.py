"""Where Prometheus' and Alertmanager's own programs are: unpacked by dev/setup.sh, or installed."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def found(name: str) -> str | None:
    """Return the program's path, None when it is neither unpacked nor installed."""
    for package in ("prometheus", "alertmanager"):
        unpacked = ROOT / ".venv" / package / "usr/bin" / name
        if unpacked.exists():
            return str(unpacked)
    return shutil.which(name)
