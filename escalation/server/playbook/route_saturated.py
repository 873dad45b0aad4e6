"""route.saturated: more requests than the server can take; they are refused, or wait longer and longer.

A busy server is not a broken one: nothing is restarted, and what helps is fewer requests at once.
"""

from __future__ import annotations

from typing import assert_never

from escalation.model import Advice, Incident, ServerKind
from escalation.server.playbook import serving


def advise(incident: Incident) -> Advice:
    """Return: look at the queue, with the limits that the operator may set."""
    return serving.look(
        incident,
        summary=(
            "See how many requests run and wait. Limit them before they arrive (max_parallel_requests or "
            "rpm per model in LiteLLM), or spread them over another deployment. "
            f"{_limit(serving.server_of(incident))}"
        ),
        will_not_fix=(
            "Demand that is larger than the hardware. Do not restart it: the queue comes back, colder."
        ),
        proof="No request is refused as busy or waits far longer than usual for 10 minutes, within a day.",
    )


def _limit(server: ServerKind) -> str:
    match server:
        case ServerKind.VLLM:
            return "In vLLM a lower --max-num-seqs keeps those that run fast."
        case ServerKind.OLLAMA:
            return "In Ollama OLLAMA_NUM_PARALLEL says how many run, and OLLAMA_MAX_QUEUE how many may wait."
        case ServerKind.LLAMA_CPP:
            return "In llama.cpp --parallel says how many run."
        case ServerKind.TENSORRT_LLM:
            return "In TensorRT-LLM --max_batch_size says how many run."
        case ServerKind.LITELLM:
            return "The router only passes on what the servers behind it refuse."
        case (
            ServerKind.OPEN_WEBUI
            | ServerKind.RAY
            | ServerKind.WHISPER
            | ServerKind.POSTGRESQL
            | ServerKind.OTHER
            | ServerKind.UNKNOWN
        ):
            return "The server's own limit on parallel requests may be too high for its memory."
        case _:
            assert_never(server)
