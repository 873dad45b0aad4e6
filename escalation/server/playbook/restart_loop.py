"""unit.restart_loop: a unit or container starts again and again, and never lives long.

Starting it once more hides the cause. Its first failure is in its log; what ended it says where to look.
"""

from __future__ import annotations

from typing import Final

from escalation.model import Advice, Incident, ReasonCode, UnitEvidence, UnitResult, Verification
from escalation.server.playbook import serving, steps
from escalation.server.playbook.names import acted_on, container_id, service_unit

_PROOF: Final = Verification(
    text="Within a day it runs for more than 10 minutes without ending, and is not in a loop after that.",
    within_s=86_400,
    quiet_s=600,
)
_BY_RESULT: Final = {
    UnitResult.OOM_KILL: "It is killed for want of memory: give it more, or make it need less.",
    UnitResult.TIMEOUT: (
        "It is not ready in time: a model that loads for long needs a longer TimeoutStartSec= in its unit."
    ),
    UnitResult.WATCHDOG: "It does not answer its watchdog: it hangs before it is killed.",
    UnitResult.RESOURCES: "systemd itself has no room to start it: look for a full disk or too many tasks.",
    UnitResult.PROTOCOL: "It does not tell systemd what its unit says that it tells (Type=).",
    UnitResult.CORE_DUMP: "It dies by a defect: its core is listed by coredumpctl.",
    UnitResult.SIGNAL: "It is ended by a signal.",
}


def advise(incident: Incident) -> Advice:
    """Return: read why it failed first, who holds its address where that is the reason; never restart."""
    found = next((each for each in incident.evidence if isinstance(each, UnitEvidence)), None)
    target = acted_on(incident)
    taken = steps.has_reason(incident, ReasonCode.ADDRESS_IN_USE)
    limit = steps.has_reason(incident, ReasonCode.START_LIMIT_HIT) or (
        found is not None and found.result is UnitResult.START_LIMIT_HIT
    )
    command: tuple[str, ...]
    if taken:
        command, risk = ("ss", "-H", "-l", "-t", "-n", "-p"), serving.READS_PORT
        why = "Its address is in use: look at who listens there, and give one of the two another port."
    elif service_unit(target) is not None or container_id(target) is not None:
        command, risk = serving.log_command(incident), serving.READS_LOG
        why = _BY_RESULT.get(found.result, "") if found is not None else ""
        why = f"Read what it said before its first end, not only the last. {why}".rstrip()
    else:
        command, risk = ("systemctl", "list-units", "--no-pager", "--failed"), steps.READS
        why = "Look at what has failed: it is not known by a name that can stand in a command."
    after = (
        " systemd starts it no more: once the cause is mended, systemctl reset-failed and then systemctl "
        "start with its name."
        if limit
        else " Stop it until the cause is mended, if its restarts load a model each time."
    )
    return steps.look(
        incident,
        command,
        summary=why + after,
        risk=risk,
        will_not_fix="Anything: another restart without the cause mended only hides it.",
        proof=_PROOF,
    )
