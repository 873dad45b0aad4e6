"""distributed.rank_stall: a model that runs over several ranks has stalled: one waits for another for ever.

There is no error anywhere; two hosts that stall together show it, or one whose log speaks of a broadcast that
does not come while its tokens stand still. Only a restart of all ranks together ends it, and prompts that are
as large bring it back.
"""

from __future__ import annotations

from escalation.model import (
    Action,
    Advice,
    Alternative,
    Incident,
    ReasonCode,
    Verification,
    Way,
)
from escalation.server.playbook import serving, steps
from escalation.server.playbook.names import acted_on

_PROOF = (
    "Within 30 minutes the model answers small and large prompts again, on both hosts, and none stalls "
    "for 10 minutes after that."
)


def advise(incident: Incident) -> Advice:
    """Return: restart all ranks together, from the one that serves; look, where that has no safe name."""
    restart = serving.restart_command(incident)
    agree = steps.has_reason(incident, ReasonCode.TWO_HOSTS_AGREE) or (
        steps.has_reason(incident, ReasonCode.BROADCAST_BLOCKED, ReasonCode.LOG_LINE_MATCHES)
        and steps.has_reason(
            incident,
            ReasonCode.TOKEN_COUNTERS_FLAT,
            ReasonCode.NO_BYTES_WHILE_IN_FLIGHT,
            ReasonCode.METRICS_AGREE,
        )
    )
    if restart is None or not agree or steps.is_only_a_note(incident):
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
            "Restart all ranks of the model together: stop the others first, on every other host, then run "
            "the command here, then start the others. A rank that is left over hangs the next start. Where "
            "Ray joins them, ask ray status before and after: all nodes have to be there."
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
        alternatives=(
            Alternative(
                Way.RESTART,
                "Restart the rank on this host alone.",
                "The same minutes of loading, and often a second restart.",
                "A rank that is left over waits for a group that is gone, and hangs the next start.",
            ),
            Alternative(
                Way.WAIT,
                "Wait some minutes and look again.",
                "The model answers nobody for as long as you wait.",
                "Ranks that wait for each other go on waiting: no such stall ends by itself.",
            ),
        ),
    )
