"""route.context_overflow: prompts are longer than the context, and are refused or cut without a word."""

from __future__ import annotations

from typing import assert_never

from escalation.model import Advice, Incident, ReasonCode, ServerKind
from escalation.server.playbook import serving

_PROOF = (
    "Within an hour prompts of the size that callers send are read whole, and none is refused or cut for 10 "
    "minutes after that."
)


def advise(incident: Incident) -> Advice:
    """Return: a larger context where memory allows it, or another model for large prompts."""
    silent = any(reason.code is ReasonCode.PROMPTS_CUT_SILENTLY for reason in incident.reasons)
    seen = (
        "The server cuts prompts without saying so, and answers from what is left."
        if silent
        else "The server refuses prompts that are longer than its context."
    )
    if not serving.has_second_witness(incident):
        return serving.look(
            incident,
            summary=f"{seen} See which context the server was given. One sign alone changes no setting.",
            will_not_fix="Anything: it shows the server's flags.",
            proof=_PROOF,
            risk=serving.READS_SETTINGS,
            command=serving.settings_command(incident),
        )
    return serving.change(
        incident,
        summary=f"{seen} {_setting(serving.server_of(incident))}",
        risk=(
            "A larger context takes memory for its KV cache: on a GPU or a host that is nearly full it ends "
            "in an out-of-memory kill. The restart loads the model again, for minutes."
        ),
        will_not_fix=(
            "Callers that let their prompts grow without end; and answers get worse long before the context "
            "is full."
        ),
        proof=_PROOF,
    )


def _setting(server: ServerKind) -> str:
    match server:
        case ServerKind.OLLAMA:
            return (
                "Set OLLAMA_CONTEXT_LENGTH=65536 in its environment (agents want that much), or num_ctx "
                "in the request or the Modelfile."
            )
        case ServerKind.VLLM:
            return "Raise --max-model-len, as far as the model and the GPU's memory go."
        case ServerKind.TENSORRT_LLM:
            return "Raise --max_seq_len and --max_num_tokens, as far as the model and the GPU's memory go."
        case ServerKind.LLAMA_CPP:
            return "Raise --ctx-size; it is shared by all slots (--parallel)."
        case ServerKind.LITELLM:
            return (
                "Give the model a larger one for such prompts: context_window_fallbacks, "
                "with enable_pre_call_checks: true and max_input_tokens in its model_info."
            )
        case (
            ServerKind.OPEN_WEBUI
            | ServerKind.RAY
            | ServerKind.WHISPER
            | ServerKind.POSTGRESQL
            | ServerKind.OTHER
            | ServerKind.UNKNOWN
        ):
            return "Raise its context length, or send such prompts to a model with a larger one."
        case _:
            assert_never(server)
