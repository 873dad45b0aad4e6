"""memory.page_cache_refusal: a server refuses to start because it takes cached files for used memory.

On unified memory the GPU's library reports what is free, and that does not count the page cache, which the
kernel would give up at once. Restarting and rebooting do not help for long; dropping the cache does.
"""

from __future__ import annotations

from escalation.model import Action, ActionKind, Advice, Incident, Subject, SubjectKind, Verification


def advise(incident: Incident) -> Advice:
    """Return: drop the page cache by hand; the server's own restarts do the rest."""
    return Advice(
        action=Action(
            kind=ActionKind.HUMAN,
            host=incident.agent_id,
            target=Subject(SubjectKind.HOST, incident.agent_id),
            command=("sysctl", "vm.drop_caches=3"),
        ),
        summary=(
            "Run sync, then drop the page cache on the host: the next start of the server finds the memory "
            "free. Check its log first for a line that says free memory is less than desired."
        ),
        risk=(
            "Files are read from disk again for a while: other servers that load a model or read data are "
            "slower. Nothing is lost and nothing is stopped."
        ),
        will_not_fix=(
            "The next time: the cache fills up again. Drop it before each start of the server, or give the "
            "server a smaller share of the memory."
        ),
        verification=Verification(
            text="Within an hour the server stays up for 15 minutes, and does not start over after that.",
            within_s=3600,
            quiet_s=900,
        ),
    )
