"""Evidence of units, servers, logs and scopes as short facts. What came from a host passes `shown`."""

from __future__ import annotations

from typing import Final, assert_never

from escalation.inert import shown
from escalation.model import (
    Change,
    DriftEvidence,
    Gauge,
    LogEvidence,
    MetricEvidence,
    ScopeBreach,
    ScopeEvidence,
    ServerKind,
    SessionsEvidence,
    UnitEvidence,
    UnitResult,
)
from escalation.wording.network import place
from escalation.wording.quantities import LABEL_LIMIT, counted, duration, process, times

_PRINT_SHOWN: Final = 16
"""Digits of a print that are enough to tell two apart."""


def unit_fact(evidence: UnitEvidence) -> str:
    """Return how often something started, and how short it lived."""
    status = "" if evidence.exit_status is None else f" (status {evidence.exit_status})"
    parts = [
        f"started {times(evidence.starts)} within {duration(evidence.window_s)}",
        f"last ended: {result_words(evidence.result)}{status}",
    ]
    if evidence.shortest_s is not None and evidence.longest_s is not None:
        parts.append(f"lived {duration(evidence.shortest_s)} to {duration(evidence.longest_s)}")
    elif evidence.shortest_s is not None:
        parts.append(f"lived {duration(evidence.shortest_s)}")
    return ", ".join(parts)


def drift_fact(evidence: DriftEvidence) -> str:
    """Return what of a server's command line is other than recorded."""
    server = server_name(evidence.server) or "the server"
    changed = ", ".join(change_words(each) for each in evidence.changes) or "an unknown part"
    parts = [f"{server} came back with another command line: {changed}"]
    if evidence.context_before is not None or evidence.context_now is not None:
        before, now = (
            "not set" if tokens is None else counted(tokens, "token")
            for tokens in (evidence.context_before, evidence.context_now)
        )
        parts.append(f"context {before} before, {now} now")
    before, now = (shown(each[:_PRINT_SHOWN]) for each in (evidence.print_before, evidence.print_now))
    parts.append(f"print {before or 'unknown'} before, {now or 'unknown'} now")
    parts.append(f"it had run as recorded for {duration(evidence.ran_s)}")
    return ", ".join(parts)


def log_fact(evidence: LogEvidence) -> str:
    """Return which pattern a log matched, and what was captured."""
    who = f" by {process(evidence.process_name, None)}" if evidence.process_name else ""
    pattern = shown(evidence.pattern, limit=LABEL_LIMIT) or "without a name"
    fact = f"log line {pattern}{who}, {times(evidence.count)} within {duration(evidence.window_s)}"
    told = [
        f"{shown(each.name, limit=LABEL_LIMIT)} "
        f"{shown(each.word, limit=LABEL_LIMIT) if each.number is None else f'{each.number:.6g}'}"
        for each in evidence.captures
    ]
    return f"{fact}; the last one: {', '.join(told)}" if told else fact


def metric_fact(evidence: MetricEvidence) -> str:
    """Return a number that a server told of itself."""
    server = server_name(evidence.server) or "the server"
    at = f" on port {evidence.port}" if evidence.port else ""
    moved = "has not moved" if not evidence.rise else f"moved by {evidence.rise:.6g}"
    return (
        f"{server}{at} tells of itself: {gauge_words(evidence.gauge)} {evidence.value:.6g}, "
        f"which {moved} within {duration(evidence.window_s)}"
    )


def sessions_fact(evidence: SessionsEvidence) -> str:
    """Return how many connections a database has."""
    limit = "" if evidence.limit is None else f" of {evidence.limit}"
    refused = f", refused {times(evidence.refused)}" if evidence.refused else ""
    port = f" on port {evidence.port}" if evidence.port else ""
    taken = f"{evidence.sessions}{limit} connections taken"
    return f"the database{port}: {taken}{refused}, within {duration(evidence.window_s)}"


