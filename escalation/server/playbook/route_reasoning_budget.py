"""route.reasoning_budget_exhausted: thinking uses up the allowed tokens, and no answer is left."""

from __future__ import annotations

from typing import assert_never

from escalation.model import Advice, Incident, RouteEvidence, ServerKind
from escalation.server.playbook import serving

_PROOF = (
    "Within an hour answers of this route hold text again at the budget that callers use, and none ends in "
    "thinking for 10 minutes after that."
)


def advise(incident: Incident) -> Advice:
    """Return: allow more tokens, or less thinking, with the setting of the server that answers."""
    budget = _budget(incident)
    if not serving.has_second_witness(incident):
        return serving.look(
            incident,
            summary=f"See whether thinking takes all the tokens: {budget} One sign alone changes no setting.",
            will_not_fix="Anything: it shows how answers of this route end.",
            proof=_PROOF,
        )
    return serving.change(
        incident,
        summary=f"{budget} {_less_thinking(serving.server_of(incident))}",
        risk=(
            "More tokens make answers slower and hold more of the KV cache; less thinking makes hard "
            "answers worse. A server's own setting needs its restart; a router's or a caller's does not "
            "touch the model."
        ),
        will_not_fix=(
            "Questions that need more thinking than any budget, and callers that set a small one themselves."
        ),
        proof=_PROOF,
    )


def _budget(incident: Incident) -> str:
    for each in incident.evidence:
        if isinstance(each, RouteEvidence) and each.max_tokens:
            return (
                f"Callers allow {each.max_tokens} tokens and thinking takes them: raise max_tokens (also "
                f"called max_completion_tokens or num_predict), to {4 * each.max_tokens} for a start."
            )
    return "Raise max_tokens (also called max_completion_tokens or num_predict) where callers set it."


def _less_thinking(server: ServerKind) -> str:
    match server:
        case ServerKind.VLLM:
            return (
                "Or think less: chat_template_kwargs with enable_thinking false in the request, or a "
                "thinking_token_budget where this version has it."
            )
        case ServerKind.OLLAMA:
            return (
                'Or think less: "think": false in the request, or a level (low) for models that have levels.'
            )
        case ServerKind.LITELLM:
            return (
                "Or think less, for all callers: reasoning_effort low, or extra_body with the server's own "
                "switch, in litellm_params of this model."
            )
        case ServerKind.LLAMA_CPP:
            return "Or think less: start llama-server with --reasoning-budget 0."
        case (
            ServerKind.TENSORRT_LLM
            | ServerKind.OPEN_WEBUI
            | ServerKind.RAY
            | ServerKind.WHISPER
            | ServerKind.POSTGRESQL
            | ServerKind.OTHER
            | ServerKind.UNKNOWN
        ):
            return (
                "Or think less: chat_template_kwargs with enable_thinking false, where the model has that "
                "switch."
            )
        case _:
            assert_never(server)
