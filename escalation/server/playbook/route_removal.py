"""Taking a model's route out of LiteLLM, for what removes routes because their answers are no answers.

LiteLLM knows a model from the `model_list` of its configuration file or from its database. An entry of the
file goes by editing it and restarting the proxy: the one exact command there is. An entry of the database
goes by its id, which no traffic shows: so where the proxy cannot be restarted by a safe name, the exact
command is the one that lists the ids. Its key is read from a file on the host and stands in no command.
"""

from __future__ import annotations

from typing import Final

from escalation.model import (
    Action,
    ActionKind,
    Advice,
    Alternative,
    Incident,
    ServerKind,
    Verification,
    Way,
)
from escalation.server.playbook import serving
from escalation.server.playbook.names import acted_on

HEADER_FILE: Final = "/etc/nanobot/litellm.header"
"""Where the how-to has an operator keep `Authorization: Bearer ...`, readable by root alone."""

_IN_DATABASE: Final = (
    "An entry that was added through the API or the admin page is in the proxy's database instead: list the "
    "ids (GET /v1/model/info), delete it by its id (POST /model/delete), and restart nothing. Both commands "
    "are in the manual, under: Take a route out."
)


def advise(incident: Incident, *, fault: str, proof: str) -> Advice:
    """Return: take the model out of the proxy where this is one; else look at the server that answers so.

    `fault` says what the answers are; `proof` what ends the case.
    """
    if serving.server_of(incident) is ServerKind.LITELLM and serving.has_second_witness(incident):
        restart = serving.restart_command(incident)
        return _list_ids(incident, fault, proof) if restart is None else _remove(incident, restart[1], proof)
    return _look(incident, fault, proof)


def _remove(incident: Incident, command: tuple[str, ...], proof: str) -> Advice:
    model = serving.model_of(incident)
    return Advice(
        action=Action(
            kind=ActionKind.REMOVE_ROUTE,
            host=incident.agent_id,
            target=acted_on(incident),
            command=command,
        ),
        summary=(
            f"Take {model} out of the router, so that callers get its fallback or an error instead of such "
            "answers. Delete its entry from model_list in LiteLLM's configuration file first; the command "
            f"then restarts the proxy without it. {_IN_DATABASE}"
        ),
        risk=(
            "The restart cuts off every request that passes this proxy, of all models, and takes from "
            "seconds to a minute. Afterwards the fallbacks carry the load of this model; where it has none, "
            "its callers get errors. Without the edit the command is a restart and nothing more."
        ),
        will_not_fix=(
            "The model's server: it answers like this until its cause is found. Callers that reach it past "
            "the router still do. Where nobody asks for it any more, the case stays open: silence proves "
            "nothing."
        ),
        verification=Verification(text=proof, within_s=86_400, quiet_s=600),
        alternatives=(
            Alternative(
                Way.RESTART,
                "Restart the model's server behind the router, and leave the route as it is.",
                "It serves nobody while it loads, and callers get such answers until then.",
                "Nothing says yet that a restart mends its answers; most causes are settings.",
            ),
        ),
    )


def _list_ids(incident: Incident, fault: str, proof: str) -> Advice:
    route = serving.route_of(incident)
    port = route.port if route is not None and 0 < route.port < 65_536 else 4000
    return serving.look(
        incident,
        summary=(
            f"{fault} List the router's models with their ids: the one to take out is "
            f"{serving.model_of(incident)}. Where db_model is true, delete it by its id (POST "
            "/model/delete); where it is false, delete its entry from model_list in the configuration "
            "file and restart the proxy. Both are in the manual, under: Take a route out."
        ),
        will_not_fix="Anything: it shows what there is to remove.",
        proof=proof,
        risk=serving.READS_MODELS,
        command=(
            "curl", "--silent", "--show-error", "--header", f"@{HEADER_FILE}",
            f"http://127.0.0.1:{port}/v1/model/info",
        ),
    )  # fmt: skip


def _look(incident: Incident, fault: str, proof: str) -> Advice:
    if serving.has_second_witness(incident):
        then = (
            f"Take {serving.model_of(incident)} out of the router that sends requests here until the cause "
            "is found; the manual says how, under: Take a route out."
        )
    else:
        then = "One sign alone is no ground for taking a route out: try it with a prompt of your own as well."
    return serving.look(
        incident,
        summary=f"{fault} Read the log of the server that answers so. {then}",
        will_not_fix="The answers. Looking shows their cause; callers go on getting them.",
        proof=proof,
    )
