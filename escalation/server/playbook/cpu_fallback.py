"""gpu.cpu_fallback: a model server that belongs on the GPU computes on the CPU, ten to fifty times slower.

It found no usable GPU when it loaded the model, and said so only in its log. A restart makes it look again,
which helps when whatever hid the GPU (revoked access, a driver that was not ready) is over.
"""

from __future__ import annotations

from escalation.model import Action, Advice, Incident, Verification
from escalation.server.playbook.names import acted_on
from escalation.server.playbook.serving import has_second_witness, look, restart_command


def advise(incident: Incident) -> Advice:
    """Return: restart exactly that server where two signs agree; read its log in every other case."""
    restart = restart_command(incident)
    if restart is None or not has_second_witness(incident):
        return look(
            incident,
            summary=(
                "Read what the server said about its GPU when it loaded the model: offloaded layers, the "
                "library that it chose, a device that it could not open."
            ),
            will_not_fix="Anything: it shows why the GPU was not used.",
            proof="The server is listed on a GPU within a day, and the CPU stays quiet for 10 minutes.",
        )
    kind, command = restart
    return Advice(
        action=Action(kind=kind, host=incident.agent_id, target=acted_on(incident), command=command),
        summary=(
            "Restart the server: it then looks for the GPU again. Where an incident about access to the GPU "
            "or about the driver is open on this host, treat that one first."
        ),
        risk=(
            "Requests in flight are cut off, and the model is loaded again, which takes from seconds to many "
            "minutes. Until then nothing is served. Other servers are not touched."
        ),
        will_not_fix=(
            "A GPU that is still out of reach, an image without GPU support, or a model that does not fit: "
            "the server falls back again. If it belongs on the CPU, declare that in agent.toml."
        ),
        verification=Verification(
            text=(
                "The driver lists the server's processes on a GPU within 15 minutes, and requests keep few "
                "cores busy for 10 minutes after that. A status of 200 is no proof."
            ),
            within_s=900,
            quiet_s=600,
        ),
    )
