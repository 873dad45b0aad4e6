"""The page of numbers that a server serves: fetched within a second, and the wanted numbers read from it.

Of a page only the lines of wanted names are looked at, and of these name and number: labels tell engines
apart, whose numbers are added up. prometheus-client's reader of whole pages brings 2 MB and a web server; a
test holds this against it.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from probes.host import local_api
from probes.observation import AskingFailed, GaugeRead, ServerGauge, ServerKind

BYTES_MAX: Final = 2 << 20
_TIMEOUT_S: Final = 1.0
_SAMPLE: Final = re.compile(
    rb"""([a-zA-Z_:][a-zA-Z0-9_:]*) [ \t]*
    (?: \{ (?: [^"}] | "(?:[^"\\]|\\.)*+" )*+ \} )? [ \t]*  # labels, whose texts may hold a brace
    (?<=[ \t}]) ([^ \t_]+)
    (?: [ \t]+ -?[0-9.]+ )? [ \t\r]* (?: [ \t]\#.* )?  # a time, and an example in newer pages
    """,
    re.VERBOSE,
)

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
    lines = [line for line in page.split(b"\n") if line.startswith(names)]
    found: dict[ServerGauge, float] = {}
    for name, value in _samples(lines):
        if name in wanted and math.isfinite(value):
            gauge, fold = wanted[name]
            found[gauge] = fold(found[gauge], value) if gauge in found else value
    finite = (pair for pair in sorted(found.items()) if math.isfinite(pair[1]))
    return tuple(GaugeRead(gauge, value) for gauge, value in finite)


def _samples(lines: list[bytes]) -> Iterator[tuple[str, float]]:
    for line in lines:
        match = _SAMPLE.fullmatch(line)
        if match is None:
            raise PageInvalid("a line is not in the exposition format")
        try:
            yield match[1].decode(), float(match[2])
        except ValueError as error:
            raise PageInvalid("a value is no number") from error


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
