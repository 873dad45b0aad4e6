"""Subjects that were seen with a fault, but not often enough for a case.

There is room for so many; beyond it the smallest goes first, and of those the one that was seen longest ago,
so that no flood of small sightings keeps a grave fault from becoming a case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agent.finding import Finding, Hysteresis
from escalation.model import SEVERITY_ORDER, FaultClass, Severity, Subject
from probes.observation import Instant

Fingerprint = tuple[FaultClass, Subject]

MAX_CANDIDATES: Final = 4096


@dataclass(slots=True)
class _Candidate:
    """When it was first seen, the latest sightings (boot time, count), and the gravest of them."""

    first: Instant
    sightings: list[tuple[int, int]]
    severity: Severity


class Candidates:
    """Counts sightings by fault class and subject."""

    def __init__(self) -> None:
        self._by_severity: dict[Severity, dict[Fingerprint, _Candidate]] = {
            severity: {} for severity in SEVERITY_ORDER
        }

    def __len__(self) -> int:
        return sum(map(len, self._by_severity.values()))

    def seen(
        self, fingerprint: Fingerprint, finding: Finding, rule: Hysteresis
    ) -> tuple[Instant, int] | None:
        """Count a sighting; return since when and how often, once that is enough for a case."""
        known = self.forget(fingerprint)
        candidate = known or _Candidate(finding.at, [], finding.severity)
        oldest = finding.at.boot_ns - int(rule.open_window_s * 1e9)
        kept = [seen for seen in candidate.sightings if seen[0] >= oldest]
        if not kept:
            candidate.first, candidate.severity = finding.at, finding.severity
        candidate.sightings = [*kept, (finding.at.boot_ns, max(1, finding.count))][-rule.open_after :]
        total = sum(count for _, count in candidate.sightings)
        if total >= rule.open_after:
            return candidate.first, total
        candidate.severity = max(candidate.severity, finding.severity, key=SEVERITY_ORDER.index)
        self._by_severity[candidate.severity][fingerprint] = candidate
        if len(self) > MAX_CANDIDATES:
            smallest = next(each for each in self._by_severity.values() if each)
            del smallest[next(iter(smallest))]
        return None

    def forget(self, fingerprint: Fingerprint) -> _Candidate | None:
        """Begin anew with it; return what was known."""
        for candidates in self._by_severity.values():
            known = candidates.pop(fingerprint, None)
            if known is not None:
                return known
        return None
