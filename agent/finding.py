"""What a detector concludes: a Finding about one subject, and the hysteresis that its cases obey.

A finding is PRESENT (the fault was seen), ABSENT (positive evidence that it is over) or UNKNOWN (the
detector cannot tell). Nothing to say is no finding at all, and changes nothing: silence is not recovery.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from escalation.model import Evidence, FaultClass, Incarnation, Reason, Severity, Subject
from probes.observation import CgroupId, Instant


class Verdict(enum.StrEnum):
    """Whether the fault is there, over, or out of sight."""

    PRESENT = "present"
    ABSENT = "absent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Place:
    """The cgroup that something happened in: its inode and its path, as far as they are known."""

    cgroup_id: CgroupId | None
    cgroup_path: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One conclusion about (`fault_class`, `subject`) at `at`, with its reasons and evidence.

    `subject` is None only in an UNKNOWN that speaks of every subject of the fault class. `lifebound` says
    that the fault cannot outlive this boot of the kernel: it hangs on a process or a cgroup.
    """

    verdict: Verdict
    fault_class: FaultClass
    subject: Subject | None
    at: Instant
    severity: Severity = Severity.UNKNOWN
    incarnation: Incarnation | None = None
    target: Subject | None = None
    place: Place | None = None
    lifebound: bool = False
    count: int = 1
    reasons: tuple[Reason, ...] = ()
    evidence: tuple[Evidence, ...] = ()


def absent(fault: FaultClass, subject: Subject, at: Instant, *reasons: Reason) -> Finding:
    """Return the word that `fault` is over for `subject`."""
    return Finding(verdict=Verdict.ABSENT, fault_class=fault, subject=subject, at=at, reasons=reasons)


def unknown(fault: FaultClass, at: Instant, subject: Subject | None = None) -> Finding:
    """Return that nothing can be told of `fault`: for `subject`, or for every one."""
    return Finding(verdict=Verdict.UNKNOWN, fault_class=fault, subject=subject, at=at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hysteresis:
    """A case opens after `open_after` sightings in `open_window_s`, and clears after `clear_hold_s`."""

    open_after: int = 1
    open_window_s: float = 600.0
    clear_hold_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCase:
    """What a detector is shown of a case that stands open."""

    fault_class: FaultClass
    subject: Subject
    place: Place | None
    last_seen: Instant
    evidence: tuple[Evidence, ...]
    target: Subject | None = None
