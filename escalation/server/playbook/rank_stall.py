"""distributed.rank_stall: a model that runs over two hosts has stalled, and both of them show it.

One rank waits for another that does not come; there is no error anywhere. Only a restart of all ranks ends
it, and prompts that are as large bring it back.
"""

from __future__ import annotations

from escalation.model import Action, Advice, Incident, ReasonCode, Verification
from escalation.server.playbook import serving
from escalation.server.playbook.names import acted_on

_PROOF = (
    "Within 30 minutes the model answers small and large prompts again, on both hosts, and none stalls "
    "for 10 minutes after that."
)


def advise(incident: Incident) -> Advice:
    """Return: restart all ranks together, from the one that serves; look, where that has no safe name."""
    restart = serving.restart_command(incident)
    agree = any(reason.code is ReasonCode.TWO_HOSTS_AGREE for reason in incident.reasons)
    if restart is None or not agree or not serving.has_second_witness(incident):
        return serving.look(
            incident,
            summary=(
                "Read the log of every rank for broadcast blocks that never come, and ray status where Ray "
                "joins them. All ranks have to be restarted together."
            ),
            will_not_fix="Anything: while one rank waits for another, no request is answered.",
            proof=_PROOF,
        )
    kind, command = restart
    return Advice(
        action=Action(kind=kind, host=incident.agent_id, target=acted_on(incident), command=command),
        summary=(
            "Restart all ranks of the model together: stop the others first, on the other host, then run the "
            "command here, then start the others. A rank that is left over hangs the next start."
        ),
        risk=(
            "Every request and session of the model is lost on both hosts, and it is loaded again on both, "
            "which takes many minutes."
        ),
        will_not_fix=(
            "Two whole copies of the model that stalled by themselves: look for one request that went to "
            "both. And the cause: large prompts bring it back; lower --max-model-len and "
            "--max-num-batched-tokens, or send prompts above 32k tokens to a model that runs on a single "
            "host."
        ),
        verification=Verification(text=_PROOF, within_s=1800, quiet_s=600),
    )
