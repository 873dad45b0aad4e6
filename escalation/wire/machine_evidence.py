"""The evidence of memory, placement and GPUs, between model and message. `evidence.py` has the others."""

from __future__ import annotations

import math
from typing import Final, assert_never

from escalation.model import GpuEvidence, MemoryEvidence, PlacementEvidence, ServerKind, XidEvidence
from escalation.wire import escalation_pb2 as pb
from escalation.wire.fields import (
    Names,
    bounded,
    finite,
    fit,
    fit_float,
    fit_optional,
    fit_u32,
    fit_u64,
    optional_pid,
    text,
)

MachineEvidence = MemoryEvidence | PlacementEvidence | GpuEvidence | XidEvidence

_SERVER: Final = Names(ServerKind, pb.ServerKind)


def message(evidence: MachineEvidence) -> pb.Evidence:
    """Return `evidence` as a message."""
    match evidence:
        case MemoryEvidence():
            return pb.Evidence(
                memory=pb.MemoryEvidence(
                    total_bytes=fit_u64(evidence.total_bytes),
                    available_bytes=fit_u64(evidence.available_bytes),
                    free_bytes=fit_u64(evidence.free_bytes),
                    floor_bytes=fit_u64(evidence.floor_bytes),
                    falls_bytes_per_s=fit_float(evidence.falls_bytes_per_s),
                    empty_in_s=_measured(evidence.empty_in_s),
                    stalled_percent=_measured(evidence.stalled_percent),
                    stalls=fit_u64(evidence.stalls),
                )
            )
        case PlacementEvidence():
            return pb.Evidence(
                placement=pb.PlacementEvidence(
                    server=_SERVER.number(evidence.server),
                    process_name=fit("PlacementEvidence.process_name", evidence.process_name),
                    pid=fit_optional(evidence.pid),
                    cores=fit_float(evidence.cores),
                    window_s=fit_float(evidence.window_s),
                    requests=fit_u64(evidence.requests),
                    listed=evidence.listed,
                    failed_opens=fit_u64(evidence.failed_opens),
                    measured=_measured(evidence.measured),
                    baseline=_measured(evidence.baseline),
                )
            )
        case GpuEvidence():
            return pb.Evidence(
                gpu=pb.GpuEvidence(
                    gpu=fit("GpuEvidence.gpu", evidence.gpu),
                    name=fit("GpuEvidence.name", evidence.name),
                    sm_mhz=fit_optional(evidence.sm_mhz),
                    usual_mhz=fit_optional(evidence.usual_mhz),
                    busy_percent=fit_optional(evidence.busy_percent),
                    watts=_measured(evidence.watts),
                    event_reasons=fit_optional(evidence.event_reasons),
                    nvml_code=fit_u32(evidence.nvml_code),
                    recovery_action=fit_optional(evidence.recovery_action),
                )
            )
        case XidEvidence():
            return pb.Evidence(
                xid=pb.XidEvidence(
                    gpu=fit("XidEvidence.gpu", evidence.gpu),
                    number=fit_u32(evidence.number),
                    count=fit_u64(evidence.count),
                    sources=fit_u32(evidence.sources),
                    process_name=fit("XidEvidence.process_name", evidence.process_name),
                    pid=fit_optional(evidence.pid),
                )
            )
        case _:
            assert_never(evidence)


def memory(message: pb.MemoryEvidence) -> MemoryEvidence:
    """Return the evidence of a host's memory; raise WireError."""
    has = message.HasField
    return MemoryEvidence(
        total_bytes=bounded("MemoryEvidence.total_bytes", message.total_bytes),
        available_bytes=bounded("MemoryEvidence.available_bytes", message.available_bytes),
        free_bytes=bounded("MemoryEvidence.free_bytes", message.free_bytes),
        floor_bytes=bounded("MemoryEvidence.floor_bytes", message.floor_bytes),
        falls_bytes_per_s=finite("MemoryEvidence.falls_bytes_per_s", message.falls_bytes_per_s),
        empty_in_s=finite("MemoryEvidence.empty_in_s", message.empty_in_s) if has("empty_in_s") else None,
        stalled_percent=finite("MemoryEvidence.stalled_percent", message.stalled_percent)
        if has("stalled_percent")
        else None,
        stalls=bounded("MemoryEvidence.stalls", message.stalls),
    )


def placement(message: pb.PlacementEvidence) -> PlacementEvidence:
    """Return the evidence of where a server works; raise WireError."""
    has = message.HasField
    return PlacementEvidence(
        server=_SERVER.member(message.server),
        process_name=text("PlacementEvidence.process_name", message.process_name),
        pid=optional_pid("PlacementEvidence.pid", message),
        cores=finite("PlacementEvidence.cores", message.cores),
        window_s=finite("PlacementEvidence.window_s", message.window_s),
        requests=bounded("PlacementEvidence.requests", message.requests),
        listed=message.listed if has("listed") else None,
        failed_opens=bounded("PlacementEvidence.failed_opens", message.failed_opens),
        measured=finite("PlacementEvidence.measured", message.measured) if has("measured") else None,
        baseline=finite("PlacementEvidence.baseline", message.baseline) if has("baseline") else None,
    )


def gpu(message: pb.GpuEvidence) -> GpuEvidence:
    """Return the evidence of how a GPU is; raise WireError."""

    def number(name: str) -> int | None:
        return bounded(f"GpuEvidence.{name}", getattr(message, name)) if message.HasField(name) else None

    return GpuEvidence(
        gpu=text("GpuEvidence.gpu", message.gpu),
        name=text("GpuEvidence.name", message.name),
        sm_mhz=number("sm_mhz"),
        usual_mhz=number("usual_mhz"),
        busy_percent=number("busy_percent"),
        watts=finite("GpuEvidence.watts", message.watts) if message.HasField("watts") else None,
        event_reasons=number("event_reasons"),
        nvml_code=message.nvml_code,
        recovery_action=number("recovery_action"),
    )


def xid(message: pb.XidEvidence) -> XidEvidence:
    """Return the evidence of an error that a GPU reported; raise WireError."""
    return XidEvidence(
        gpu=text("XidEvidence.gpu", message.gpu),
        number=message.number,
        count=bounded("XidEvidence.count", message.count),
        sources=message.sources,
        process_name=text("XidEvidence.process_name", message.process_name),
        pid=optional_pid("XidEvidence.pid", message),
    )


def _measured(value: float | None) -> float | None:
    """Return `value`, or None when it is not finite: what is no number was not measured."""
    return value if value is not None and math.isfinite(value) else None
