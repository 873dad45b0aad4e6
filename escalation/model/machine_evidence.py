"""Evidence of memory, placement and GPUs."""

from __future__ import annotations

from dataclasses import dataclass

from escalation.model.route_evidence import ServerKind


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEvidence:
    """The host's memory: what can be had, against the floor, and how fast it goes.

    `falls_bytes_per_s` is 0 while it does not fall, and `empty_in_s` None then. `stalled_percent` is the
    share of time in which no task could go on for want of memory; None on a kernel that does not tell.
    """

    total_bytes: int
    available_bytes: int
    free_bytes: int
    floor_bytes: int
    falls_bytes_per_s: float
    empty_in_s: float | None
    stalled_percent: float | None
    stalls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementEvidence:
    """Where a model server works: the cores that it kept busy, and whether the driver lists it on a GPU.

    `listed` is None where that could not be asked. `measured` and `baseline` are tokens per second (for
    transcription: seconds of an answer), None where unknown.
    """

    server: ServerKind
    process_name: str
    pid: int | None
    cores: float
    window_s: float
    requests: int
    listed: bool | None
    failed_opens: int
    measured: float | None
    baseline: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuEvidence:
    """How one GPU is, as far as it could be asked. `gpu` is its PCI address.

    `nvml_code` is what the driver's library answered (0: well), `recovery_action` what it advises (0:
    nothing), `event_reasons` its bits for clocks below the highest.
    """

    gpu: str
    name: str
    sm_mhz: int | None
    usual_mhz: int | None
    busy_percent: int | None
    watts: float | None
    event_reasons: int | None
    nvml_code: int
    recovery_action: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class XidEvidence:
    """One kind of error that a GPU reported, and how many sources told of it."""

    gpu: str
    number: int
    count: int
    sources: int
    process_name: str
    pid: int | None
