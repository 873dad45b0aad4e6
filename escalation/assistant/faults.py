"""What each fault class means, from fault_classes.json, which is generated from the detectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Final

import msgspec


@dataclass(frozen=True, slots=True, kw_only=True)
class WayOfFinding:
    """One way in which a fault is found: when a case opens, what stays quiet, what clears it."""

    detector: str
    severity: tuple[str, ...]
    sensors: tuple[str, ...]
    opens: str
    quiet: str
    clears: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultExplained:
    """A fault class: what it means, and every way in which it is found."""

    fault_class: str
    headline: str
    found: tuple[WayOfFinding, ...]


def _read() -> Mapping[str, FaultExplained]:
    text = (resources.files("escalation.assistant") / "fault_classes.json").read_bytes()
    return {each.fault_class: each for each in msgspec.json.decode(text, type=tuple[FaultExplained, ...])}


FAULTS: Final = _read()
"""By name."""
