"""How route detectors say what they found: the fields of a Finding that follow from an origin and a name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agent.detector import Surroundings, Tick
from agent.finding import Finding, OpenCase, Verdict, absent, unknown
from agent.subjects import incarnation_of, place_of, target_of
from escalation.model import Evidence, FaultClass, Reason, ReasonCode, Severity, Subject
from probes.observation import Blind, Gap, Instant, Origin


def present(
    fault: FaultClass,
    subject: Subject,
    *,
    at: Instant,
    origin: Origin,
    around: Surroundings,
    severity: Severity,
    count: int,
    reasons: Sequence[Reason],
    evidence: Evidence,
    also: Sequence[Evidence] = (),
    lifebound: bool = False,
) -> Finding:
    """Return the word that `fault` was seen; an action would act on the container or unit that serves.

    `also` is what further witnesses say.
    """
    return Finding(
        verdict=Verdict.PRESENT,
        fault_class=fault,
        subject=subject,
        target=target_of(origin, subject),
        at=at,
        severity=severity,
        incarnation=incarnation_of(origin, around.kernel_boot_id),
        place=place_of(origin),
        lifebound=lifebound,
        count=count,
        reasons=tuple(reasons),
        evidence=(evidence, *also),
    )


def out_of_sight(faults: Iterable[FaultClass], gap: Gap) -> list[Finding]:
    """Return that nothing can be told of `faults`, where `gap` says that the sensor sees nothing."""
    if not isinstance(gap.coverage, Blind):
        return []
    return [unknown(fault, gap.at) for fault in faults]


def gone_for_long(case: OpenCase, tick: Tick, after_s: float) -> Finding | None:
    """Return that the fault is over where its cgroup no longer exists and it was not seen for `after_s`.

    A cgroup that was made anew under its old path still exists: a restarted server is no answer yet.
    """
    look = tick.world.cgroups.get(case.place) if case.place is not None else None
    quiet_s = tick.now.since_s(case.last_seen)
    if look is None or look.exists or quiet_s < after_s:
        return None
    reason = Reason(ReasonCode.CGROUP_GONE, count=1, threshold=after_s, window_s=round(quiet_s, 3))
    return absent(case.fault_class, case.subject, tick.now, reason)
