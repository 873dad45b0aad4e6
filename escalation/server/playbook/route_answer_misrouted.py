"""route.answer_misrouted: the answer stands in the reasoning field, or marks of thinking stand in the answer.

The parser that splits thinking from the answer is missing, or is another model's.
"""

from __future__ import annotations

from typing import assert_never

from escalation.model import Advice, Incident, ReasonCode, ServerKind
from escalation.server.playbook import serving

_PROOF = (
    "Within an hour answers of this route stand in their content, without marks of thinking, and stay so for "
    "10 minutes."
)


def advise(incident: Incident) -> Advice:
    """Return: give the server the parser of its model, or let the router merge the fields."""
    marks = any(reason.code is ReasonCode.REASONING_MARKS_IN_CONTENT for reason in incident.reasons)
    seen = (
        "No parser takes the thinking out of the answers."
        if marks
        else "The parser takes the answer for thinking, so that callers read nothing."
    )
    if not serving.has_second_witness(incident):
        return serving.look(
            incident,
            summary=(
                f"{seen} See with which parser the server was started. One sign alone changes no setting."
            ),
            will_not_fix="Anything: it shows the server's flags.",
            proof=_PROOF,
            risk=serving.READS_SETTINGS,
            command=serving.template_command(incident) or serving.settings_command(incident),
        )
    return serving.change(
        incident,
        summary=f"{seen} {_setting(serving.server_of(incident))}",
        risk=(
            "The restart that a changed flag needs loads the model again, for minutes. Merging the fields "
            "shows callers the model's thinking. The wrong parser makes it worse: try it on one server."
        ),
        will_not_fix=(
            "Clients that read the field by its old name (reasoning_content), or only by its new one."
        ),
        proof=_PROOF,
        command=serving.template_command(incident),
    )


def _setting(server: ServerKind) -> str:
    match server:
        case ServerKind.VLLM:
            return (
                "Start vLLM with the --reasoning-parser of exactly this model, and pin the image: parsers "
                "and chat templates change between versions."
            )
        case ServerKind.TENSORRT_LLM:
            return "Start trtllm-serve with the --reasoning_parser of exactly this model."
        case ServerKind.LITELLM:
            return (
                "Set merge_reasoning_content_in_choices: true in litellm_params of this model, or mend the "
                "parser of the server behind it."
            )
        case ServerKind.OLLAMA:
            return (
                "Pull the model anew: its template splits the fields; a model made by hand needs one that "
                "does."
            )
        case ServerKind.LLAMA_CPP:
            return "Start llama-server with --jinja and --reasoning-format auto."
        case (
            ServerKind.OPEN_WEBUI
            | ServerKind.RAY
            | ServerKind.WHISPER
            | ServerKind.POSTGRESQL
            | ServerKind.OTHER
            | ServerKind.UNKNOWN
        ):
            return "Start the server with the reasoning parser of exactly this model."
        case _:
            assert_never(server)
