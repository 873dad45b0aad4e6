"""The evidence of units, servers, logs and scopes, between model and message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, assert_never

from escalation.model import (
    Capture,
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
from escalation.wire import escalation_pb2 as pb
from escalation.wire.fields import (
    Names,
    bounded,
    digits,
    entries,
    finite,
    fit,
    fit_digits,
    fit_float,
    fit_list,
    fit_measure,
    fit_optional,
    fit_port,
    fit_u32,
    fit_u64,
    fit_word,
    measure,
    number,
    optional_pid,
    port,
    text,
    word,
)

ServiceEvidence = (
    UnitEvidence | DriftEvidence | LogEvidence | MetricEvidence | SessionsEvidence | ScopeEvidence
)

_UNIT_RESULT: Final = Names(UnitResult, pb.UnitResult)
_SERVER_KIND: Final = Names(ServerKind, pb.ServerKind)
_CHANGE: Final = Names(Change, pb.Change)
_GAUGE: Final = Names(Gauge, pb.Gauge)
_SCOPE_BREACH: Final = Names(ScopeBreach, pb.ScopeBreach)


def message(evidence: ServiceEvidence) -> pb.Evidence:
    """Return `evidence` as a message."""
    match evidence:
        case UnitEvidence():
            return pb.Evidence(
                unit=pb.UnitEvidence(
                    result=_UNIT_RESULT.number(evidence.result),
                    exit_status=None if evidence.exit_status is None else fit_u32(evidence.exit_status),
                    starts=fit_u64(evidence.starts),
                    window_s=fit_float(evidence.window_s),
                    shortest_s=fit_measure(evidence.shortest_s),
                    longest_s=fit_measure(evidence.longest_s),
                )
            )
        case DriftEvidence():
            return pb.Evidence(
                drift=pb.DriftEvidence(
                    server=_SERVER_KIND.number(evidence.server),
                    changes=[
                        _CHANGE.number(each) for each in fit_list("DriftEvidence.changes", evidence.changes)
                    ],
                    print_before=fit_digits("DriftEvidence.print_before", evidence.print_before),
                    print_now=fit_digits("DriftEvidence.print_now", evidence.print_now),
                    context_before=fit_optional(evidence.context_before),
                    context_now=fit_optional(evidence.context_now),
                    ran_s=fit_float(evidence.ran_s),
                )
            )
        case LogEvidence():
            return pb.Evidence(
                log=pb.LogEvidence(
                    pattern=fit_word("LogEvidence.pattern", evidence.pattern),
                    count=fit_u64(evidence.count),
                    window_s=fit_float(evidence.window_s),
                    process_name=fit("LogEvidence.process_name", evidence.process_name),
                    captures=[
                        _capture_message(each) for each in fit_list("LogEvidence.captures", evidence.captures)
                    ],
                )
            )
        case MetricEvidence():
            return pb.Evidence(
                metric=pb.MetricEvidence(
                    server=_SERVER_KIND.number(evidence.server),
                    port=fit_port(evidence.port),
                    gauge=_GAUGE.number(evidence.gauge),
                    value=fit_float(evidence.value),
                    rise=fit_float(evidence.rise),
                    window_s=fit_float(evidence.window_s),
                )
            )
        case SessionsEvidence():
            return pb.Evidence(
                sessions=pb.SessionsEvidence(
                    port=fit_port(evidence.port),
                    sessions=fit_u64(evidence.sessions),
                    limit=fit_optional(evidence.limit),
                    refused=fit_u64(evidence.refused),
                    window_s=fit_float(evidence.window_s),
                )
            )
        case ScopeEvidence():
            return pb.Evidence(
                scope=pb.ScopeEvidence(
                    scope=fit("ScopeEvidence.scope", evidence.scope),
                    breach=_SCOPE_BREACH.number(evidence.breach),
                    process_name=fit("ScopeEvidence.process_name", evidence.process_name),
                    pid=fit_optional(evidence.pid),
                    executable=fit("ScopeEvidence.executable", evidence.executable),
                    address=fit("ScopeEvidence.address", evidence.address),
                    port=fit_port(evidence.port),
                    count=fit_u64(evidence.count),
                    denied=evidence.denied,
                    option=fit("ScopeEvidence.option", evidence.option),
                )
            )
        case _:
            assert_never(evidence)


def _unit(message: pb.UnitEvidence) -> UnitEvidence:
    has = message.HasField
    return UnitEvidence(
        result=_UNIT_RESULT.member(message.result),
        exit_status=message.exit_status if has("exit_status") else None,
        starts=bounded("UnitEvidence.starts", message.starts),
        window_s=finite("UnitEvidence.window_s", message.window_s),
        shortest_s=measure("UnitEvidence.shortest_s", message),
        longest_s=measure("UnitEvidence.longest_s", message),
    )


def _drift(message: pb.DriftEvidence) -> DriftEvidence:
    entries("DriftEvidence.changes", len(message.changes))
    return DriftEvidence(
        server=_SERVER_KIND.member(message.server),
        changes=tuple([_CHANGE.member(each) for each in message.changes]),
        print_before=digits("DriftEvidence.print_before", message.print_before),
        print_now=digits("DriftEvidence.print_now", message.print_now),
        context_before=number("DriftEvidence.context_before", message),
        context_now=number("DriftEvidence.context_now", message),
        ran_s=finite("DriftEvidence.ran_s", message.ran_s),
    )


def _capture_message(capture: Capture) -> pb.Capture:
    return pb.Capture(
        name=fit_word("Capture.name", capture.name),
        number=fit_measure(capture.number),
        word=fit_word("Capture.word", capture.word),
    )


def _capture(message: pb.Capture) -> Capture:
    return Capture(
        name=word("Capture.name", message.name),
        number=measure("Capture.number", message),
        word=word("Capture.word", message.word),
    )


def _log(message: pb.LogEvidence) -> LogEvidence:
    entries("LogEvidence.captures", len(message.captures))
    return LogEvidence(
        pattern=word("LogEvidence.pattern", message.pattern),
        count=bounded("LogEvidence.count", message.count),
        window_s=finite("LogEvidence.window_s", message.window_s),
        process_name=text("LogEvidence.process_name", message.process_name),
        captures=tuple([_capture(each) for each in message.captures]),
    )


def _metric(message: pb.MetricEvidence) -> MetricEvidence:
    return MetricEvidence(
        server=_SERVER_KIND.member(message.server),
        port=port("MetricEvidence.port", message.port),
        gauge=_GAUGE.member(message.gauge),
        value=finite("MetricEvidence.value", message.value),
        rise=finite("MetricEvidence.rise", message.rise),
        window_s=finite("MetricEvidence.window_s", message.window_s),
    )


def _sessions(message: pb.SessionsEvidence) -> SessionsEvidence:
    return SessionsEvidence(
        port=port("SessionsEvidence.port", message.port),
        sessions=bounded("SessionsEvidence.sessions", message.sessions),
        limit=number("SessionsEvidence.limit", message),
        refused=bounded("SessionsEvidence.refused", message.refused),
        window_s=finite("SessionsEvidence.window_s", message.window_s),
    )


def _scope(message: pb.ScopeEvidence) -> ScopeEvidence:
    return ScopeEvidence(
        scope=text("ScopeEvidence.scope", message.scope),
        breach=_SCOPE_BREACH.member(message.breach),
        process_name=text("ScopeEvidence.process_name", message.process_name),
        pid=optional_pid("ScopeEvidence.pid", message),
        executable=text("ScopeEvidence.executable", message.executable),
        address=text("ScopeEvidence.address", message.address),
        port=port("ScopeEvidence.port", message.port),
        count=bounded("ScopeEvidence.count", message.count),
        denied=message.denied,
        option=text("ScopeEvidence.option", message.option),
    )


READERS: Final[Mapping[str, Callable[[pb.Evidence], ServiceEvidence]]] = MappingProxyType(
    {
        "unit": lambda message: _unit(message.unit),
        "drift": lambda message: _drift(message.drift),
        "log": lambda message: _log(message.log),
        "metric": lambda message: _metric(message.metric),
        "sessions": lambda message: _sessions(message.sessions),
        "scope": lambda message: _scope(message.scope),
    }
)
"""Which of the evidence a message holds -> how it is read; raises WireError."""
