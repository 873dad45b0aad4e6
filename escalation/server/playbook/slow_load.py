"""storage.slow_load: a server loads its model from a disk that is slower than it usually is.

It is slow and not broken: it answers once it is loaded. A restart begins the load anew, so the advice is to
wait and to look at what else uses the disk.
"""

from __future__ import annotations

from typing import Final

from escalation.model import Advice, Incident, Verification
from escalation.server.playbook import steps

_PROOF: Final = Verification(
    text="The server listens within four hours, and reads take no longer than is usual for 10 minutes.",
    within_s=14_400,
    quiet_s=600,
)


def advise(incident: Incident) -> Advice:
    """Return: let it load, and look at what the disk does meanwhile."""
    return steps.look(
        incident,
        ("vmstat", "1", "5"),
        target=steps.host_of(incident),
        summary=(
            "Let it load; do not restart it, which begins the load anew. Look at what is read (bi), how many "
            "wait for the disk (b) and the time spent waiting (wa): another copy, a download or a backup on "
            "the same disk can wait."
        ),
        will_not_fix=(
            "A disk or a network mount that is too slow for a model of this size: keep the model on a local "
            "disk. The first load after a start of the host is always slower."
        ),
        proof=_PROOF,
    )
