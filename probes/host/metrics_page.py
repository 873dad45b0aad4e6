"""The page of numbers that a server serves: fetched within a second, and the wanted numbers read from it.

A module of its own because the privileged loader, which reads the registry of sensors, is not to load a
parser from a third party; `server_metrics` imports it when the first page is asked for.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from probes.host import local_api
from probes.observation import AskingFailed, GaugeRead, ServerGauge, ServerKind

BYTES_MAX: Final = 2 << 20
_TIMEOUT_S: Final = 1.0

_Fold = Callable[[float, float], float]


def _add(one: float, other: float) -> float:
    return one + other


_VLLM: Final[Mapping[str, tuple[ServerGauge, _Fold]]] = {
    "vllm:num_requests_running": (ServerGauge.REQUESTS_RUNNING, _add),
    "vllm:num_requests_waiting": (ServerGauge.REQUESTS_WAITING, _add),
    "vllm:generation_tokens_total": (ServerGauge.GENERATED_TOKENS, _add),
    "vllm:prompt_tokens_total": (ServerGauge.PROMPT_TOKENS, _add),
    "vllm:kv_cache_usage_perc": (ServerGauge.CACHE_USED, max),
    "vllm:gpu_cache_usage_perc": (ServerGauge.CACHE_USED, max),
    "vllm:num_preemptions_total": (ServerGauge.PREEMPTIONS, _add),
}
_LLAMA_CPP: Final[Mapping[str, tuple[ServerGauge, _Fold]]] = {
    "llamacpp:requests_processing": (ServerGauge.REQUESTS_RUNNING, _add),
    "llamacpp:requests_deferred": (ServerGauge.REQUESTS_WAITING, _add),
    "llamacpp:tokens_predicted_total": (ServerGauge.GENERATED_TOKENS, _add),
    "llamacpp:prompt_tokens_total": (ServerGauge.PROMPT_TOKENS, _add),
    "llamacpp:kv_cache_usage_ratio": (ServerGauge.CACHE_USED, max),
}
_LITELLM: Final[Mapping[str, tuple[ServerGauge, _Fold]]] = {
    "litellm_deployment_state": (ServerGauge.DEPLOYMENT_STATE, max),
}
_RAY: Final[Mapping[str, tuple[ServerGauge, _Fold]]] = {
    "ray_cluster_active_nodes": (ServerGauge.NODES_ALIVE, _add),
    "ray_cluster_failed_nodes": (ServerGauge.NODES_DEAD, _add),
}
_WANTED: Final = {
    ServerKind.VLLM: _VLLM,
    ServerKind.LLAMA_CPP: _LLAMA_CPP,
    ServerKind.LITELLM: _LITELLM,
    ServerKind.RAY: _RAY,
}


class PageInvalid(Exception):
    """A page of numbers cannot be read."""


def ask(
    server: ServerKind, host: str, port: int, path: str, *, monotonic: Callable[[], float] = time.monotonic
) -> tuple[GaugeRead, ...] | AskingFailed:
    """Return the wanted numbers of one server, or why there are none."""
    named = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        page = local_api.ask(
            (host, port), path, host=named, max_bytes=BYTES_MAX, timeout_s=_TIMEOUT_S, monotonic=monotonic
        )
        return gauges_of(server, page)
    except local_api.NotAnswered:
        return AskingFailed.SLOW
    except local_api.Refused:
        return AskingFailed.REFUSED
    except local_api.AnswerTooLong:
        return AskingFailed.TOO_LARGE
    except (OSError, local_api.NoServer, local_api.AnswerUnreadable):
        return AskingFailed.UNREACHABLE
    except PageInvalid:
        return AskingFailed.UNREADABLE


def gauges_of(server: ServerKind, page: bytes) -> tuple[GaugeRead, ...]:
    """Return the wanted numbers of a page; raise PageInvalid."""
    return _loaded_models(page) if server is ServerKind.OLLAMA else _exposed(_WANTED.get(server, {}), page)


def _exposed(wanted: Mapping[str, tuple[ServerGauge, _Fold]], page: bytes) -> tuple[GaugeRead, ...]:
    names = tuple(name.encode() for name in wanted)
    lines = [line for line in page.splitlines() if line.startswith(names)]
    found: dict[ServerGauge, float] = {}
    try:
        samples: Iterable[Any] = (
            sample
            for family in text_string_to_metric_families(b"\n".join(lines).decode() + "\n")
            for sample in family.samples
        )
        for sample in samples:
            if sample.name in wanted and math.isfinite(sample.value):
                gauge, fold = wanted[sample.name]
                found[gauge] = fold(found[gauge], sample.value) if gauge in found else sample.value
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise PageInvalid(f"not in the exposition format: {error}") from error
    finite = (pair for pair in sorted(found.items()) if math.isfinite(pair[1]))
    return tuple(GaugeRead(gauge, value) for gauge, value in finite)


def _loaded_models(page: bytes) -> tuple[GaugeRead, ...]:
    try:
        answer = json.loads(page)
    except (ValueError, RecursionError) as error:
        raise PageInvalid(f"not JSON: {error}") from error
    models = answer.get("models") if isinstance(answer, dict) else None
    if not isinstance(models, list):
        raise PageInvalid("no list of models")
    whole = on_gpu = 0
    for model in models:
        size, part = (model.get(key) for key in ("size", "size_vram")) if isinstance(model, dict) else (0, 0)
        if type(size) is int and type(part) is int and 0 <= part <= size:
            whole += size
            on_gpu += part
    return (GaugeRead(ServerGauge.MODEL_ON_GPU_SHARE, on_gpu / whole),) if whole else ()
