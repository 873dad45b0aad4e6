"""scope.violation: something did what its declared scope does not allow, or carries a secret in the open.

It is a note: the scope may be too narrow, or somebody may have broken in, and only a person can tell. What
has to be done about a secret is known at once: others could read it, so it has to be changed.
"""

from __future__ import annotations

from typing import Final

from escalation.model import Advice, Incident, ReasonCode, ScopeBreach, ScopeEvidence, Verification
from escalation.server.playbook import steps
from escalation.server.playbook.names import acted_on, container_id, ip_address, process_id, service_unit

_PROOF: Final = Verification(
    text="Within a day the scope is kept again, or was declared wider by a person, for 10 minutes.",
    within_s=86_400,
    quiet_s=600,
)
_WORDS: Final = {
    ScopeBreach.EXECUTABLE: (
        "Find out why it starts another program than its scope allows: who started it, and since when."
    ),
    ScopeBreach.DESTINATION: (
        "Find out why it connects to where its scope does not allow: what asked for it, and what was sent."
    ),
    ScopeBreach.LISTENER: "Find out why it listens where its scope does not allow, and who can reach it.",
    ScopeBreach.SECRET: (
        "Take the secret out of the command line, into a file or an environment that only its service reads, "
        "restart it, and change the secret: every user of this host could read it."
    ),
}


def advise(incident: Incident) -> Advice:
    """Return: look at who did it, by what the breach is; the words for a secret say to change it."""
    found = next((each for each in incident.evidence if isinstance(each, ScopeEvidence)), None)
    breach = found.breach if found is not None else ScopeBreach.UNKNOWN
    if steps.has_reason(incident, ReasonCode.SECRET_ON_COMMAND_LINE):
        breach = ScopeBreach.SECRET
    words = _WORDS.get(breach, "Find out what left its scope, and why.")
    denied = (found is not None and found.denied) or steps.has_reason(incident, ReasonCode.CONNECTION_DENIED)
    return steps.look(
        incident,
        _command(incident, found, breach),
        summary=(
            words
            + (" The kernel refused it." if denied else "")
            + (
                ""
                if breach is ScopeBreach.SECRET
                else " If it is meant, declare the scope wider on the host."
            )
        ),
        will_not_fix=(
            "Whatever was done or read already. Nothing is stopped from here, and no scope is changed from "
            "here: only the host's own configuration does that."
        ),
        proof=_PROOF,
        risk="None: the command only reads. Its output names processes or peers, and no command line.",
    )


def _command(incident: Incident, found: ScopeEvidence | None, breach: ScopeBreach) -> tuple[str, ...]:
    """Return what shows who it was; never a command line, which may hold the secret."""
    if found is not None and breach is ScopeBreach.DESTINATION and (to := ip_address(found.address)):
        return ("ss", "-H", "-t", "-a", "-n", "-p", "dst", f"[{to}]" if ":" in to else to)
    if found is not None and breach is ScopeBreach.LISTENER and 0 < found.port < 65_536:
        return ("ss", "-H", "-l", "-t", "-n", "-p", f"sport = :{found.port}")
    columns = "pid,ppid,user,lstart,comm"
    if (pid := process_id(incident)) is not None:
        return ("ps", "-o", columns, "-p", str(pid))
    target = acted_on(incident)
    if (container := container_id(target)) is not None:
        return ("docker", "top", container, "-o", "pid,ppid,user,comm")
    if (unit := service_unit(target)) is not None:
        return ("systemctl", "show", unit, "--property=MainPID,User,ControlGroup,ExecMainStartTimestamp")
    return ("ps", "-eo", columns)
