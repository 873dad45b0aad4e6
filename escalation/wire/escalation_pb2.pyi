from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FaultClass(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FAULT_CLASS_UNSPECIFIED: _ClassVar[FaultClass]
    FAULT_CLASS_GPU_ACCESS_REVOKED: _ClassVar[FaultClass]
    FAULT_CLASS_GPU_NEVER_GRANTED: _ClassVar[FaultClass]
    FAULT_CLASS_GPU_UVM_LOST: _ClassVar[FaultClass]
    FAULT_CLASS_MEMORY_CGROUP_OOM_KILL: _ClassVar[FaultClass]
    FAULT_CLASS_PROCESS_KILLED_BY_SIGNAL: _ClassVar[FaultClass]
    FAULT_CLASS_EXPOSURE_OFF_MESH_LISTENER: _ClassVar[FaultClass]
    FAULT_CLASS_MONITOR_BLIND: _ClassVar[FaultClass]
    FAULT_CLASS_ROUTE_EMPTY_COMPLETION: _ClassVar[FaultClass]
    FAULT_CLASS_ROUTE_REASONING_BUDGET_EXHAUSTED: _ClassVar[FaultClass]
    FAULT_CLASS_ROUTE_ANSWER_MISROUTED: _ClassVar[FaultClass]
    FAULT_CLASS_ROUTE_BROKEN_STREAM: _ClassVar[FaultClass]
    FAULT_CLASS_ROUTE_DEGENERATE_OUTPUT: _ClassVar[FaultClass]
    FAULT_CLASS_ROUTE_CONTEXT_OVERFLOW: _ClassVar[FaultClass]
    FAULT_CLASS_ROUTE_ENGINE_STALLED: _ClassVar[FaultClass]
    FAULT_CLASS_ROUTE_ROUTER_COOLDOWN: _ClassVar[FaultClass]
    FAULT_CLASS_ROUTE_SATURATED: _ClassVar[FaultClass]
    FAULT_CLASS_ROUTE_FAILS_REAL_TRAFFIC: _ClassVar[FaultClass]
    FAULT_CLASS_ROUTE_ERRORS_RISING: _ClassVar[FaultClass]
    FAULT_CLASS_ROUTE_LATENCY_RISING: _ClassVar[FaultClass]
    FAULT_CLASS_DISTRIBUTED_RANK_STALL: _ClassVar[FaultClass]
    FAULT_CLASS_MEMORY_UNIFIED_EXHAUSTION: _ClassVar[FaultClass]
    FAULT_CLASS_MEMORY_PAGE_CACHE_REFUSAL: _ClassVar[FaultClass]
    FAULT_CLASS_GPU_CPU_FALLBACK: _ClassVar[FaultClass]
    FAULT_CLASS_TRANSCRIPTION_CPU_FALLBACK: _ClassVar[FaultClass]
    FAULT_CLASS_GPU_CLOCKS_CAPPED: _ClassVar[FaultClass]
    FAULT_CLASS_GPU_APPLICATION_XID: _ClassVar[FaultClass]
    FAULT_CLASS_GPU_DEVICE_FAULT: _ClassVar[FaultClass]
    FAULT_CLASS_GPU_DRIVER_MISMATCH: _ClassVar[FaultClass]

class Severity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEVERITY_UNSPECIFIED: _ClassVar[Severity]
    SEVERITY_NOTE: _ClassVar[Severity]
    SEVERITY_MEDIUM: _ClassVar[Severity]
    SEVERITY_HIGH: _ClassVar[Severity]
    SEVERITY_CRITICAL: _ClassVar[Severity]

class SubjectKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SUBJECT_KIND_UNSPECIFIED: _ClassVar[SubjectKind]
    SUBJECT_KIND_HOST: _ClassVar[SubjectKind]
    SUBJECT_KIND_UNIT: _ClassVar[SubjectKind]
    SUBJECT_KIND_CONTAINER: _ClassVar[SubjectKind]
    SUBJECT_KIND_CGROUP: _ClassVar[SubjectKind]
    SUBJECT_KIND_PROCESS: _ClassVar[SubjectKind]
    SUBJECT_KIND_LISTENER: _ClassVar[SubjectKind]
    SUBJECT_KIND_SENSOR: _ClassVar[SubjectKind]
    SUBJECT_KIND_GPU: _ClassVar[SubjectKind]
    SUBJECT_KIND_ROUTE: _ClassVar[SubjectKind]
    SUBJECT_KIND_MODEL: _ClassVar[SubjectKind]

class ReasonCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_CODE_UNSPECIFIED: _ClassVar[ReasonCode]
    REASON_CODE_OPEN_REFUSED_AFTER_SUCCESS: _ClassVar[ReasonCode]
    REASON_CODE_OPEN_REFUSED_BY_MODE: _ClassVar[ReasonCode]
    REASON_CODE_DEVICE_NODE_MISSING: _ClassVar[ReasonCode]
    REASON_CODE_DRIVER_BEHIND_NODE_MISSING: _ClassVar[ReasonCode]
    REASON_CODE_OPEN_SUCCEEDS_AGAIN: _ClassVar[ReasonCode]
    REASON_CODE_CGROUP_GONE: _ClassVar[ReasonCode]
    REASON_CODE_KERNEL_CHOSE_VICTIM: _ClassVar[ReasonCode]
    REASON_CODE_CGROUP_COUNTED_KILL: _ClassVar[ReasonCode]
    REASON_CODE_NO_KILL_SINCE: _ClassVar[ReasonCode]
    REASON_CODE_DIED_BY_FAULT_SIGNAL: _ClassVar[ReasonCode]
    REASON_CODE_SUBJECT_RAN_SINCE: _ClassVar[ReasonCode]
    REASON_CODE_LISTENS_ON_ALL_INTERFACES: _ClassVar[ReasonCode]
    REASON_CODE_LISTENS_OFF_MESH: _ClassVar[ReasonCode]
    REASON_CODE_HOST_HAS_PUBLIC_ADDRESS: _ClassVar[ReasonCode]
    REASON_CODE_SOCKET_TABLE_AGREES: _ClassVar[ReasonCode]
    REASON_CODE_LISTENER_CLOSED: _ClassVar[ReasonCode]
    REASON_CODE_LISTENER_ALLOWED: _ClassVar[ReasonCode]
    REASON_CODE_SENSOR_BLIND: _ClassVar[ReasonCode]
    REASON_CODE_SENSOR_SEES_AGAIN: _ClassVar[ReasonCode]
    REASON_CODE_HOST_SILENT: _ClassVar[ReasonCode]
    REASON_CODE_HOST_HEARD_AGAIN: _ClassVar[ReasonCode]
    REASON_CODE_SECOND_LAYER_UNKNOWN: _ClassVar[ReasonCode]
    REASON_CODE_ANSWERS_EMPTY: _ClassVar[ReasonCode]
    REASON_CODE_USAGE_AGREES: _ClassVar[ReasonCode]
    REASON_CODE_BUDGET_SPENT_ON_REASONING: _ClassVar[ReasonCode]
    REASON_CODE_ANSWER_IN_REASONING_FIELD: _ClassVar[ReasonCode]
    REASON_CODE_REASONING_MARKS_IN_CONTENT: _ClassVar[ReasonCode]
    REASON_CODE_STREAMS_CUT: _ClassVar[ReasonCode]
    REASON_CODE_STREAMS_WITHOUT_END: _ClassVar[ReasonCode]
    REASON_CODE_ERRORS_IN_ANSWERS: _ClassVar[ReasonCode]
    REASON_CODE_TEXT_REPEATS: _ClassVar[ReasonCode]
    REASON_CODE_TEXT_IS_ONE_CHARACTER: _ClassVar[ReasonCode]
    REASON_CODE_TEXT_IS_BLANK: _ClassVar[ReasonCode]
    REASON_CODE_TEXT_UNDECODABLE: _ClassVar[ReasonCode]
    REASON_CODE_PROMPTS_TOO_LONG: _ClassVar[ReasonCode]
    REASON_CODE_PROMPTS_CUT_SILENTLY: _ClassVar[ReasonCode]
    REASON_CODE_NO_BYTES_WHILE_IN_FLIGHT: _ClassVar[ReasonCode]
    REASON_CODE_DEPLOYMENTS_COOLING: _ClassVar[ReasonCode]
    REASON_CODE_REFUSED_AS_BUSY: _ClassVar[ReasonCode]
    REASON_CODE_REQUESTS_QUEUE: _ClassVar[ReasonCode]
    REASON_CODE_ERRORS_ABOVE_BASELINE: _ClassVar[ReasonCode]
    REASON_CODE_FIRST_TOKEN_ABOVE_BASELINE: _ClassVar[ReasonCode]
    REASON_CODE_PACE_BELOW_BASELINE: _ClassVar[ReasonCode]
    REASON_CODE_LARGE_PROMPTS_FAIL: _ClassVar[ReasonCode]
    REASON_CODE_SMALL_PROMPTS_SUCCEED: _ClassVar[ReasonCode]
    REASON_CODE_TWO_HOSTS_AGREE: _ClassVar[ReasonCode]
    REASON_CODE_BOTH_STREAMED_AND_WHOLE: _ClassVar[ReasonCode]
    REASON_CODE_ANSWERS_GOOD_AGAIN: _ClassVar[ReasonCode]
    REASON_CODE_ENGINE_ANSWERS_AGAIN: _ClassVar[ReasonCode]
    REASON_CODE_BACK_AT_BASELINE: _ClassVar[ReasonCode]
    REASON_CODE_ROUTE_UNUSED: _ClassVar[ReasonCode]
    REASON_CODE_MANAGER_RELOADED_BEFORE: _ClassVar[ReasonCode]
    REASON_CODE_HOST_SLEPT_BEFORE: _ClassVar[ReasonCode]
    REASON_CODE_MEMORY_BELOW_FLOOR: _ClassVar[ReasonCode]
    REASON_CODE_MEMORY_FALLS: _ClassVar[ReasonCode]
    REASON_CODE_TASKS_STALL_FOR_MEMORY: _ClassVar[ReasonCode]
    REASON_CODE_ALLOCATIONS_STALL: _ClassVar[ReasonCode]
    REASON_CODE_MEMORY_AVAILABLE_AGAIN: _ClassVar[ReasonCode]
    REASON_CODE_FREE_MEMORY_IS_CACHE: _ClassVar[ReasonCode]
    REASON_CODE_SERVER_STARTS_REPEATEDLY: _ClassVar[ReasonCode]
    REASON_CODE_SERVER_STAYS_UP: _ClassVar[ReasonCode]
    REASON_CODE_CPU_BURNS_DURING_REQUESTS: _ClassVar[ReasonCode]
    REASON_CODE_NOT_LISTED_ON_GPU: _ClassVar[ReasonCode]
    REASON_CODE_DEVICE_OPENS_FAIL: _ClassVar[ReasonCode]
    REASON_CODE_LISTED_ON_GPU_AGAIN: _ClassVar[ReasonCode]
    REASON_CODE_CLOCKS_LOW_UNDER_LOAD: _ClassVar[ReasonCode]
    REASON_CODE_POWER_LOW_UNDER_LOAD: _ClassVar[ReasonCode]
    REASON_CODE_NO_THROTTLE_REASON: _ClassVar[ReasonCode]
    REASON_CODE_CLOCKS_USUAL_AGAIN: _ClassVar[ReasonCode]
    REASON_CODE_XID_REPORTED: _ClassVar[ReasonCode]
    REASON_CODE_XID_FROM_SEVERAL_PROCESSES: _ClassVar[ReasonCode]
    REASON_CODE_NO_XID_SINCE: _ClassVar[ReasonCode]
    REASON_CODE_GPU_IS_LOST: _ClassVar[ReasonCode]
    REASON_CODE_GPU_NEEDS_RESET: _ClassVar[ReasonCode]
    REASON_CODE_RECOVERY_IS_ADVISED: _ClassVar[ReasonCode]
    REASON_CODE_GPU_ANSWERS_AGAIN: _ClassVar[ReasonCode]
    REASON_CODE_LIBRARY_DIFFERS_FROM_MODULE: _ClassVar[ReasonCode]
    REASON_CODE_DRIVER_ANSWERS_AGAIN: _ClassVar[ReasonCode]
    REASON_CODE_AUDIO_BELOW_BASELINE: _ClassVar[ReasonCode]
    REASON_CODE_PLACEMENT_DECLARED: _ClassVar[ReasonCode]
    REASON_CODE_INSTALLED_LIBRARY_DIFFERS: _ClassVar[ReasonCode]

class Device(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEVICE_UNSPECIFIED: _ClassVar[Device]
    DEVICE_CONTROL: _ClassVar[Device]
    DEVICE_GPU: _ClassVar[Device]
    DEVICE_UVM: _ClassVar[Device]
    DEVICE_UVM_TOOLS: _ClassVar[Device]
    DEVICE_MODESET: _ClassVar[Device]
    DEVICE_OTHER: _ClassVar[Device]

class OomScope(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OOM_SCOPE_UNSPECIFIED: _ClassVar[OomScope]
    OOM_SCOPE_CGROUP: _ClassVar[OomScope]
    OOM_SCOPE_HOST: _ClassVar[OomScope]

class Reach(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REACH_UNSPECIFIED: _ClassVar[Reach]
    REACH_ALL_INTERFACES: _ClassVar[Reach]
    REACH_PUBLIC: _ClassVar[Reach]
    REACH_PRIVATE_NETWORK: _ClassVar[Reach]

class BlindReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BLIND_REASON_UNSPECIFIED: _ClassVar[BlindReason]
    BLIND_REASON_DISABLED: _ClassVar[BlindReason]
    BLIND_REASON_NOT_HANDED_OVER: _ClassVar[BlindReason]
    BLIND_REASON_NO_PRIVILEGE: _ClassVar[BlindReason]
    BLIND_REASON_NO_KERNEL_SUPPORT: _ClassVar[BlindReason]
    BLIND_REASON_NO_HEADERS: _ClassVar[BlindReason]
    BLIND_REASON_NO_LIBRARY: _ClassVar[BlindReason]
    BLIND_REASON_ATTACH_FAILED: _ClassVar[BlindReason]
    BLIND_REASON_READ_FAILED: _ClassVar[BlindReason]
    BLIND_REASON_UNSUPPORTED_PLATFORM: _ClassVar[BlindReason]
    BLIND_REASON_HOST_SILENT: _ClassVar[BlindReason]
    BLIND_REASON_NO_NVML: _ClassVar[BlindReason]
    BLIND_REASON_NO_DRIVER: _ClassVar[BlindReason]
    BLIND_REASON_NO_DEVICE_ACCESS: _ClassVar[BlindReason]
    BLIND_REASON_VERSION_MISMATCH: _ClassVar[BlindReason]
    BLIND_REASON_NOT_ANSWERING: _ClassVar[BlindReason]

class ServerKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SERVER_KIND_UNSPECIFIED: _ClassVar[ServerKind]
    SERVER_KIND_VLLM: _ClassVar[ServerKind]
    SERVER_KIND_TENSORRT_LLM: _ClassVar[ServerKind]
    SERVER_KIND_OLLAMA: _ClassVar[ServerKind]
    SERVER_KIND_LLAMA_CPP: _ClassVar[ServerKind]
    SERVER_KIND_LITELLM: _ClassVar[ServerKind]
    SERVER_KIND_OPEN_WEBUI: _ClassVar[ServerKind]
    SERVER_KIND_RAY: _ClassVar[ServerKind]
    SERVER_KIND_WHISPER: _ClassVar[ServerKind]
    SERVER_KIND_POSTGRESQL: _ClassVar[ServerKind]
    SERVER_KIND_OTHER: _ClassVar[ServerKind]

class RouteKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROUTE_KIND_UNSPECIFIED: _ClassVar[RouteKind]
    ROUTE_KIND_CHAT_COMPLETIONS: _ClassVar[RouteKind]
    ROUTE_KIND_COMPLETIONS: _ClassVar[RouteKind]
    ROUTE_KIND_RESPONSES: _ClassVar[RouteKind]
    ROUTE_KIND_MESSAGES: _ClassVar[RouteKind]
    ROUTE_KIND_EMBEDDINGS: _ClassVar[RouteKind]
    ROUTE_KIND_RERANK: _ClassVar[RouteKind]
    ROUTE_KIND_TRANSCRIPTIONS: _ClassVar[RouteKind]
    ROUTE_KIND_SPEECH: _ClassVar[RouteKind]
    ROUTE_KIND_OLLAMA_CHAT: _ClassVar[RouteKind]
    ROUTE_KIND_OLLAMA_GENERATE: _ClassVar[RouteKind]
    ROUTE_KIND_OLLAMA_EMBED: _ClassVar[RouteKind]
    ROUTE_KIND_OTHER: _ClassVar[RouteKind]

class CasePhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CASE_PHASE_UNSPECIFIED: _ClassVar[CasePhase]
    CASE_PHASE_OPENED: _ClassVar[CasePhase]
    CASE_PHASE_UPDATED: _ClassVar[CasePhase]
    CASE_PHASE_CLEARED: _ClassVar[CasePhase]

class LossKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOSS_KIND_UNSPECIFIED: _ClassVar[LossKind]
    LOSS_KIND_RING_FULL: _ClassVar[LossKind]
    LOSS_KIND_PIPELINE_FULL: _ClassVar[LossKind]
    LOSS_KIND_SPOOL_QUARANTINED: _ClassVar[LossKind]
    LOSS_KIND_SPOOL_FULL: _ClassVar[LossKind]
    LOSS_KIND_SPOOL_UNWRITABLE: _ClassVar[LossKind]
    LOSS_KIND_REPORT_REFUSED: _ClassVar[LossKind]
FAULT_CLASS_UNSPECIFIED: FaultClass
FAULT_CLASS_GPU_ACCESS_REVOKED: FaultClass
FAULT_CLASS_GPU_NEVER_GRANTED: FaultClass
FAULT_CLASS_GPU_UVM_LOST: FaultClass
FAULT_CLASS_MEMORY_CGROUP_OOM_KILL: FaultClass
FAULT_CLASS_PROCESS_KILLED_BY_SIGNAL: FaultClass
FAULT_CLASS_EXPOSURE_OFF_MESH_LISTENER: FaultClass
FAULT_CLASS_MONITOR_BLIND: FaultClass
FAULT_CLASS_ROUTE_EMPTY_COMPLETION: FaultClass
FAULT_CLASS_ROUTE_REASONING_BUDGET_EXHAUSTED: FaultClass
FAULT_CLASS_ROUTE_ANSWER_MISROUTED: FaultClass
FAULT_CLASS_ROUTE_BROKEN_STREAM: FaultClass
FAULT_CLASS_ROUTE_DEGENERATE_OUTPUT: FaultClass
FAULT_CLASS_ROUTE_CONTEXT_OVERFLOW: FaultClass
FAULT_CLASS_ROUTE_ENGINE_STALLED: FaultClass
FAULT_CLASS_ROUTE_ROUTER_COOLDOWN: FaultClass
FAULT_CLASS_ROUTE_SATURATED: FaultClass
FAULT_CLASS_ROUTE_FAILS_REAL_TRAFFIC: FaultClass
FAULT_CLASS_ROUTE_ERRORS_RISING: FaultClass
FAULT_CLASS_ROUTE_LATENCY_RISING: FaultClass
FAULT_CLASS_DISTRIBUTED_RANK_STALL: FaultClass
FAULT_CLASS_MEMORY_UNIFIED_EXHAUSTION: FaultClass
FAULT_CLASS_MEMORY_PAGE_CACHE_REFUSAL: FaultClass
FAULT_CLASS_GPU_CPU_FALLBACK: FaultClass
FAULT_CLASS_TRANSCRIPTION_CPU_FALLBACK: FaultClass
FAULT_CLASS_GPU_CLOCKS_CAPPED: FaultClass
FAULT_CLASS_GPU_APPLICATION_XID: FaultClass
FAULT_CLASS_GPU_DEVICE_FAULT: FaultClass
FAULT_CLASS_GPU_DRIVER_MISMATCH: FaultClass
SEVERITY_UNSPECIFIED: Severity
SEVERITY_NOTE: Severity
SEVERITY_MEDIUM: Severity
SEVERITY_HIGH: Severity
SEVERITY_CRITICAL: Severity
SUBJECT_KIND_UNSPECIFIED: SubjectKind
SUBJECT_KIND_HOST: SubjectKind
SUBJECT_KIND_UNIT: SubjectKind
SUBJECT_KIND_CONTAINER: SubjectKind
SUBJECT_KIND_CGROUP: SubjectKind
SUBJECT_KIND_PROCESS: SubjectKind
SUBJECT_KIND_LISTENER: SubjectKind
SUBJECT_KIND_SENSOR: SubjectKind
SUBJECT_KIND_GPU: SubjectKind
SUBJECT_KIND_ROUTE: SubjectKind
SUBJECT_KIND_MODEL: SubjectKind
REASON_CODE_UNSPECIFIED: ReasonCode
REASON_CODE_OPEN_REFUSED_AFTER_SUCCESS: ReasonCode
REASON_CODE_OPEN_REFUSED_BY_MODE: ReasonCode
REASON_CODE_DEVICE_NODE_MISSING: ReasonCode
REASON_CODE_DRIVER_BEHIND_NODE_MISSING: ReasonCode
REASON_CODE_OPEN_SUCCEEDS_AGAIN: ReasonCode
REASON_CODE_CGROUP_GONE: ReasonCode
REASON_CODE_KERNEL_CHOSE_VICTIM: ReasonCode
REASON_CODE_CGROUP_COUNTED_KILL: ReasonCode
REASON_CODE_NO_KILL_SINCE: ReasonCode
REASON_CODE_DIED_BY_FAULT_SIGNAL: ReasonCode
REASON_CODE_SUBJECT_RAN_SINCE: ReasonCode
REASON_CODE_LISTENS_ON_ALL_INTERFACES: ReasonCode
REASON_CODE_LISTENS_OFF_MESH: ReasonCode
REASON_CODE_HOST_HAS_PUBLIC_ADDRESS: ReasonCode
REASON_CODE_SOCKET_TABLE_AGREES: ReasonCode
REASON_CODE_LISTENER_CLOSED: ReasonCode
REASON_CODE_LISTENER_ALLOWED: ReasonCode
REASON_CODE_SENSOR_BLIND: ReasonCode
REASON_CODE_SENSOR_SEES_AGAIN: ReasonCode
REASON_CODE_HOST_SILENT: ReasonCode
REASON_CODE_HOST_HEARD_AGAIN: ReasonCode
REASON_CODE_SECOND_LAYER_UNKNOWN: ReasonCode
REASON_CODE_ANSWERS_EMPTY: ReasonCode
REASON_CODE_USAGE_AGREES: ReasonCode
REASON_CODE_BUDGET_SPENT_ON_REASONING: ReasonCode
REASON_CODE_ANSWER_IN_REASONING_FIELD: ReasonCode
REASON_CODE_REASONING_MARKS_IN_CONTENT: ReasonCode
REASON_CODE_STREAMS_CUT: ReasonCode
REASON_CODE_STREAMS_WITHOUT_END: ReasonCode
REASON_CODE_ERRORS_IN_ANSWERS: ReasonCode
REASON_CODE_TEXT_REPEATS: ReasonCode
REASON_CODE_TEXT_IS_ONE_CHARACTER: ReasonCode
REASON_CODE_TEXT_IS_BLANK: ReasonCode
REASON_CODE_TEXT_UNDECODABLE: ReasonCode
REASON_CODE_PROMPTS_TOO_LONG: ReasonCode
REASON_CODE_PROMPTS_CUT_SILENTLY: ReasonCode
REASON_CODE_NO_BYTES_WHILE_IN_FLIGHT: ReasonCode
REASON_CODE_DEPLOYMENTS_COOLING: ReasonCode
REASON_CODE_REFUSED_AS_BUSY: ReasonCode
REASON_CODE_REQUESTS_QUEUE: ReasonCode
REASON_CODE_ERRORS_ABOVE_BASELINE: ReasonCode
REASON_CODE_FIRST_TOKEN_ABOVE_BASELINE: ReasonCode
REASON_CODE_PACE_BELOW_BASELINE: ReasonCode
REASON_CODE_LARGE_PROMPTS_FAIL: ReasonCode
REASON_CODE_SMALL_PROMPTS_SUCCEED: ReasonCode
REASON_CODE_TWO_HOSTS_AGREE: ReasonCode
REASON_CODE_BOTH_STREAMED_AND_WHOLE: ReasonCode
REASON_CODE_ANSWERS_GOOD_AGAIN: ReasonCode
REASON_CODE_ENGINE_ANSWERS_AGAIN: ReasonCode
REASON_CODE_BACK_AT_BASELINE: ReasonCode
REASON_CODE_ROUTE_UNUSED: ReasonCode
REASON_CODE_MANAGER_RELOADED_BEFORE: ReasonCode
REASON_CODE_HOST_SLEPT_BEFORE: ReasonCode
REASON_CODE_MEMORY_BELOW_FLOOR: ReasonCode
REASON_CODE_MEMORY_FALLS: ReasonCode
REASON_CODE_TASKS_STALL_FOR_MEMORY: ReasonCode
REASON_CODE_ALLOCATIONS_STALL: ReasonCode
REASON_CODE_MEMORY_AVAILABLE_AGAIN: ReasonCode
REASON_CODE_FREE_MEMORY_IS_CACHE: ReasonCode
REASON_CODE_SERVER_STARTS_REPEATEDLY: ReasonCode
REASON_CODE_SERVER_STAYS_UP: ReasonCode
REASON_CODE_CPU_BURNS_DURING_REQUESTS: ReasonCode
REASON_CODE_NOT_LISTED_ON_GPU: ReasonCode
REASON_CODE_DEVICE_OPENS_FAIL: ReasonCode
REASON_CODE_LISTED_ON_GPU_AGAIN: ReasonCode
REASON_CODE_CLOCKS_LOW_UNDER_LOAD: ReasonCode
REASON_CODE_POWER_LOW_UNDER_LOAD: ReasonCode
REASON_CODE_NO_THROTTLE_REASON: ReasonCode
REASON_CODE_CLOCKS_USUAL_AGAIN: ReasonCode
REASON_CODE_XID_REPORTED: ReasonCode
REASON_CODE_XID_FROM_SEVERAL_PROCESSES: ReasonCode
REASON_CODE_NO_XID_SINCE: ReasonCode
REASON_CODE_GPU_IS_LOST: ReasonCode
REASON_CODE_GPU_NEEDS_RESET: ReasonCode
REASON_CODE_RECOVERY_IS_ADVISED: ReasonCode
REASON_CODE_GPU_ANSWERS_AGAIN: ReasonCode
REASON_CODE_LIBRARY_DIFFERS_FROM_MODULE: ReasonCode
REASON_CODE_DRIVER_ANSWERS_AGAIN: ReasonCode
REASON_CODE_AUDIO_BELOW_BASELINE: ReasonCode
REASON_CODE_PLACEMENT_DECLARED: ReasonCode
REASON_CODE_INSTALLED_LIBRARY_DIFFERS: ReasonCode
DEVICE_UNSPECIFIED: Device
DEVICE_CONTROL: Device
DEVICE_GPU: Device
DEVICE_UVM: Device
DEVICE_UVM_TOOLS: Device
DEVICE_MODESET: Device
DEVICE_OTHER: Device
OOM_SCOPE_UNSPECIFIED: OomScope
OOM_SCOPE_CGROUP: OomScope
OOM_SCOPE_HOST: OomScope
REACH_UNSPECIFIED: Reach
REACH_ALL_INTERFACES: Reach
REACH_PUBLIC: Reach
REACH_PRIVATE_NETWORK: Reach
BLIND_REASON_UNSPECIFIED: BlindReason
BLIND_REASON_DISABLED: BlindReason
BLIND_REASON_NOT_HANDED_OVER: BlindReason
BLIND_REASON_NO_PRIVILEGE: BlindReason
BLIND_REASON_NO_KERNEL_SUPPORT: BlindReason
BLIND_REASON_NO_HEADERS: BlindReason
BLIND_REASON_NO_LIBRARY: BlindReason
BLIND_REASON_ATTACH_FAILED: BlindReason
BLIND_REASON_READ_FAILED: BlindReason
BLIND_REASON_UNSUPPORTED_PLATFORM: BlindReason
BLIND_REASON_HOST_SILENT: BlindReason
BLIND_REASON_NO_NVML: BlindReason
BLIND_REASON_NO_DRIVER: BlindReason
BLIND_REASON_NO_DEVICE_ACCESS: BlindReason
BLIND_REASON_VERSION_MISMATCH: BlindReason
BLIND_REASON_NOT_ANSWERING: BlindReason
SERVER_KIND_UNSPECIFIED: ServerKind
SERVER_KIND_VLLM: ServerKind
SERVER_KIND_TENSORRT_LLM: ServerKind
SERVER_KIND_OLLAMA: ServerKind
SERVER_KIND_LLAMA_CPP: ServerKind
SERVER_KIND_LITELLM: ServerKind
SERVER_KIND_OPEN_WEBUI: ServerKind
SERVER_KIND_RAY: ServerKind
SERVER_KIND_WHISPER: ServerKind
SERVER_KIND_POSTGRESQL: ServerKind
SERVER_KIND_OTHER: ServerKind
ROUTE_KIND_UNSPECIFIED: RouteKind
ROUTE_KIND_CHAT_COMPLETIONS: RouteKind
ROUTE_KIND_COMPLETIONS: RouteKind
ROUTE_KIND_RESPONSES: RouteKind
ROUTE_KIND_MESSAGES: RouteKind
ROUTE_KIND_EMBEDDINGS: RouteKind
ROUTE_KIND_RERANK: RouteKind
ROUTE_KIND_TRANSCRIPTIONS: RouteKind
ROUTE_KIND_SPEECH: RouteKind
ROUTE_KIND_OLLAMA_CHAT: RouteKind
ROUTE_KIND_OLLAMA_GENERATE: RouteKind
ROUTE_KIND_OLLAMA_EMBED: RouteKind
ROUTE_KIND_OTHER: RouteKind
CASE_PHASE_UNSPECIFIED: CasePhase
CASE_PHASE_OPENED: CasePhase
CASE_PHASE_UPDATED: CasePhase
CASE_PHASE_CLEARED: CasePhase
LOSS_KIND_UNSPECIFIED: LossKind
LOSS_KIND_RING_FULL: LossKind
LOSS_KIND_PIPELINE_FULL: LossKind
LOSS_KIND_SPOOL_QUARANTINED: LossKind
LOSS_KIND_SPOOL_FULL: LossKind
LOSS_KIND_SPOOL_UNWRITABLE: LossKind
LOSS_KIND_REPORT_REFUSED: LossKind

class ReportBatch(_message.Message):
    __slots__ = ("reports",)
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    reports: _containers.RepeatedCompositeFieldContainer[Report]
    def __init__(self, reports: _Optional[_Iterable[_Union[Report, _Mapping]]] = ...) -> None: ...

class OpaqueBatch(_message.Message):
    __slots__ = ("reports",)
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    reports: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, reports: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("boot_id", "sequence")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    boot_id: str
    sequence: int
    def __init__(self, boot_id: _Optional[str] = ..., sequence: _Optional[int] = ...) -> None: ...

class Subject(_message.Message):
    __slots__ = ("kind", "name")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    kind: SubjectKind
    name: str
    def __init__(self, kind: _Optional[_Union[SubjectKind, str]] = ..., name: _Optional[str] = ...) -> None: ...

class Incarnation(_message.Message):
    __slots__ = ("kernel_boot_id", "container_id", "pid", "start_ticks")
    KERNEL_BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    START_TICKS_FIELD_NUMBER: _ClassVar[int]
    kernel_boot_id: str
    container_id: str
    pid: int
    start_ticks: int
    def __init__(self, kernel_boot_id: _Optional[str] = ..., container_id: _Optional[str] = ..., pid: _Optional[int] = ..., start_ticks: _Optional[int] = ...) -> None: ...

class Reason(_message.Message):
    __slots__ = ("code", "count", "threshold", "window_s")
    CODE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    code: ReasonCode
    count: int
    threshold: float
    window_s: float
    def __init__(self, code: _Optional[_Union[ReasonCode, str]] = ..., count: _Optional[int] = ..., threshold: _Optional[float] = ..., window_s: _Optional[float] = ...) -> None: ...

class DeviceOpenEvidence(_message.Message):
    __slots__ = ("device", "minor", "errno", "failures", "prior_successes", "process_name", "pid")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    MINOR_FIELD_NUMBER: _ClassVar[int]
    ERRNO_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    PRIOR_SUCCESSES_FIELD_NUMBER: _ClassVar[int]
    PROCESS_NAME_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    device: Device
    minor: int
    errno: int
    failures: int
    prior_successes: int
    process_name: str
    pid: int
    def __init__(self, device: _Optional[_Union[Device, str]] = ..., minor: _Optional[int] = ..., errno: _Optional[int] = ..., failures: _Optional[int] = ..., prior_successes: _Optional[int] = ..., process_name: _Optional[str] = ..., pid: _Optional[int] = ...) -> None: ...

class OomEvidence(_message.Message):
    __slots__ = ("scope", "process_name", "pid", "anon_rss_bytes", "limit_bytes", "kills_in_cgroup")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    PROCESS_NAME_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    ANON_RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    KILLS_IN_CGROUP_FIELD_NUMBER: _ClassVar[int]
    scope: OomScope
    process_name: str
    pid: int
    anon_rss_bytes: int
    limit_bytes: int
    kills_in_cgroup: int
    def __init__(self, scope: _Optional[_Union[OomScope, str]] = ..., process_name: _Optional[str] = ..., pid: _Optional[int] = ..., anon_rss_bytes: _Optional[int] = ..., limit_bytes: _Optional[int] = ..., kills_in_cgroup: _Optional[int] = ...) -> None: ...

class SignalEvidence(_message.Message):
    __slots__ = ("signal", "code", "process_name", "pid")
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    PROCESS_NAME_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    signal: int
    code: int
    process_name: str
    pid: int
    def __init__(self, signal: _Optional[int] = ..., code: _Optional[int] = ..., process_name: _Optional[str] = ..., pid: _Optional[int] = ...) -> None: ...

class ListenerEvidence(_message.Message):
    __slots__ = ("address", "port", "reach", "process_name", "confirmed")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    REACH_FIELD_NUMBER: _ClassVar[int]
    PROCESS_NAME_FIELD_NUMBER: _ClassVar[int]
    CONFIRMED_FIELD_NUMBER: _ClassVar[int]
    address: str
    port: int
    reach: Reach
    process_name: str
    confirmed: bool
    def __init__(self, address: _Optional[str] = ..., port: _Optional[int] = ..., reach: _Optional[_Union[Reach, str]] = ..., process_name: _Optional[str] = ..., confirmed: _Optional[bool] = ...) -> None: ...

class BlindEvidence(_message.Message):
    __slots__ = ("sensor", "reason", "silent_s")
    SENSOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SILENT_S_FIELD_NUMBER: _ClassVar[int]
    sensor: str
    reason: BlindReason
    silent_s: float
    def __init__(self, sensor: _Optional[str] = ..., reason: _Optional[_Union[BlindReason, str]] = ..., silent_s: _Optional[float] = ...) -> None: ...

class RouteId(_message.Message):
    __slots__ = ("port", "route", "model", "server")
    PORT_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    port: int
    route: RouteKind
    model: str
    server: ServerKind
    def __init__(self, port: _Optional[int] = ..., route: _Optional[_Union[RouteKind, str]] = ..., model: _Optional[str] = ..., server: _Optional[_Union[ServerKind, str]] = ...) -> None: ...

class RouteEvidence(_message.Message):
    __slots__ = ("id", "window_s", "exchanges", "affected", "affected_streamed", "unobserved", "completion_tokens", "max_tokens", "measured", "baseline")
    ID_FIELD_NUMBER: _ClassVar[int]
    WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    EXCHANGES_FIELD_NUMBER: _ClassVar[int]
    AFFECTED_FIELD_NUMBER: _ClassVar[int]
    AFFECTED_STREAMED_FIELD_NUMBER: _ClassVar[int]
    UNOBSERVED_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MEASURED_FIELD_NUMBER: _ClassVar[int]
    BASELINE_FIELD_NUMBER: _ClassVar[int]
    id: RouteId
    window_s: float
    exchanges: int
    affected: int
    affected_streamed: int
    unobserved: int
    completion_tokens: int
    max_tokens: int
    measured: float
    baseline: float
    def __init__(self, id: _Optional[_Union[RouteId, _Mapping]] = ..., window_s: _Optional[float] = ..., exchanges: _Optional[int] = ..., affected: _Optional[int] = ..., affected_streamed: _Optional[int] = ..., unobserved: _Optional[int] = ..., completion_tokens: _Optional[int] = ..., max_tokens: _Optional[int] = ..., measured: _Optional[float] = ..., baseline: _Optional[float] = ...) -> None: ...

class FlightEvidence(_message.Message):
    __slots__ = ("id", "requests", "waiting", "oldest_s", "silent_s", "patience_s", "largest_request_bytes")
    ID_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    OLDEST_S_FIELD_NUMBER: _ClassVar[int]
    SILENT_S_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_S_FIELD_NUMBER: _ClassVar[int]
    LARGEST_REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    id: RouteId
    requests: int
    waiting: int
    oldest_s: float
    silent_s: float
    patience_s: float
    largest_request_bytes: int
    def __init__(self, id: _Optional[_Union[RouteId, _Mapping]] = ..., requests: _Optional[int] = ..., waiting: _Optional[int] = ..., oldest_s: _Optional[float] = ..., silent_s: _Optional[float] = ..., patience_s: _Optional[float] = ..., largest_request_bytes: _Optional[int] = ...) -> None: ...

class PromptSizeEvidence(_message.Message):
    __slots__ = ("id", "window_s", "split_bytes", "small", "small_failed", "large", "large_failed")
    ID_FIELD_NUMBER: _ClassVar[int]
    WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    SPLIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    SMALL_FIELD_NUMBER: _ClassVar[int]
    SMALL_FAILED_FIELD_NUMBER: _ClassVar[int]
    LARGE_FIELD_NUMBER: _ClassVar[int]
    LARGE_FAILED_FIELD_NUMBER: _ClassVar[int]
    id: RouteId
    window_s: float
    split_bytes: int
    small: int
    small_failed: int
    large: int
    large_failed: int
    def __init__(self, id: _Optional[_Union[RouteId, _Mapping]] = ..., window_s: _Optional[float] = ..., split_bytes: _Optional[int] = ..., small: _Optional[int] = ..., small_failed: _Optional[int] = ..., large: _Optional[int] = ..., large_failed: _Optional[int] = ...) -> None: ...

class MemoryEvidence(_message.Message):
    __slots__ = ("total_bytes", "available_bytes", "free_bytes", "floor_bytes", "falls_bytes_per_s", "empty_in_s", "stalled_percent", "stalls")
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    FLOOR_BYTES_FIELD_NUMBER: _ClassVar[int]
    FALLS_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    EMPTY_IN_S_FIELD_NUMBER: _ClassVar[int]
    STALLED_PERCENT_FIELD_NUMBER: _ClassVar[int]
    STALLS_FIELD_NUMBER: _ClassVar[int]
    total_bytes: int
    available_bytes: int
    free_bytes: int
    floor_bytes: int
    falls_bytes_per_s: float
    empty_in_s: float
    stalled_percent: float
    stalls: int
    def __init__(self, total_bytes: _Optional[int] = ..., available_bytes: _Optional[int] = ..., free_bytes: _Optional[int] = ..., floor_bytes: _Optional[int] = ..., falls_bytes_per_s: _Optional[float] = ..., empty_in_s: _Optional[float] = ..., stalled_percent: _Optional[float] = ..., stalls: _Optional[int] = ...) -> None: ...

class PlacementEvidence(_message.Message):
    __slots__ = ("server", "process_name", "pid", "cores", "window_s", "requests", "listed", "failed_opens", "measured", "baseline")
    SERVER_FIELD_NUMBER: _ClassVar[int]
    PROCESS_NAME_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    CORES_FIELD_NUMBER: _ClassVar[int]
    WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    LISTED_FIELD_NUMBER: _ClassVar[int]
    FAILED_OPENS_FIELD_NUMBER: _ClassVar[int]
    MEASURED_FIELD_NUMBER: _ClassVar[int]
    BASELINE_FIELD_NUMBER: _ClassVar[int]
    server: ServerKind
    process_name: str
    pid: int
    cores: float
    window_s: float
    requests: int
    listed: bool
    failed_opens: int
    measured: float
    baseline: float
    def __init__(self, server: _Optional[_Union[ServerKind, str]] = ..., process_name: _Optional[str] = ..., pid: _Optional[int] = ..., cores: _Optional[float] = ..., window_s: _Optional[float] = ..., requests: _Optional[int] = ..., listed: _Optional[bool] = ..., failed_opens: _Optional[int] = ..., measured: _Optional[float] = ..., baseline: _Optional[float] = ...) -> None: ...

class GpuEvidence(_message.Message):
    __slots__ = ("gpu", "name", "sm_mhz", "usual_mhz", "busy_percent", "watts", "event_reasons", "nvml_code", "recovery_action")
    GPU_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SM_MHZ_FIELD_NUMBER: _ClassVar[int]
    USUAL_MHZ_FIELD_NUMBER: _ClassVar[int]
    BUSY_PERCENT_FIELD_NUMBER: _ClassVar[int]
    WATTS_FIELD_NUMBER: _ClassVar[int]
    EVENT_REASONS_FIELD_NUMBER: _ClassVar[int]
    NVML_CODE_FIELD_NUMBER: _ClassVar[int]
    RECOVERY_ACTION_FIELD_NUMBER: _ClassVar[int]
    gpu: str
    name: str
    sm_mhz: int
    usual_mhz: int
    busy_percent: int
    watts: float
    event_reasons: int
    nvml_code: int
    recovery_action: int
    def __init__(self, gpu: _Optional[str] = ..., name: _Optional[str] = ..., sm_mhz: _Optional[int] = ..., usual_mhz: _Optional[int] = ..., busy_percent: _Optional[int] = ..., watts: _Optional[float] = ..., event_reasons: _Optional[int] = ..., nvml_code: _Optional[int] = ..., recovery_action: _Optional[int] = ...) -> None: ...

class XidEvidence(_message.Message):
    __slots__ = ("gpu", "number", "count", "sources", "process_name", "pid")
    GPU_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    PROCESS_NAME_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    gpu: str
    number: int
    count: int
    sources: int
    process_name: str
    pid: int
    def __init__(self, gpu: _Optional[str] = ..., number: _Optional[int] = ..., count: _Optional[int] = ..., sources: _Optional[int] = ..., process_name: _Optional[str] = ..., pid: _Optional[int] = ...) -> None: ...

class Evidence(_message.Message):
    __slots__ = ("device_open", "oom", "signal", "listener", "blind", "route", "flight", "prompt_size", "memory", "placement", "gpu", "xid")
    DEVICE_OPEN_FIELD_NUMBER: _ClassVar[int]
    OOM_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    LISTENER_FIELD_NUMBER: _ClassVar[int]
    BLIND_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    FLIGHT_FIELD_NUMBER: _ClassVar[int]
    PROMPT_SIZE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    GPU_FIELD_NUMBER: _ClassVar[int]
    XID_FIELD_NUMBER: _ClassVar[int]
    device_open: DeviceOpenEvidence
    oom: OomEvidence
    signal: SignalEvidence
    listener: ListenerEvidence
    blind: BlindEvidence
    route: RouteEvidence
    flight: FlightEvidence
    prompt_size: PromptSizeEvidence
    memory: MemoryEvidence
    placement: PlacementEvidence
    gpu: GpuEvidence
    xid: XidEvidence
    def __init__(self, device_open: _Optional[_Union[DeviceOpenEvidence, _Mapping]] = ..., oom: _Optional[_Union[OomEvidence, _Mapping]] = ..., signal: _Optional[_Union[SignalEvidence, _Mapping]] = ..., listener: _Optional[_Union[ListenerEvidence, _Mapping]] = ..., blind: _Optional[_Union[BlindEvidence, _Mapping]] = ..., route: _Optional[_Union[RouteEvidence, _Mapping]] = ..., flight: _Optional[_Union[FlightEvidence, _Mapping]] = ..., prompt_size: _Optional[_Union[PromptSizeEvidence, _Mapping]] = ..., memory: _Optional[_Union[MemoryEvidence, _Mapping]] = ..., placement: _Optional[_Union[PlacementEvidence, _Mapping]] = ..., gpu: _Optional[_Union[GpuEvidence, _Mapping]] = ..., xid: _Optional[_Union[XidEvidence, _Mapping]] = ...) -> None: ...

class CaseReport(_message.Message):
    __slots__ = ("phase", "case_id", "fault_class", "severity", "subject", "target", "incarnation", "first_seen_ns", "last_seen_ns", "count", "reasons", "evidence")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    CASE_ID_FIELD_NUMBER: _ClassVar[int]
    FAULT_CLASS_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEEN_NS_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_NS_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    phase: CasePhase
    case_id: str
    fault_class: FaultClass
    severity: Severity
    subject: Subject
    target: Subject
    incarnation: Incarnation
    first_seen_ns: int
    last_seen_ns: int
    count: int
    reasons: _containers.RepeatedCompositeFieldContainer[Reason]
    evidence: _containers.RepeatedCompositeFieldContainer[Evidence]
    def __init__(self, phase: _Optional[_Union[CasePhase, str]] = ..., case_id: _Optional[str] = ..., fault_class: _Optional[_Union[FaultClass, str]] = ..., severity: _Optional[_Union[Severity, str]] = ..., subject: _Optional[_Union[Subject, _Mapping]] = ..., target: _Optional[_Union[Subject, _Mapping]] = ..., incarnation: _Optional[_Union[Incarnation, _Mapping]] = ..., first_seen_ns: _Optional[int] = ..., last_seen_ns: _Optional[int] = ..., count: _Optional[int] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ..., evidence: _Optional[_Iterable[_Union[Evidence, _Mapping]]] = ...) -> None: ...

class SensorCoverage(_message.Message):
    __slots__ = ("sensor", "blind", "error")
    SENSOR_FIELD_NUMBER: _ClassVar[int]
    BLIND_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    sensor: str
    blind: BlindReason
    error: int
    def __init__(self, sensor: _Optional[str] = ..., blind: _Optional[_Union[BlindReason, str]] = ..., error: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("kernel_boot_id", "agent_version", "started_ns", "coverage", "open_cases", "spool_reports", "spool_bytes", "interval_s")
    KERNEL_BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    STARTED_NS_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    OPEN_CASES_FIELD_NUMBER: _ClassVar[int]
    SPOOL_REPORTS_FIELD_NUMBER: _ClassVar[int]
    SPOOL_BYTES_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    kernel_boot_id: str
    agent_version: str
    started_ns: int
    coverage: _containers.RepeatedCompositeFieldContainer[SensorCoverage]
    open_cases: int
    spool_reports: int
    spool_bytes: int
    interval_s: float
    def __init__(self, kernel_boot_id: _Optional[str] = ..., agent_version: _Optional[str] = ..., started_ns: _Optional[int] = ..., coverage: _Optional[_Iterable[_Union[SensorCoverage, _Mapping]]] = ..., open_cases: _Optional[int] = ..., spool_reports: _Optional[int] = ..., spool_bytes: _Optional[int] = ..., interval_s: _Optional[float] = ...) -> None: ...

class Loss(_message.Message):
    __slots__ = ("kind", "sensor", "count", "exact")
    KIND_FIELD_NUMBER: _ClassVar[int]
    SENSOR_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    kind: LossKind
    sensor: str
    count: int
    exact: bool
    def __init__(self, kind: _Optional[_Union[LossKind, str]] = ..., sensor: _Optional[str] = ..., count: _Optional[int] = ..., exact: _Optional[bool] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("agent_id", "boot_id", "sequence", "created_ns", "case_report", "heartbeat", "loss")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CREATED_NS_FIELD_NUMBER: _ClassVar[int]
    CASE_REPORT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    boot_id: str
    sequence: int
    created_ns: int
    case_report: CaseReport
    heartbeat: Heartbeat
    loss: Loss
    def __init__(self, agent_id: _Optional[str] = ..., boot_id: _Optional[str] = ..., sequence: _Optional[int] = ..., created_ns: _Optional[int] = ..., case_report: _Optional[_Union[CaseReport, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., loss: _Optional[_Union[Loss, _Mapping]] = ...) -> None: ...
