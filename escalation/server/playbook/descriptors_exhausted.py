"""process.fd_exhausted: a process, or the whole host, has no file descriptor left, so nothing can be opened.

The limit of a running process can be raised where it is, without a restart. A limit that was high already
means that something is not closed, and a higher one only buys time: then the advice is to look.
"""

from __future__ import annotations

from typing import Final

from escalation.model import ActionKind, Advice, DescriptorEvidence, Incident, Verification
from escalation.server.playbook import steps
from escalation.server.playbook.names import acted_on, process_id

_PROOF: Final = Verification(
    text="Within 15 minutes no call is refused for want of a descriptor, and none for an hour after that.",
    within_s=900,
    quiet_s=3600,
)
_LEAST: Final = 65_536
_MOST: Final = 524_288
"""Half of what the kernel allows a process by default (fs.nr_open); who needs more leaks."""
_HARD: Final = 1_048_576
"""The kernel's own bound (fs.nr_open), so that the hard limit of a process is not lowered by us."""
_MOST_OF_HOST: Final = 16_777_216


def advise(incident: Incident) -> Advice:
    """Return: raise the host's limit, or that of the one process, where it is known and low; else look."""
    found = next((each for each in incident.evidence if isinstance(each, DescriptorEvidence)), None)
    if found is not None and found.host_wide:
        return _host_wide(incident, found)
    pid = process_id(incident)
    sure = not steps.is_only_a_note(incident)
    if (
        found is not None
        and sure
        and pid is not None
        and pid == found.pid
        and found.limit
        and 0 < found.limit < _MOST
    ):
        raised = min(_MOST, max(_LEAST, 4 * found.limit))
        return steps.propose(
            incident,
            ActionKind.CHANGE_SETTING,
            ("prlimit", f"--pid={pid}", f"--nofile={raised}:{_HARD}"),
            summary=(
                f"Raise the limit of open descriptors of this one process from {found.limit} to {raised}. "
                "It is not restarted."
            ),
            risk=(
                "None for its requests. A program that closes all possible descriptors at each start of a "
                "child takes a little longer for it."
            ),
            will_not_fix=(
                "A leak: a process that never closes reaches any limit. The change ends with the process: "
                "write LimitNOFILE= into the unit, or --ulimit nofile= for the container."
            ),
            proof=_PROOF,
        )
    return steps.look(
        incident,
        ("prlimit", f"--pid={pid}", "--nofile")
        if pid is not None
        else steps.shown(
            acted_on(incident),
            of_unit="LimitNOFILE,LimitNOFILESoft,MainPID",
            of_container="{{json .HostConfig.Ulimits}}",
            otherwise=("sysctl", "fs.file-nr"),
        ),
        summary=(
            "Look at the limit of open descriptors and at how many are open. Where the limit is high "
            "already, something is not closed: restart the server at a quiet hour, and look for its leak."
        ),
        will_not_fix="Anything: it shows the limit.",
        proof=_PROOF,
    )


def _host_wide(incident: Incident, found: DescriptorEvidence) -> Advice:
    if steps.is_only_a_note(incident) or not found.limit or not 0 < found.limit < _MOST_OF_HOST:
        return steps.look(
            incident,
            ("sysctl", "fs.file-nr"),
            target=steps.host_of(incident),
            summary=(
                "Look at how many descriptors the whole host has open, and of how many (the first and the "
                "third number). Then find the process that holds them."
            ),
            will_not_fix="Anything: it shows how many are open.",
            proof=_PROOF,
        )
    raised = min(_MOST_OF_HOST, 2 * found.limit)
    return steps.propose(
        incident,
        ActionKind.CHANGE_SETTING,
        ("sysctl", f"fs.file-max={raised}"),
        target=steps.host_of(incident),
        summary=f"Raise the limit of open descriptors of the whole host from {found.limit} to {raised}.",
        risk="Each open descriptor takes about a kibibyte of the kernel's memory. Nothing is restarted.",
        will_not_fix=(
            "A process that never closes. The change does not outlive a reboot: write it into "
            "/etc/sysctl.d once it has proven right."
        ),
        proof=_PROOF,
    )
