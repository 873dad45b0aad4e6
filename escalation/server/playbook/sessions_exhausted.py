"""database.connections_exhausted: a database has no session left to give, so those who ask are turned away.

A router that keeps its keys in the database then refuses valid keys, which looks like a fault of the keys.
What helps is fewer sessions: smaller pools, and a restart of whoever does not give them back.
"""

from __future__ import annotations

from typing import Final

from escalation.model import ActionKind, Advice, Incident, ReasonCode, SessionsEvidence, Verification
from escalation.server.playbook import steps

_PROOF: Final = Verification(
    text="Within an hour no session is refused, and a tenth of them stays free for 15 minutes.",
    within_s=3600,
    quiet_s=900,
)


def advise(incident: Incident) -> Advice:
    """Return: make the pools smaller, by what the command shows of who holds the sessions; a note looks."""
    found = next((each for each in incident.evidence if isinstance(each, SessionsEvidence)), None)
    port = found.port if found is not None and 0 < found.port < 65_536 else 5432
    command = ("ss", "-H", "-t", "-n", "-p", "state", "established", f"sport = :{port}")
    if steps.is_only_a_note(incident):
        return steps.look(
            incident,
            command,
            summary="Look at who holds the sessions of the database, by address and process.",
            will_not_fix="Anything: it shows who holds them.",
            proof=_PROOF,
            risk="None: the command only reads. Its output names processes and peers.",
        )
    limit = f" Together they must stay below {found.limit}." if found is not None and found.limit else ""
    keys = (
        " The keys that the router refuses meanwhile are good: do not change them."
        if steps.has_reason(incident, ReasonCode.KEYS_REFUSED_AT_ROUTER)
        else ""
    )
    return steps.propose(
        incident,
        ActionKind.CHANGE_SETTING,
        command,
        summary=(
            "Make the pools of its clients smaller: each takes its pool times its workers times its "
            f"instances (LiteLLM: database_connection_pool_limit).{limit} The command shows who holds how "
            f"many; restart the one that holds most without need.{keys}"
        ),
        risk=(
            "The command shown only reads. A client that is restarted drops its requests. A higher "
            "max_connections instead takes memory for each and a restart of the database."
        ),
        will_not_fix=(
            "A client that never gives a session back. Letting the router answer while the database is out "
            "of reach means that keys are not checked: leave that off."
        ),
        proof=_PROOF,
    )
