"""The evidence of what a host or a server waits for, between model and message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, assert_never

from escalation.model import (
    DescriptorCall,
    DescriptorEvidence,
    PressureEvidence,
    ProcessEvidence,
    ProcessState,
    Resource,
    RunDelayEvidence,
    ThrottleEvidence,
)
from escalation.wire import escalation_pb2 as pb
from escalation.wire.fields import (
    Names,
    bounded,
    finite,
    fit,
    fit_float,
    fit_measure,
    fit_optional,
    fit_port,
    fit_u64,
    measure,
    number,
    optional_pid,
    port,
    text,
)

WaitEvidence = PressureEvidence | ThrottleEvidence | RunDelayEvidence | ProcessEvidence | DescriptorEvidence

_RESOURCE: Final = Names(Resource, pb.Resource)
_PROCESS_STATE: Final = Names(ProcessState, pb.ProcessState)
_DESCRIPTOR_CALL: Final = Names(DescriptorCall, pb.DescriptorCall)


def message(evidence: WaitEvidence) -> pb.Evidence:
    """Return `evidence` as a message."""
    match evidence:
        case PressureEvidence():
            return pb.Evidence(
                pressure=pb.PressureEvidence(
                    resource=_RESOURCE.number(evidence.resource),
                    window_s=fit_float(evidence.window_s),
                    some_percent=fit_measure(evidence.some_percent),
                    full_percent=fit_measure(evidence.full_percent),
                    major_faults=fit_u64(evidence.major_faults),
                    swapped_pages=fit_u64(evidence.swapped_pages),
                    direct_reclaims=fit_u64(evidence.direct_reclaims),
                )
            )
        case ThrottleEvidence():
            return pb.Evidence(
                throttle=pb.ThrottleEvidence(
                    window_s=fit_float(evidence.window_s),
                    periods=fit_u64(evidence.periods),
                    throttled_periods=fit_u64(evidence.throttled_periods),
                    throttled_s=fit_float(evidence.throttled_s),
                    quota_cores=fit_measure(evidence.quota_cores),
                )
            )
        case RunDelayEvidence():
            return pb.Evidence(
                run_delay=pb.RunDelayEvidence(
                    window_s=fit_float(evidence.window_s),
                    waits=fit_u64(evidence.waits),
                    waited_s=fit_float(evidence.waited_s),
                    p99_s=fit_measure(evidence.p99_s),
                    baseline_s=fit_measure(evidence.baseline_s),
                    neighbour=fit("RunDelayEvidence.neighbour", evidence.neighbour),
                    neighbour_cores=fit_float(evidence.neighbour_cores),
                )
            )
        case ProcessEvidence():
            return pb.Evidence(
                process=pb.ProcessEvidence(
                    process_name=fit("ProcessEvidence.process_name", evidence.process_name),
                    pid=fit_optional(evidence.pid),
                    state=_PROCESS_STATE.number(evidence.state),
                    lasted_s=fit_float(evidence.lasted_s),
                    used_cpu_s=fit_measure(evidence.used_cpu_s),
                    port=fit_port(evidence.port),
                    backlog=fit_u64(evidence.backlog),
                    backlog_limit=fit_u64(evidence.backlog_limit),
                )
            )
        case DescriptorEvidence():
            return pb.Evidence(
                descriptor=pb.DescriptorEvidence(
                    process_name=fit("DescriptorEvidence.process_name", evidence.process_name),
                    pid=fit_optional(evidence.pid),
                    call=_DESCRIPTOR_CALL.number(evidence.call),
                    failures=fit_u64(evidence.failures),
                    limit=fit_optional(evidence.limit),
                    host_wide=evidence.host_wide,
                )
            )
        case _:
            assert_never(evidence)


def _pressure(message: pb.PressureEvidence) -> PressureEvidence:
    return PressureEvidence(
        resource=_RESOURCE.member(message.resource),
        window_s=finite("PressureEvidence.window_s", message.window_s),
        some_percent=measure("PressureEvidence.some_percent", message),
        full_percent=measure("PressureEvidence.full_percent", message),
        major_faults=bounded("PressureEvidence.major_faults", message.major_faults),
        swapped_pages=bounded("PressureEvidence.swapped_pages", message.swapped_pages),
        direct_reclaims=bounded("PressureEvidence.direct_reclaims", message.direct_reclaims),
    )


def _throttle(message: pb.ThrottleEvidence) -> ThrottleEvidence:
    return ThrottleEvidence(
        window_s=finite("ThrottleEvidence.window_s", message.window_s),
        periods=bounded("ThrottleEvidence.periods", message.periods),
        throttled_periods=bounded("ThrottleEvidence.throttled_periods", message.throttled_periods),
        throttled_s=finite("ThrottleEvidence.throttled_s", message.throttled_s),
        quota_cores=measure("ThrottleEvidence.quota_cores", message),
    )


def _run_delay(message: pb.RunDelayEvidence) -> RunDelayEvidence:
    return RunDelayEvidence(
        window_s=finite("RunDelayEvidence.window_s", message.window_s),
        waits=bounded("RunDelayEvidence.waits", message.waits),
        waited_s=finite("RunDelayEvidence.waited_s", message.waited_s),
        p99_s=measure("RunDelayEvidence.p99_s", message),
        baseline_s=measure("RunDelayEvidence.baseline_s", message),
        neighbour=text("RunDelayEvidence.neighbour", message.neighbour),
        neighbour_cores=finite("RunDelayEvidence.neighbour_cores", message.neighbour_cores),
    )


def _process(message: pb.ProcessEvidence) -> ProcessEvidence:
    return ProcessEvidence(
        process_name=text("ProcessEvidence.process_name", message.process_name),
        pid=optional_pid("ProcessEvidence.pid", message),
        state=_PROCESS_STATE.member(message.state),
        lasted_s=finite("ProcessEvidence.lasted_s", message.lasted_s),
        used_cpu_s=measure("ProcessEvidence.used_cpu_s", message),
        port=port("ProcessEvidence.port", message.port),
        backlog=bounded("ProcessEvidence.backlog", message.backlog),
        backlog_limit=bounded("ProcessEvidence.backlog_limit", message.backlog_limit),
    )


def _descriptor(message: pb.DescriptorEvidence) -> DescriptorEvidence:
    return DescriptorEvidence(
        process_name=text("DescriptorEvidence.process_name", message.process_name),
        pid=optional_pid("DescriptorEvidence.pid", message),
        call=_DESCRIPTOR_CALL.member(message.call),
        failures=bounded("DescriptorEvidence.failures", message.failures),
        limit=number("DescriptorEvidence.limit", message),
        host_wide=message.host_wide,
    )


READERS: Final[Mapping[str, Callable[[pb.Evidence], WaitEvidence]]] = MappingProxyType(
    {
        "pressure": lambda message: _pressure(message.pressure),
        "throttle": lambda message: _throttle(message.throttle),
        "run_delay": lambda message: _run_delay(message.run_delay),
        "process": lambda message: _process(message.process),
        "descriptor": lambda message: _descriptor(message.descriptor),
    }
)
"""Which of the evidence a message holds -> how it is read; raises WireError."""
