"""route.engine_stalled: requests are under way and not one byte comes back, for longer than is allowed.

The server lives and its health check answers; only the engine in it does nothing any more. A restart ends
that. A busy engine looks the same to impatient eyes, so a restart is offered only where the silence is longer
than what was allowed for the largest request, more than one sign says so, and the server is known to be an
engine: restarting a proxy mends nothing.
"""

from __future__ import annotations

from escalation.model import Action, Advice, FlightEvidence, Incident, Verification
from escalation.server.playbook import serving
from escalation.server.playbook.names import acted_on

_PROOF = "Within 30 minutes the engine answers requests again, and none stalls for 10 minutes after that."


def advise(incident: Incident) -> Advice:
    """Return: restart the engine, all its ranks; look, where it may be busy or is only the router's word."""
    if serving.is_at_router(incident):
        return serving.look(
            incident,
            summary=(
                "The router waits for a model server that does not answer: find it in the router's log, and "
                "look there. Restarting the router mends nothing."
            ),
            will_not_fix="Anything: the engine behind the router has to answer again.",
            proof=_PROOF,
        )
    restart = serving.restart_command(incident)
    if restart is None or not _is_silent(incident) or not _is_certain(incident):
        return serving.look(
            incident,
            summary=(
                "See whether the engine is dead or only busy: a log that counts running requests and no "
                "tokens, minute after minute, is a stalled one. A busy engine needs time, not a restart."
            ),
            will_not_fix="Anything: it shows whether a restart is called for.",
            proof=_PROOF,
        )
    kind, command = restart
    return Advice(
        action=Action(kind=kind, host=incident.agent_id, target=acted_on(incident), command=command),
        summary=(
            "Restart the engine. If the model runs on several GPUs or hosts, restart all its ranks together: "
            "one that is left over hangs the next start."
        ),
        risk=(
            "Every request and session on this server is lost, and the model is loaded again, which takes "
            "from one to many minutes. Until then nothing is served."
        ),
        will_not_fix=(
            "The cause. If a certain prompt, or prompts above some size, brought it about, it comes back "
            "with the next one: keep the log before the restart."
        ),
        verification=Verification(text=_PROOF, within_s=1800, quiet_s=600),
    )


def _is_certain(incident: Incident) -> bool:
    return serving.is_at_engine(incident) and serving.has_second_witness(incident)


def _is_silent(incident: Incident) -> bool:
    return any(
        isinstance(each, FlightEvidence) and each.requests > 0 and 0 < each.patience_s <= each.silent_s
        for each in incident.evidence
    )
