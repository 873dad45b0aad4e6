"""Evidence of units, containers, logs, numbers that servers tell of themselves, and scopes."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from escalation.model.route_evidence import ServerKind


class UnitResult(enum.StrEnum):
    """How a unit's last run ended (systemd's Result property)."""

    UNKNOWN = "unknown"
    SUCCESS = "success"
    EXIT_CODE = "exit-code"
    SIGNAL = "signal"
    CORE_DUMP = "core-dump"
    TIMEOUT = "timeout"
    WATCHDOG = "watchdog"
    START_LIMIT_HIT = "start-limit-hit"
    OOM_KILL = "oom-kill"
    RESOURCES = "resources"
    PROTOCOL = "protocol"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitEvidence:
    """How often a unit or container started in `window_s` seconds, and how short it lived."""

    result: UnitResult
    exit_status: int | None
    starts: int
    window_s: float
    shortest_s: float | None
    longest_s: float | None


class Change(enum.StrEnum):
    """What of a server's command line differs from what is recorded."""

    UNKNOWN = "unknown"
    MODEL = "model"
    CONTEXT = "context"
    QUANTIZATION = "quantization"
    PARSER = "parser"
    MEMORY = "memory"
    PARALLELISM = "parallelism"
    ADDRESS = "address"
    IMAGE = "image"
    EXECUTABLE = "executable"
    OTHER_OPTION = "other_option"


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftEvidence:
    """A server that came back otherwise. The prints are keyed hashes of its command line, never the line.

    `context_before` and `context_now` are in tokens, None where the command line does not say.
    """

    server: ServerKind
    changes: tuple[Change, ...]
    print_before: str
    print_now: str
    context_before: int | None
    context_now: int | None
    ran_s: float


@dataclass(frozen=True, slots=True)
class Capture:
    """One typed part of a log line: a number, or a word of the pattern's own closed list."""

    name: str
    number: float | None = None
    word: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEvidence:
    """How often lines of one pattern were written in `window_s` seconds, and what the last one captured.

    `pattern` is the pattern's id; the line itself never leaves the host.
    """

    pattern: str
    count: int
    window_s: float
    process_name: str
    captures: tuple[Capture, ...] = ()


class Gauge(enum.StrEnum):
    """A number that a server tells of itself."""

    UNKNOWN = "unknown"
    REQUESTS_RUNNING = "requests_running"
    REQUESTS_WAITING = "requests_waiting"
    GENERATED_TOKENS = "generated_tokens"
    PROMPT_TOKENS = "prompt_tokens"
    CACHE_USED = "cache_used"
    PREEMPTIONS = "preemptions"
    DEPLOYMENT_STATE = "deployment_state"
    NODES_ALIVE = "nodes_alive"
    NODES_DEAD = "nodes_dead"
    MODEL_ON_GPU_SHARE = "model_on_gpu_share"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricEvidence:
    """One number that a server told of itself: as it is, and how much it rose in `window_s` seconds."""

    server: ServerKind
    port: int
    gauge: Gauge
    value: float
    rise: float
    window_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsEvidence:
    """Connections of a database: how many there are, of how many, and how many were refused."""

    port: int
    sessions: int
    limit: int | None
    refused: int
    window_s: float


class ScopeBreach(enum.StrEnum):
    """What a declared scope does not allow."""

    UNKNOWN = "unknown"
    EXECUTABLE = "executable"
    DESTINATION = "destination"
    LISTENER = "listener"
    SECRET = "secret"  # noqa: S105 -- a word


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeEvidence:
    """Something outside a declared scope. `denied` is whether the kernel refused it.

    `address` and `port` are of a destination or listener, empty and 0 for the others; an executable is named
    by its last path component. `option` is where on a command line a secret stands, a word of a closed list,
    empty for the others.
    """

    scope: str
    breach: ScopeBreach
    process_name: str
    pid: int | None
    executable: str
    address: str
    port: int
    count: int
    denied: bool
    option: str = ""