def scope_fact(evidence: ScopeEvidence) -> str:
    """Return what was done outside a scope."""
    who = process(evidence.process_name, evidence.pid)
    scope = shown(evidence.scope, limit=LABEL_LIMIT) or "without a name"
    match evidence.breach:
        case ScopeBreach.EXECUTABLE:
            did = f"ran {shown(evidence.executable, limit=LABEL_LIMIT) or 'a program without a name'}"
        case ScopeBreach.DESTINATION:
            did = f"connected to {place(evidence.address, evidence.port)}"
        case ScopeBreach.LISTENER:
            did = f"listened on {place(evidence.address, evidence.port)}"
        case ScopeBreach.SECRET:
            where = f" ({shown(evidence.option, limit=LABEL_LIMIT)})" if evidence.option else ""
            return f"{who} has a secret on its command line{where}"
        case ScopeBreach.UNKNOWN:
            did = "did something that this orchestrator does not know"
        case _:
            assert_never(evidence.breach)
    denied = "; the kernel refused it" if evidence.denied else ""
    return f"{who} {did}, {times(evidence.count)}, outside of scope {scope}{denied}"


def result_words(result: UnitResult) -> str:  # noqa: C901, PLR0912 -- one case per result
    """Return how a unit's last run ended."""
    match result:
        case UnitResult.SUCCESS:
            return "well"
        case UnitResult.EXIT_CODE:
            return "with an error"
        case UnitResult.SIGNAL:
            return "by a signal"
        case UnitResult.CORE_DUMP:
            return "by a signal, with a core dump"
        case UnitResult.TIMEOUT:
            return "it took too long to start or stop"
        case UnitResult.WATCHDOG:
            return "its watchdog heard nothing"
        case UnitResult.START_LIMIT_HIT:
            return "its start limit was hit"
        case UnitResult.OOM_KILL:
            return "killed for want of memory"
        case UnitResult.RESOURCES:
            return "the manager could not prepare it"
        case UnitResult.PROTOCOL:
            return "it did not keep to its type's protocol"
        case UnitResult.OTHER:
            return "in another way"
        case UnitResult.UNKNOWN:
            return "in an unknown way"
        case _:
            assert_never(result)


def change_words(change: Change) -> str:
    """Return what of a command line changed."""
    match change:
        case Change.MODEL:
            return "the model"
        case Change.CONTEXT:
            return "the length of the context"
        case Change.QUANTIZATION:
            return "the quantization"
        case Change.PARSER:
            return "a parser of tool calls or reasoning"
        case Change.MEMORY:
            return "the share of memory"
        case Change.PARALLELISM:
            return "how it is spread over GPUs"
        case Change.ADDRESS:
            return "the address it listens on"
        case Change.IMAGE:
            return "the image"
        case Change.EXECUTABLE:
            return "the executable"
        case Change.OTHER_OPTION:
            return "another option"
        case Change.UNKNOWN:
            return "something that this orchestrator does not know"
        case _:
            assert_never(change)


def gauge_words(gauge: Gauge) -> str:
    """Return what a server's number is of."""
    match gauge:
        case Gauge.REQUESTS_RUNNING:
            return "requests running"
        case Gauge.REQUESTS_WAITING:
            return "requests waiting"
        case Gauge.GENERATED_TOKENS:
            return "tokens generated"
        case Gauge.PROMPT_TOKENS:
            return "tokens of prompts"
        case Gauge.CACHE_USED:
            return "share of the cache used"
        case Gauge.PREEMPTIONS:
            return "requests put off"
        case Gauge.DEPLOYMENT_STATE:
            return "state of a deployment"
        case Gauge.NODES_ALIVE:
            return "nodes alive"
        case Gauge.NODES_DEAD:
            return "nodes dead"
        case Gauge.MODEL_ON_GPU_SHARE:
            return "share of the model on the GPU"
        case Gauge.UNKNOWN:
            return "a number that this orchestrator does not know"
        case _:
            assert_never(gauge)


def server_name(server: ServerKind) -> str:
    """Return the name of the software that answers a route; empty where it is not known."""
    match server:
        case ServerKind.VLLM:
            return "vLLM"
        case ServerKind.TENSORRT_LLM:
            return "TensorRT-LLM"
        case ServerKind.OLLAMA:
            return "Ollama"
        case ServerKind.LLAMA_CPP:
            return "llama.cpp"
        case ServerKind.LITELLM:
            return "LiteLLM"
        case ServerKind.OPEN_WEBUI:
            return "Open WebUI"
        case ServerKind.RAY:
            return "Ray"
        case ServerKind.WHISPER:
            return "Whisper"
        case ServerKind.POSTGRESQL:
            return "PostgreSQL"
        case ServerKind.OTHER | ServerKind.UNKNOWN:
            return ""
        case _:
            assert_never(server)
