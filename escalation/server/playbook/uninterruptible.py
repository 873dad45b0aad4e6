"""process.uninterruptible: a process has been stuck inside the kernel, where no signal reaches it.

It waits for a disk, a network mount or a driver. Killing it does nothing until that answers; the way out is
to mend what it waits for, and where that cannot be mended, a reboot. Neither is ever a button.
"""

from __future__ import annotations

from typing import Final

from escalation.model import Advice, Incident, ReasonCode, Verification
from escalation.server.playbook import steps
from escalation.server.playbook.names import process_id

_PROOF: Final = Verification(
    text="The process runs again or is gone within a day, and is not stuck again for 10 minutes.",
    within_s=86_400,
    quiet_s=600,
)


def advise(incident: Incident) -> Advice:
    """Return: read the kernel's log, mend the device or mount, else reboot; a note only looks."""
    pid = process_id(incident)
    if steps.is_only_a_note(incident):
        columns = "pid,stat,wchan:32,etime,comm"
        return steps.look(
            incident,
            ("ps", "-o", columns, "-p", str(pid)) if pid is not None else ("ps", "-eo", columns),
            summary=(
                "Look whether the process is still in state D, and where in the kernel it waits. A moment in "
                "that state is ordinary input and output."
            ),
            will_not_fix="Anything: it shows what the process waits for.",
            proof=_PROOF,
        )
    storage = steps.has_reason(incident, ReasonCode.TASKS_STALL_FOR_IO)
    first = (
        "Other tasks stall for input and output too: look for the disk or the network mount that does not "
        "answer, and bring it back."
        if storage
        else "Look for the device, the driver or the mount that does not answer, and bring it back."
    )
    return steps.by_hand(
        incident,
        steps.KERNEL_LOG,
        summary=(
            f"Read what the kernel says. {first} The process goes on by itself then. Where it cannot be "
            "brought back, take the routes of this host out of use, stop its servers in order, and reboot it."
        ),
        risk=(
            "A forced unmount loses what was not yet written. A reboot stops everything on the host, and "
            "hangs as well where the mount has to be released first: then only the power switch is left."
        ),
        will_not_fix=(
            "kill, also with -9, does nothing here: the signal waits with the process. A disk or a server "
            "that fails again brings it back."
        ),
        proof=_PROOF,
    )
