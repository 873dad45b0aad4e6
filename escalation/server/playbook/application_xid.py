"""gpu.application_xid: a program made the GPU report an error, and usually dies of it.

A memory access out of bounds, an illegal instruction, a row of memory that was taken out of use: the process
loses its context and the GPU goes on. The same number from several different programs points at the hardware.
"""

from __future__ import annotations

from escalation.model import Action, ActionKind, Advice, Incident, ReasonCode, Verification
from escalation.server.playbook.names import acted_on
from escalation.server.playbook.serving import restart_command

_PROOF = Verification(
    text="The driver reports no such error for 24 hours.", within_s=86_400 * 2, quiet_s=86_400
)


def advise(incident: Incident) -> Advice:
    """Return: restart the program that met it; test the hardware where several met the same."""
    several = any(reason.code is ReasonCode.XID_FROM_SEVERAL_PROCESSES for reason in incident.reasons)
    restart = restart_command(incident)
    if several or restart is None:
        return Advice(
            action=Action(
                kind=ActionKind.INSPECT,
                host=incident.agent_id,
                target=acted_on(incident),
                command=("nvidia-smi", "-q", "-d", "ECC,ROW_REMAPPER,PAGE_RETIREMENT"),
            ),
            summary=(
                "Look at the GPU's memory errors and remapped rows, and keep the log of the program that met "
                "the error. If several programs meet the same one, test the hardware (dcgmi diag -r 3) while "
                "nothing else uses it."
            ),
            risk="None: the command only reads.",
            will_not_fix="Anything: it shows whether the program or the GPU is at fault.",
            verification=_PROOF,
        )
    kind, command = restart
    return Advice(
        action=Action(kind=kind, host=incident.agent_id, target=acted_on(incident), command=command),
        summary=(
            "Keep the log, then restart the server, if it did not end by itself: after such an error its GPU "
            "context is gone, and every further request fails."
        ),
        risk=(
            "Requests in flight are cut off, and the model is loaded again, which takes from seconds to many "
            "minutes. Other users of the GPU are not touched."
        ),
        will_not_fix="A defect in the program or in a kernel that it runs: the same input meets it again.",
        verification=_PROOF,
    )
