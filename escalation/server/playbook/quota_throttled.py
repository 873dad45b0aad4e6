"""cpu.quota_throttled: a server is held back by the processor quota of its own control group.

The host may be idle meanwhile. The quota was set where the unit or the container is defined, so raising it is
safe for the server; what it costs is what the others get.
"""

from __future__ import annotations

import math
from typing import Final

from escalation.model import ActionKind, Advice, Incident, ThrottleEvidence, Verification
from escalation.server.playbook import steps
from escalation.server.playbook.names import acted_on, container_id, service_unit

_PROOF: Final = Verification(
    text="Within an hour it is held back in less than 5 % of its periods, and stays so for 15 minutes.",
    within_s=3600,
    quiet_s=900,
)
_LARGEST_QUOTA: Final = 512.0
"""More cores than this is no quota that anybody set."""


def advise(incident: Incident) -> Advice:
    """Return: half as much again, where the quota is known; show the quota in every other case."""
    target = acted_on(incident)
    quota = _quota(incident)
    if quota is not None and not steps.is_only_a_note(incident):
        cores = math.ceil(quota * 3) / 2  # half as much again, in whole halves of a core
        if (unit := service_unit(target)) is not None:
            command = ("systemctl", "set-property", "--runtime", unit, f"CPUQuota={cores * 100:.0f}%")
            return _raise(incident, command, quota, cores)
        if (container := container_id(target)) is not None:
            return _raise(incident, ("docker", "update", f"--cpus={cores:.1f}", container), quota, cores)
    return steps.look(
        incident,
        steps.shown(
            target,
            of_unit="CPUQuotaPerSecUSec,CPUUsageNSec",
            of_container="{{.HostConfig.NanoCpus}} {{.HostConfig.CpuQuota}} {{.HostConfig.CpuPeriod}}",
            otherwise=("systemd-cgtop", "--batch", "--iterations=2", "--order=cpu"),
        ),
        summary=(
            "Look at the quota and at what is used of it. Being held back for a moment, as at a start, is "
            "what a quota is for; a tokenizer or a transcription that is held back all the time is slow."
        ),
        will_not_fix="Anything: it shows the quota, so that it can be changed.",
        proof=_PROOF,
    )


def _quota(incident: Incident) -> float | None:
    for each in incident.evidence:
        if isinstance(each, ThrottleEvidence) and each.quota_cores and 0 < each.quota_cores < _LARGEST_QUOTA:
            return each.quota_cores
    return None


def _raise(incident: Incident, command: tuple[str, ...], quota: float, cores: float) -> Advice:
    return steps.propose(
        incident,
        ActionKind.CHANGE_SETTING,
        command,
        summary=f"Raise the processor quota from {quota:.1f} to {cores:.1f} cores. Nothing is restarted.",
        risk=(
            "Everything else on the host has that much less of the processor. A container that was made with "
            "--cpu-quota refuses --cpus and says so; then give it a larger --cpu-quota."
        ),
        will_not_fix=(
            "A server that uses whatever it gets. The change does not outlive a reboot or a recreated "
            "container: write it down where the service is defined once it has proven right."
        ),
        proof=_PROOF,
    )
