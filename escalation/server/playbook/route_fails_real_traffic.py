"""route.fails_real_traffic: small prompts are answered and large ones fail; a smoke test passes."""

from __future__ import annotations

from typing import assert_never

from escalation.model import Advice, Incident, PromptSizeEvidence, ServerKind
from escalation.server.playbook import serving
from escalation.wording.quantities import size

_PROOF = (
    "Within an hour the requests that reach this route are answered whatever their size, and none fails for "
    "its size for 10 minutes after that."
)


def advise(incident: Incident) -> Advice:
    """Return: keep large prompts away from this route, by its own limit or by the router's."""
    evidence = next((each for each in incident.evidence if isinstance(each, PromptSizeEvidence)), None)
    if evidence is None or not serving.has_second_witness(incident):
        return serving.look(
            incident,
            summary=(
                "See why large requests fail here while small ones succeed: a limit, memory, or a parser "
                "that only long answers reach."
            ),
            will_not_fix="Anything: agents go on failing where a short test passes.",
            proof=_PROOF,
        )
    return serving.change(
        incident,
        summary=(
            f"Requests of {size(evidence.split_bytes)} and more fail here. Keep them away until the cause is "
            f"found: {_limit(serving.server_of(incident))}"
        ),
        risk=(
            "Large requests get an error at once, or another model's answer, in place of a failure later. "
            "The restart that a server's own flag needs loads the model again, for minutes."
        ),
        will_not_fix="Why large prompts fail: memory, a defect of the engine, or ranks that lose each other.",
        proof=_PROOF,
    )


def _limit(server: ServerKind) -> str:
    match server:
        case ServerKind.VLLM:
            return (
                "lower --max-model-len, and --max-num-batched-tokens with chunked prefill; or send prompts "
                "above 32k tokens to a model that runs on a single host."
            )
        case ServerKind.TENSORRT_LLM:
            return "lower --max_seq_len and --max_num_tokens; or send large prompts to another model."
        case ServerKind.OLLAMA:
            return "lower OLLAMA_CONTEXT_LENGTH, or send large prompts to another model."
        case ServerKind.LLAMA_CPP:
            return "lower --ctx-size, or send large prompts to another model."
        case ServerKind.LITELLM:
            return (
                "set max_input_tokens in its model_info with enable_pre_call_checks: true, and name another "
                "model in context_window_fallbacks."
            )
        case (
            ServerKind.OPEN_WEBUI
            | ServerKind.RAY
            | ServerKind.WHISPER
            | ServerKind.POSTGRESQL
            | ServerKind.OTHER
            | ServerKind.UNKNOWN
        ):
            return "lower its context length, or send large prompts to another model."
        case _:
            assert_never(server)
