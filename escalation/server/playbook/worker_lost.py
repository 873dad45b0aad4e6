"""distributed.worker_lost: a worker of a model that runs over several hosts is gone from its cluster.

The rest waits for it for ever. It has to join again before the server that uses it is restarted; the other
way round the server starts without it, or not at all.
"""

from __future__ import annotations

from typing import Final

from escalation.model import Advice, Incident, SubjectKind, Verification
from escalation.server.playbook import serving, steps
from escalation.server.playbook.names import acted_on, container_id

_PROOF: Final = Verification(
    text=(
        "Within 30 minutes every node is alive in the cluster and the model answers small and large prompts, "
        "and none is lost for 10 minutes after that."
    ),
    within_s=1800,
    quiet_s=600,
)


def advise(incident: Incident) -> Advice:
    """Return: restart the worker where two signs agree and it has a safe name; ask the cluster otherwise."""
    restart = serving.restart_command(incident)
    if steps.is_only_a_note(incident) or restart is None:
        container = container_id(acted_on(incident))
        return steps.look(
            incident,
            ("docker", "exec", container, "ray", "status") if container is not None else ("ray", "status"),
            summary=(
                "Ask the cluster which nodes it has. A worker whose terminal was closed, or that was stopped "
                "in order (ray stop), is gone without a fault: start it again where it ran."
            ),
            will_not_fix="Anything: it shows which node is missing.",
            proof=_PROOF,
        )
    kind, command = restart
    elsewhere = incident.subject.kind is SubjectKind.PEER
    return steps.propose(
        incident,
        kind,
        command,
        summary=(
            (
                "Start the worker again on the other host first, and wait until ray status counts all nodes; "
                "then run the command here, which restarts the server that uses them. In this order: a "
                "server that starts first does not find its worker."
            )
            if elsewhere
            else (
                "Restart the worker, wait until ray status counts all nodes, then restart the server that "
                "uses them, on the host where it runs. In this order: a server that starts first does not "
                "find its worker."
            )
        ),
        risk=(
            "Every request of the model is lost on all its hosts, and it is loaded again on all of them, "
            "which takes many minutes."
        ),
        will_not_fix=(
            "Why the worker was lost: look for a kill for want of memory, a link that went down, or a "
            "terminal that was closed with the worker in it."
        ),
        proof=_PROOF,
    )
