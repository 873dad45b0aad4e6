"""What the service manager's properties and object paths say: a run of a service, and whose it is.

Pure, and total for whatever a bus carries: a value of another type is no run, another path no service.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from probes.observed.services import UnitResult

UNITS_PATH: Final = "/org/freedesktop/systemd1/unit/"
_ESCAPED: Final = re.compile(r"_([0-9a-f]{2})")
_RESULTS: Final = {result.value: result for result in UnitResult}

PROPERTIES: Final = (
    "ExecMainStartTimestampMonotonic",
    "ExecMainExitTimestampMonotonic",
    "ExecMainStatus",
    "NRestarts",
    "Result",
)


@dataclass(frozen=True, slots=True)
class Run:
    """What the manager says of a service's last run; times are microseconds of the monotonic clock."""

    began_us: int
    ended_us: int
    status: int
    result: UnitResult
    restarts: int


def run_of(values: Mapping[Any, Any]) -> Run | None:
    """Return the run that these properties (name to variant) describe; None where they do not."""
    found = []
    for name in PROPERTIES[:-1]:
        number = value_of(values.get(name))
        if not isinstance(number, int) or isinstance(number, bool):
            return None
        found.append(number)
    said = value_of(values.get("Result"))
    if not isinstance(said, str):
        return None
    began_us, ended_us, status, restarts = found
    times = 0 <= began_us < 1 << 62 and 0 <= ended_us < 1 << 62
    if not times or not 0 <= restarts < 1 << 32 or not 0 <= status < 1 << 31:
        return None
    return Run(began_us, ended_us, status, _RESULTS.get(said, UnitResult.OTHER), restarts)


def unit_of(path: str) -> str | None:
    """Return the service that an object path stands for (`_xx` is an escaped byte); None for other units."""
    if not path.startswith(UNITS_PATH) or len(path) > 1024:
        return None
    text = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), path.removeprefix(UNITS_PATH))
    try:
        unit = text.encode("latin-1").decode(errors="replace")
    except UnicodeEncodeError:
        return None
    return unit if unit.endswith(".service") and "/" not in unit else None


def escaped(unit: str) -> str:
    """Return a unit's name as the manager writes it in object paths (sd_bus_path_encode(3))."""
    raw = unit.encode(errors="replace")
    keep = bytes(range(0x61, 0x7B)) + bytes(range(0x41, 0x5B))
    digits = b"0123456789"
    return "".join(
        chr(byte) if byte in keep or (byte in digits and index) else f"_{byte:02x}"
        for index, byte in enumerate(raw)
    )


def value_of(variant: Any) -> Any:
    """Return what a variant holds, as the bus's library gives one: (signature, value)."""
    return variant[1] if isinstance(variant, tuple) and len(variant) == 2 else None


def is_running(run: Run) -> bool:
    """Return whether the main process of that run is there."""
    return run.began_us > 0 and run.ended_us < run.began_us
