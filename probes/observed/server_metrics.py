"""What a model server tells of itself, in numbers: a second witness, never the first."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from probes.origin import Instant, SensorName, ServerKind


class ServerGauge(enum.StrEnum):
    """A number that a server tells of itself. Tokens and preemptions only rise while it lives."""

    REQUESTS_RUNNING = "requests_running"
    REQUESTS_WAITING = "requests_waiting"
    GENERATED_TOKENS = "generated_tokens"
    PROMPT_TOKENS = "prompt_tokens"
    CACHE_USED = "cache_used"  # a share, 0..1
    PREEMPTIONS = "preemptions"
    DEPLOYMENT_STATE = "deployment_state"  # LiteLLM's worst: 0 healthy, 1 partial, 2 complete outage
    NODES_ALIVE = "nodes_alive"
    NODES_DEAD = "nodes_dead"
    MODEL_ON_GPU_SHARE = "model_on_gpu_share"  # Ollama's, of all loaded models: 0..1


class AskingFailed(enum.StrEnum):
    """Why a server told nothing."""

    UNREACHABLE = "unreachable"
    SLOW = "slow"
    REFUSED = "refused"  # another status than 200
    TOO_LARGE = "too_large"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class GaugeRead:
    """One number, over all models of the server."""

    gauge: ServerGauge
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerMetrics:
    """What the server on `port` told when it was asked: `gauges`, or why none (`failure`)."""

    sensor: SensorName
    at: Instant
    server: ServerKind
    port: int
    gauges: tuple[GaugeRead, ...]
    failure: AskingFailed | None = None
