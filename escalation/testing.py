"""A builder of queue entries for tests: a believable incident per fault class, with the playbook's advice.

Longer than other modules because it has one incident for every fault class, each written out to be read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from escalation.host_examples import HOST_EXAMPLES, Example
from escalation.model import (
    AgentId,
    BlindEvidence,
    BlindReason,
    CaseId,
    Device,
    DeviceOpenEvidence,
    Evidence,
    FaultClass,
    FlightEvidence,
    GpuEvidence,
    Incarnation,
    Incident,
    IncidentId,
    ListenerEvidence,
    MemoryEvidence,
    OomEvidence,
    OomScope,
    PlacementEvidence,
    PromptSizeEvidence,
    Reach,
    Reason,
    ReasonCode,
    Recommendation,
    RecommendationId,
    RouteEvidence,
    RouteId,
    RouteKind,
    ServerKind,
    Severity,
    SignalEvidence,
    State,
    Subject,
    SubjectKind,
    UnknownEvidence,
    XidEvidence,
)
from escalation.server.desk import Entry
from escalation.server.playbook.registry import advise

A_MOMENT_NS: Final = 1_795_000_000_000_000_000
"""2026-11-18T11:06:40Z."""

_MINUTE_NS: Final = 60_000_000_000
_HOST: Final = AgentId("spark-a")
_CONTAINER: Final = Subject(SubjectKind.CONTAINER, "4f" * 32)
_ENGINE: Final = RouteId(8000, RouteKind.CHAT_COMPLETIONS, "qwen3-32b", ServerKind.VLLM)
_ROUTER: Final = RouteId(4000, RouteKind.CHAT_COMPLETIONS, "qwen3-32b", ServerKind.LITELLM)
_OLLAMA: Final = RouteId(11434, RouteKind.OLLAMA_CHAT, "gemma3:12b", ServerKind.OLLAMA)
_LITELLM_UNIT: Final = Subject(SubjectKind.UNIT, "litellm.service")
_OLLAMA_UNIT: Final = Subject(SubjectKind.UNIT, "ollama.service")
_GPU: Final = Subject(SubjectKind.GPU, "0000000F:01:00.0")
_WINDOW_S: Final = 600.0


def _route(
    id_: RouteId,
    affected: int,
    *,
    completion_tokens: int | None = None,
    max_tokens: int | None = None,
    measured: float | None = None,
    baseline: float | None = None,
) -> RouteEvidence:
    return RouteEvidence(
        id=id_,
        window_s=_WINDOW_S,
        exchanges=40,
        affected=affected,
        affected_streamed=affected * 3 // 4,
        unobserved=2,
        completion_tokens=completion_tokens,
        max_tokens=max_tokens,
        measured=measured,
        baseline=baseline,
    )


def _on(id_: RouteId) -> Subject:
    return Subject(SubjectKind.ROUTE, f"{id_.port}/{id_.route} {id_.model}")


_SILENT: Final = FlightEvidence(
    id=_ENGINE,
    requests=3,
    waiting=2,
    oldest_s=412.0,
    silent_s=305.0,
    patience_s=180.0,
    largest_request_bytes=311_296,
)
_BY_SIZE: Final = PromptSizeEvidence(
    id=_ENGINE,
    window_s=1800.0,
    split_bytes=131_072,
    small=55,
    small_failed=0,
    large=9,
    large_failed=8,
)

_EXAMPLES: Final[Mapping[FaultClass, Example]] = {
    **HOST_EXAMPLES,
    FaultClass.GPU_ACCESS_REVOKED: Example(
        severity=Severity.CRITICAL,
        subject=_CONTAINER,
        reasons=(
            Reason(ReasonCode.OPEN_REFUSED_AFTER_SUCCESS, count=7, threshold=1, window_s=60),
            Reason(ReasonCode.SECOND_LAYER_UNKNOWN),
        ),
        evidence=(DeviceOpenEvidence(Device.CONTROL, 255, 1, 7, 212, "VLLM::EngineCore", 4711),),
    ),
    FaultClass.GPU_NEVER_GRANTED: Example(
        severity=Severity.NOTE,
        subject=_CONTAINER,
        reasons=(Reason(ReasonCode.DEVICE_NODE_MISSING, count=3),),
        evidence=(DeviceOpenEvidence(Device.GPU, 0, 2, 3, 0, "python3", 902),),
    ),
    FaultClass.GPU_UVM_LOST: Example(
        severity=Severity.HIGH,
        subject=Subject(SubjectKind.HOST, "spark-a"),
        reasons=(Reason(ReasonCode.DRIVER_BEHIND_NODE_MISSING, count=5),),
        evidence=(DeviceOpenEvidence(Device.UVM, 0, 6, 5, 12, "ollama", 311),),
    ),
    FaultClass.MEMORY_CGROUP_OOM_KILL: Example(
        severity=Severity.HIGH,
        subject=Subject(SubjectKind.UNIT, "whisper.service"),
        reasons=(
            Reason(ReasonCode.KERNEL_CHOSE_VICTIM, count=2),
            Reason(ReasonCode.CGROUP_COUNTED_KILL, count=2),
        ),
        evidence=(OomEvidence(OomScope.CGROUP, "whisper", 88, 8_246_337_208, 8_589_934_592, 2),),
    ),
    FaultClass.PROCESS_KILLED_BY_SIGNAL: Example(
        severity=Severity.HIGH,
        subject=_CONTAINER,
        reasons=(Reason(ReasonCode.DIED_BY_FAULT_SIGNAL, count=1),),
        evidence=(SignalEvidence(11, 1, "VLLM::Worker_TP", 512),),
    ),
    FaultClass.EXPOSURE_OFF_MESH_LISTENER: Example(
        severity=Severity.CRITICAL,
        subject=Subject(SubjectKind.LISTENER, "0.0.0.0:5432/tcp"),
        target=Subject(SubjectKind.UNIT, "postgresql.service"),
        reasons=(
            Reason(ReasonCode.LISTENS_ON_ALL_INTERFACES),
            Reason(ReasonCode.HOST_HAS_PUBLIC_ADDRESS),
            Reason(ReasonCode.SOCKET_TABLE_AGREES),
        ),
        evidence=(
            ListenerEvidence("0.0.0.0", 5432, Reach.ALL_INTERFACES, "postgres", confirmed=True),  # noqa: S104
        ),
    ),
    FaultClass.MONITOR_BLIND: Example(
        severity=Severity.MEDIUM,
        subject=Subject(SubjectKind.SENSOR, "kernel.device_open"),
        reasons=(Reason(ReasonCode.SENSOR_BLIND, window_s=420),),
        evidence=(BlindEvidence("kernel.device_open", BlindReason.NOT_HANDED_OVER, 420.0),),
    ),
    FaultClass.ROUTE_EMPTY_COMPLETION: Example(
        severity=Severity.HIGH,
        subject=_on(_ROUTER),
        target=_LITELLM_UNIT,
        reasons=(
            Reason(ReasonCode.ANSWERS_EMPTY, count=12, threshold=0.2, window_s=_WINDOW_S),
            Reason(ReasonCode.USAGE_AGREES, count=3),
            Reason(ReasonCode.BOTH_STREAMED_AND_WHOLE),
        ),
        evidence=(_route(_ROUTER, 12, completion_tokens=3),),
    ),
    FaultClass.ROUTE_REASONING_BUDGET_EXHAUSTED: Example(
        severity=Severity.MEDIUM,
        subject=_on(_ENGINE),
        target=_CONTAINER,
        reasons=(Reason(ReasonCode.BUDGET_SPENT_ON_REASONING, count=9, threshold=0.2, window_s=_WINDOW_S),),
        evidence=(_route(_ENGINE, 9, completion_tokens=1024, max_tokens=1024),),
    ),
    FaultClass.ROUTE_ANSWER_MISROUTED: Example(
        severity=Severity.HIGH,
        subject=_on(_ENGINE),
        target=_CONTAINER,
        reasons=(Reason(ReasonCode.ANSWER_IN_REASONING_FIELD, count=11, threshold=0.2, window_s=_WINDOW_S),),
        evidence=(_route(_ENGINE, 11, completion_tokens=318),),
    ),
    FaultClass.ROUTE_BROKEN_STREAM: Example(
        severity=Severity.HIGH,
        subject=_on(_ROUTER),
        target=_LITELLM_UNIT,
        reasons=(
            Reason(ReasonCode.STREAMS_WITHOUT_END, count=7, threshold=0.1, window_s=_WINDOW_S),
            Reason(ReasonCode.ERRORS_IN_ANSWERS, count=2),
        ),
        evidence=(_route(_ROUTER, 9),),
    ),
    FaultClass.ROUTE_DEGENERATE_OUTPUT: Example(
        severity=Severity.CRITICAL,
        subject=_on(_ENGINE),
        target=_CONTAINER,
        reasons=(
            Reason(ReasonCode.TEXT_IS_ONE_CHARACTER, count=8, threshold=0.2, window_s=_WINDOW_S),
            Reason(ReasonCode.BOTH_STREAMED_AND_WHOLE),
        ),
        evidence=(_route(_ENGINE, 8, completion_tokens=2048, max_tokens=2048),),
    ),
    FaultClass.ROUTE_CONTEXT_OVERFLOW: Example(
        severity=Severity.MEDIUM,
        subject=_on(_OLLAMA),
        target=_OLLAMA_UNIT,
        reasons=(Reason(ReasonCode.PROMPTS_CUT_SILENTLY, count=6, threshold=3, window_s=_WINDOW_S),),
        evidence=(_route(_OLLAMA, 6),),
    ),
    FaultClass.ROUTE_ENGINE_STALLED: Example(
        severity=Severity.CRITICAL,
        subject=_on(_ENGINE),
        target=_CONTAINER,
        reasons=(Reason(ReasonCode.NO_BYTES_WHILE_IN_FLIGHT, count=3, threshold=180, window_s=305),),
        evidence=(_SILENT,),
    ),
    FaultClass.ROUTE_ROUTER_COOLDOWN: Example(
        severity=Severity.MEDIUM,
        subject=_on(_ROUTER),
        target=_LITELLM_UNIT,
        reasons=(Reason(ReasonCode.DEPLOYMENTS_COOLING, count=14, threshold=3, window_s=_WINDOW_S),),
        evidence=(_route(_ROUTER, 14),),
    ),
    FaultClass.ROUTE_SATURATED: Example(
        severity=Severity.MEDIUM,
        subject=_on(_OLLAMA),
        target=_OLLAMA_UNIT,
        reasons=(
            Reason(ReasonCode.REFUSED_AS_BUSY, count=10, threshold=3, window_s=_WINDOW_S),
            Reason(ReasonCode.REQUESTS_QUEUE, count=21),
        ),
        evidence=(_route(_OLLAMA, 10),),
    ),
    FaultClass.ROUTE_FAILS_REAL_TRAFFIC: Example(
        severity=Severity.HIGH,
        subject=_on(_ENGINE),
        target=_CONTAINER,
        reasons=(
            Reason(ReasonCode.LARGE_PROMPTS_FAIL, count=8, threshold=0.5, window_s=1800),
            Reason(ReasonCode.SMALL_PROMPTS_SUCCEED, count=55, window_s=1800),
        ),
        evidence=(_BY_SIZE,),
    ),
    FaultClass.ROUTE_ERRORS_RISING: Example(
        severity=Severity.MEDIUM,
        subject=_on(_ENGINE),
        target=_CONTAINER,
        reasons=(Reason(ReasonCode.ERRORS_ABOVE_BASELINE, count=10, window_s=_WINDOW_S),),
        evidence=(_route(_ENGINE, 10, measured=0.25, baseline=0.004),),
    ),
    FaultClass.ROUTE_LATENCY_RISING: Example(
        severity=Severity.MEDIUM,
        subject=_on(_ENGINE),
        target=_CONTAINER,
        reasons=(Reason(ReasonCode.FIRST_TOKEN_ABOVE_BASELINE, count=31, window_s=_WINDOW_S),),
        evidence=(_route(_ENGINE, 31, measured=6.4, baseline=0.82),),
    ),
    FaultClass.DISTRIBUTED_RANK_STALL: Example(
        severity=Severity.CRITICAL,
        subject=Subject(SubjectKind.MODEL, _ENGINE.model),
        target=_CONTAINER,
        reasons=(Reason(ReasonCode.TWO_HOSTS_AGREE, window_s=600),),
        evidence=(_SILENT, _BY_SIZE),
    ),
    FaultClass.MEMORY_UNIFIED_EXHAUSTION: Example(
        severity=Severity.CRITICAL,
        subject=Subject(SubjectKind.HOST, "spark-a"),
        target=_CONTAINER,
        reasons=(
            Reason(ReasonCode.MEMORY_BELOW_FLOOR, threshold=8, window_s=14),
            Reason(ReasonCode.TASKS_STALL_FOR_MEMORY, threshold=5),
        ),
        evidence=(
            MemoryEvidence(
                total_bytes=130_676_682_752,
                available_bytes=3_435_973_836,
                free_bytes=1_181_116_006,
                floor_bytes=8_589_934_592,
                falls_bytes_per_s=57_000_000.0,
                empty_in_s=60.3,
                stalled_percent=11.4,
                stalls=912,
            ),
        ),
    ),
    FaultClass.MEMORY_PAGE_CACHE_REFUSAL: Example(
        severity=Severity.MEDIUM,
        subject=_CONTAINER,
        reasons=(
            Reason(ReasonCode.SERVER_STARTS_REPEATEDLY, count=4, threshold=3, window_s=900),
            Reason(ReasonCode.FREE_MEMORY_IS_CACHE),
        ),
        evidence=(
            MemoryEvidence(
                total_bytes=130_676_682_752,
                available_bytes=55_834_574_848,
                free_bytes=2_974_262_067,
                floor_bytes=8_589_934_592,
                falls_bytes_per_s=0.0,
                empty_in_s=None,
                stalled_percent=0.0,
                stalls=0,
            ),
        ),
    ),
    FaultClass.GPU_CPU_FALLBACK: Example(
        severity=Severity.HIGH,
        subject=_OLLAMA_UNIT,
        reasons=(
            Reason(ReasonCode.CPU_BURNS_DURING_REQUESTS, count=6, threshold=4, window_s=60),
            Reason(ReasonCode.NOT_LISTED_ON_GPU),
            Reason(ReasonCode.PACE_BELOW_BASELINE),
        ),
        evidence=(
            PlacementEvidence(
                server=ServerKind.OLLAMA,
                process_name="ollama",
                pid=311,
                cores=15.4,
                window_s=60.0,
                requests=6,
                listed=False,
                failed_opens=0,
                measured=2.1,
                baseline=44.0,
            ),
        ),
    ),
    FaultClass.TRANSCRIPTION_CPU_FALLBACK: Example(
        severity=Severity.MEDIUM,
        subject=_CONTAINER,
        reasons=(
            Reason(ReasonCode.CPU_BURNS_DURING_REQUESTS, count=2, threshold=2, window_s=60),
            Reason(ReasonCode.NOT_LISTED_ON_GPU),
        ),
        evidence=(
            PlacementEvidence(
                server=ServerKind.WHISPER,
                process_name="uvicorn",
                pid=902,
                cores=7.2,
                window_s=60.0,
                requests=2,
                listed=False,
                failed_opens=0,
                measured=None,
                baseline=None,
            ),
        ),
    ),
    FaultClass.GPU_CLOCKS_CAPPED: Example(
        severity=Severity.HIGH,
        subject=_GPU,
        reasons=(
            Reason(ReasonCode.CLOCKS_LOW_UNDER_LOAD, threshold=0.5, window_s=300),
            Reason(ReasonCode.POWER_LOW_UNDER_LOAD, threshold=0.6),
            Reason(ReasonCode.NO_THROTTLE_REASON),
        ),
        evidence=(
            GpuEvidence(
                gpu=_GPU.name,
                name="NVIDIA GB10",
                sm_mhz=507,
                usual_mhz=2405,
                busy_percent=96,
                watts=14.6,
                event_reasons=0,
                nvml_code=0,
                recovery_action=None,
            ),
        ),
    ),
    FaultClass.GPU_APPLICATION_XID: Example(
        severity=Severity.MEDIUM,
        subject=_GPU,
        target=_CONTAINER,
        reasons=(Reason(ReasonCode.XID_REPORTED, count=1),),
        evidence=(
            XidEvidence(
                gpu=_GPU.name, number=31, count=1, sources=2, process_name="VLLM::Worker_TP", pid=512
            ),
        ),
    ),
    FaultClass.GPU_DEVICE_FAULT: Example(
        severity=Severity.CRITICAL,
        subject=_GPU,
        reasons=(
            Reason(ReasonCode.GPU_IS_LOST, count=1),
            Reason(ReasonCode.XID_REPORTED, count=1),
            Reason(ReasonCode.RECOVERY_IS_ADVISED),
        ),
        evidence=(
            GpuEvidence(
                gpu=_GPU.name,
                name="NVIDIA GeForce RTX 5090 Laptop GPU",
                sm_mhz=None,
                usual_mhz=None,
                busy_percent=None,
                watts=None,
                event_reasons=None,
                nvml_code=15,
                recovery_action=2,
            ),
            XidEvidence(gpu=_GPU.name, number=79, count=1, sources=2, process_name="", pid=None),
        ),
    ),
    FaultClass.GPU_DRIVER_MISMATCH: Example(
        severity=Severity.HIGH,
        subject=Subject(SubjectKind.HOST, "spark-a"),
        reasons=(Reason(ReasonCode.LIBRARY_DIFFERS_FROM_MODULE, count=3),),
        evidence=(
            GpuEvidence(
                gpu="",
                name="",
                sm_mhz=None,
                usual_mhz=None,
                busy_percent=None,
                watts=None,
                event_reasons=None,
                nvml_code=18,
                recovery_action=None,
            ),
        ),
    ),
    FaultClass.UNKNOWN: Example(
        severity=Severity.UNKNOWN,
        subject=Subject(SubjectKind.UNKNOWN, "something-new"),
        reasons=(Reason(ReasonCode.UNKNOWN, count=3),),
        evidence=(UnknownEvidence(48),),
    ),
}


def an_entry(
    fault_class: FaultClass = FaultClass.GPU_ACCESS_REVOKED,
    *,
    number: int = 1,
    state: State = State.PROPOSED,
    host: AgentId = _HOST,
    subject: Subject | None = None,
    command: tuple[str, ...] | None = None,
    summary: str | None = None,
    evidence: tuple[Evidence, ...] | None = None,
) -> Entry:
    """Return a believable entry of `fault_class` with the playbook's advice; what is given replaces it."""
    example = _EXAMPLES[fault_class]
    incident = Incident(
        id=IncidentId(f"inc-{number}"),
        agent_id=host,
        fault_class=fault_class,
        fault_number=999 if fault_class is FaultClass.UNKNOWN else None,
        subject=subject or example.subject,
        target=example.target,
        severity=example.severity,
        incarnation=Incarnation(
            "5d1f0f0e-0000-4000-8000-000000000001",
            pid=example.pid,
            start_ticks=881_204 if example.pid else None,
        ),
        case_id=CaseId(f"case-{number}"),
        open=True,
        first_seen_ns=A_MOMENT_NS,
        last_seen_ns=A_MOMENT_NS + 3 * _MINUTE_NS,
        cleared_ns=None,
        count=7,
        reasons=example.reasons,
        evidence=example.evidence if evidence is None else evidence,
    )
    advice = advise(incident)
    if command is not None:
        advice = dataclasses.replace(advice, action=dataclasses.replace(advice.action, command=command))
    if summary is not None:
        advice = dataclasses.replace(advice, summary=summary)
    recommendation = Recommendation(
        id=RecommendationId(f"rec-{number}"),
        incident_id=incident.id,
        advice=advice,
        digest=f"{number:064x}",
        state=state,
        created_ns=A_MOMENT_NS,
        approve_by_ns=A_MOMENT_NS + 60 * _MINUTE_NS,
    )
    return Entry(recommendation, incident, cured=3, tried=4, explains=_explained_by(incident))


def _explained_by(incident: Incident) -> tuple[Incident, ...]:
    """Return the stalls on two hosts that are behind a stall over both."""
    if incident.fault_class is not FaultClass.DISTRIBUTED_RANK_STALL:
        return ()
    kinds = {
        AgentId("spark-a"): FaultClass.ROUTE_ENGINE_STALLED,
        AgentId("spark-b"): FaultClass.ROUTE_FAILS_REAL_TRAFFIC,
    }
    return tuple(
        dataclasses.replace(
            incident,
            id=IncidentId(f"{incident.id}-{host}"),
            agent_id=host,
            fault_class=kind,
            subject=_on(_ENGINE),
            explained_by=incident.id,
        )
        for host, kind in kinds.items()
    )
