"""The words that host and orchestrator share: reports, cases, evidence, incidents, recommendations.

Values only: nothing here reads a clock, a file or a socket. No field holds prompt or answer text, and no
field is prose: reasons are codes with numbers, worded where people read them (`wording.py`). Times are
Unix nanoseconds, UTC (`*_ns`); durations are seconds (`*_s`). Longer than other modules because it is one
vocabulary: each word is defined once and imported from one place, on the host and on the orchestrator.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import Final, NewType

AgentId = NewType("AgentId", str)
"""The host's name as its certificate carries it: ``spiffe://<trust domain>/nanobot/agent/<AgentId>``."""

BootId = NewType("BootId", str)
"""One numbering of reports: a UUID that changes with the host's boot and with every fresh spool."""

CaseId = NewType("CaseId", str)
IncidentId = NewType("IncidentId", str)
RecommendationId = NewType("RecommendationId", str)

AGENT_ID: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
"""What an AgentId looks like in full: a lower-case DNS name of at most 63 characters."""


class FaultClass(enum.StrEnum):
    """The catalogue's dotted names. UNKNOWN stands for a class that a newer agent knows and we do not."""

    UNKNOWN = "unknown"
    GPU_ACCESS_REVOKED = "gpu.access_revoked"
    GPU_NEVER_GRANTED = "gpu.never_granted"
    GPU_UVM_LOST = "gpu.uvm_lost"
    MEMORY_CGROUP_OOM_KILL = "memory.cgroup_oom_kill"
    PROCESS_KILLED_BY_SIGNAL = "process.killed_by_signal"
    EXPOSURE_OFF_MESH_LISTENER = "exposure.off_mesh_listener"
    MONITOR_BLIND = "monitor.blind"
    ROUTE_EMPTY_COMPLETION = "route.empty_completion"
    ROUTE_REASONING_BUDGET_EXHAUSTED = "route.reasoning_budget_exhausted"
    ROUTE_ANSWER_MISROUTED = "route.answer_misrouted"
    ROUTE_BROKEN_STREAM = "route.broken_stream"
    ROUTE_DEGENERATE_OUTPUT = "route.degenerate_output"
    ROUTE_CONTEXT_OVERFLOW = "route.context_overflow"
    ROUTE_ENGINE_STALLED = "route.engine_stalled"
    ROUTE_ROUTER_COOLDOWN = "route.router_cooldown"
    ROUTE_SATURATED = "route.saturated"
    ROUTE_FAILS_REAL_TRAFFIC = "route.fails_real_traffic"
    ROUTE_ERRORS_RISING = "route.errors_rising"
    ROUTE_LATENCY_RISING = "route.latency_rising"
    DISTRIBUTED_RANK_STALL = "distributed.rank_stall"
    MEMORY_UNIFIED_EXHAUSTION = "memory.unified_exhaustion"
    MEMORY_PAGE_CACHE_REFUSAL = "memory.page_cache_refusal"
    GPU_CPU_FALLBACK = "gpu.cpu_fallback"
    TRANSCRIPTION_CPU_FALLBACK = "transcription.cpu_fallback"
    GPU_CLOCKS_CAPPED = "gpu.clocks_capped"
    GPU_APPLICATION_XID = "gpu.application_xid"
    GPU_DEVICE_FAULT = "gpu.device_fault"
    GPU_DRIVER_MISMATCH = "gpu.driver_mismatch"


BY_ORCHESTRATOR: Final = frozenset({FaultClass.DISTRIBUTED_RANK_STALL})
"""What no host can find alone: the orchestrator makes these of what several hosts report."""


class Severity(enum.StrEnum):
    """How bad it is, worst last in `SEVERITY_ORDER`."""

    UNKNOWN = "unknown"
    NOTE = "note"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


SEVERITY_ORDER: Final = (Severity.UNKNOWN, Severity.NOTE, Severity.MEDIUM, Severity.HIGH, Severity.CRITICAL)


class SubjectKind(enum.StrEnum):
    """What kind of thing a case is about."""

    UNKNOWN = "unknown"
    HOST = "host"
    UNIT = "unit"
    CONTAINER = "container"
    CGROUP = "cgroup"
    PROCESS = "process"
    LISTENER = "listener"
    SENSOR = "sensor"
    GPU = "gpu"
    ROUTE = "route"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class Subject:
    """What a case is about. `name` came from a host: hostile text, shown only escaped."""

    kind: SubjectKind
    name: str


@dataclass(frozen=True, slots=True)
class Incarnation:
    """Which life of the subject a case speaks of; an approval is void when any of it changed."""

    kernel_boot_id: str
    container_id: str | None = None
    pid: int | None = None
    start_ticks: int | None = None


class ReasonCode(enum.StrEnum):
    """Why a case was opened, kept open or cleared. Words are in `wording.py`."""

    UNKNOWN = "unknown"
    OPEN_REFUSED_AFTER_SUCCESS = "open_refused_after_success"
    OPEN_REFUSED_BY_MODE = "open_refused_by_mode"
    DEVICE_NODE_MISSING = "device_node_missing"
    DRIVER_BEHIND_NODE_MISSING = "driver_behind_node_missing"
    OPEN_SUCCEEDS_AGAIN = "open_succeeds_again"
    CGROUP_GONE = "cgroup_gone"
    KERNEL_CHOSE_VICTIM = "kernel_chose_victim"
    CGROUP_COUNTED_KILL = "cgroup_counted_kill"
    NO_KILL_SINCE = "no_kill_since"
    DIED_BY_FAULT_SIGNAL = "died_by_fault_signal"
    SUBJECT_RAN_SINCE = "subject_ran_since"
    LISTENS_ON_ALL_INTERFACES = "listens_on_all_interfaces"
    LISTENS_OFF_MESH = "listens_off_mesh"
    HOST_HAS_PUBLIC_ADDRESS = "host_has_public_address"
    SOCKET_TABLE_AGREES = "socket_table_agrees"
    LISTENER_CLOSED = "listener_closed"
    LISTENER_ALLOWED = "listener_allowed"
    SENSOR_BLIND = "sensor_blind"
    SENSOR_SEES_AGAIN = "sensor_sees_again"
    HOST_SILENT = "host_silent"
    HOST_HEARD_AGAIN = "host_heard_again"
    SECOND_LAYER_UNKNOWN = "second_layer_unknown"
    ANSWERS_EMPTY = "answers_empty"
    USAGE_AGREES = "usage_agrees"
    BUDGET_SPENT_ON_REASONING = "budget_spent_on_reasoning"
    ANSWER_IN_REASONING_FIELD = "answer_in_reasoning_field"
    REASONING_MARKS_IN_CONTENT = "reasoning_marks_in_content"
    STREAMS_CUT = "streams_cut"
    STREAMS_WITHOUT_END = "streams_without_end"
    ERRORS_IN_ANSWERS = "errors_in_answers"
    TEXT_REPEATS = "text_repeats"
    TEXT_IS_ONE_CHARACTER = "text_is_one_character"
    TEXT_IS_BLANK = "text_is_blank"
    TEXT_UNDECODABLE = "text_undecodable"
    PROMPTS_TOO_LONG = "prompts_too_long"
    PROMPTS_CUT_SILENTLY = "prompts_cut_silently"
    NO_BYTES_WHILE_IN_FLIGHT = "no_bytes_while_in_flight"
    DEPLOYMENTS_COOLING = "deployments_cooling"
    REFUSED_AS_BUSY = "refused_as_busy"
    REQUESTS_QUEUE = "requests_queue"
    ERRORS_ABOVE_BASELINE = "errors_above_baseline"
    FIRST_TOKEN_ABOVE_BASELINE = "first_token_above_baseline"  # noqa: S105 -- a token of a model
    PACE_BELOW_BASELINE = "pace_below_baseline"
    LARGE_PROMPTS_FAIL = "large_prompts_fail"
    SMALL_PROMPTS_SUCCEED = "small_prompts_succeed"
    TWO_HOSTS_AGREE = "two_hosts_agree"
    BOTH_STREAMED_AND_WHOLE = "both_streamed_and_whole"
    ANSWERS_GOOD_AGAIN = "answers_good_again"
    ENGINE_ANSWERS_AGAIN = "engine_answers_again"
    BACK_AT_BASELINE = "back_at_baseline"
    ROUTE_UNUSED = "route_unused"
    MANAGER_RELOADED_BEFORE = "manager_reloaded_before"
    HOST_SLEPT_BEFORE = "host_slept_before"
    MEMORY_BELOW_FLOOR = "memory_below_floor"
    MEMORY_FALLS = "memory_falls"
    TASKS_STALL_FOR_MEMORY = "tasks_stall_for_memory"
    ALLOCATIONS_STALL = "allocations_stall"
    MEMORY_AVAILABLE_AGAIN = "memory_available_again"
    FREE_MEMORY_IS_CACHE = "free_memory_is_cache"
    SERVER_STARTS_REPEATEDLY = "server_starts_repeatedly"
    SERVER_STAYS_UP = "server_stays_up"
    CPU_BURNS_DURING_REQUESTS = "cpu_burns_during_requests"
    NOT_LISTED_ON_GPU = "not_listed_on_gpu"
    DEVICE_OPENS_FAIL = "device_opens_fail"
    LISTED_ON_GPU_AGAIN = "listed_on_gpu_again"
    CLOCKS_LOW_UNDER_LOAD = "clocks_low_under_load"
    POWER_LOW_UNDER_LOAD = "power_low_under_load"
    NO_THROTTLE_REASON = "no_throttle_reason"
    CLOCKS_USUAL_AGAIN = "clocks_usual_again"
    XID_REPORTED = "xid_reported"
    XID_FROM_SEVERAL_PROCESSES = "xid_from_several_processes"
    NO_XID_SINCE = "no_xid_since"
    GPU_IS_LOST = "gpu_is_lost"
    GPU_NEEDS_RESET = "gpu_needs_reset"
    RECOVERY_IS_ADVISED = "recovery_is_advised"
    GPU_ANSWERS_AGAIN = "gpu_answers_again"
    LIBRARY_DIFFERS_FROM_MODULE = "library_differs_from_module"
    DRIVER_ANSWERS_AGAIN = "driver_answers_again"
    AUDIO_BELOW_BASELINE = "audio_below_baseline"
    PLACEMENT_DECLARED = "placement_declared"
    INSTALLED_LIBRARY_DIFFERS = "installed_library_differs"


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason with its numbers: `count` things seen over `window_s` seconds, against `threshold`."""

    code: ReasonCode
    count: int = 0
    threshold: float = 0.0
    window_s: float = 0.0


class Device(enum.StrEnum):
    """Which GPU device node."""

    UNKNOWN = "unknown"
    CONTROL = "nvidiactl"
    GPU = "nvidia"
    UVM = "nvidia-uvm"
    UVM_TOOLS = "nvidia-uvm-tools"
    MODESET = "nvidia-modeset"
    OTHER = "nvidia-other"


@dataclass(frozen=True, slots=True)
class DeviceOpenEvidence:
    """Opens of a GPU device node that failed with `errno`, and how many had succeeded before."""

    device: Device
    minor: int | None
    errno: int
    failures: int
    prior_successes: int
    process_name: str
    pid: int | None


class OomScope(enum.StrEnum):
    """Whose memory ran out."""

    UNKNOWN = "unknown"
    CGROUP = "cgroup"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class OomEvidence:
    """One kill by the kernel's out-of-memory killer, with the cgroup's own account as second witness."""

    scope: OomScope
    process_name: str
    pid: int | None
    anon_rss_bytes: int | None
    limit_bytes: int | None
    kills_in_cgroup: int | None


@dataclass(frozen=True, slots=True)
class SignalEvidence:
    """A process that ended by a signal; `code` is the kernel's si_code (above 0: raised by the kernel)."""

    signal: int
    code: int
    process_name: str
    pid: int | None


class Reach(enum.StrEnum):
    """From where a listener can be reached, judged by address alone."""

    UNKNOWN = "unknown"
    ALL_INTERFACES = "all_interfaces"
    PUBLIC = "public"
    PRIVATE_NETWORK = "private_network"


@dataclass(frozen=True, slots=True)
class ListenerEvidence:
    """A listening TCP socket. `confirmed` is whether the host's socket table shows it (None: unknown)."""

    address: str
    port: int
    reach: Reach
    process_name: str
    confirmed: bool | None


class BlindReason(enum.StrEnum):
    """Why a sensor, or a whole host, cannot be seen."""

    UNKNOWN = "unknown"
    DISABLED = "disabled"
    NOT_HANDED_OVER = "not_handed_over"
    NO_PRIVILEGE = "no_privilege"
    NO_KERNEL_SUPPORT = "no_kernel_support"
    NO_HEADERS = "no_headers"
    NO_LIBRARY = "no_library"
    ATTACH_FAILED = "attach_failed"
    READ_FAILED = "read_failed"
    UNSUPPORTED_PLATFORM = "unsupported_platform"
    HOST_SILENT = "host_silent"
    NO_NVML = "no_nvml"
    NO_DRIVER = "no_driver"
    NO_DEVICE_ACCESS = "no_device_access"
    VERSION_MISMATCH = "version_mismatch"
    NOT_ANSWERING = "not_answering"


@dataclass(frozen=True, slots=True)
class BlindEvidence:
    """What cannot be seen, and since how many seconds."""

    sensor: str
    reason: BlindReason
    silent_s: float


class ServerKind(enum.StrEnum):
    """Which software answers a route."""

    UNKNOWN = "unknown"
    VLLM = "vllm"
    TENSORRT_LLM = "tensorrt_llm"
    OLLAMA = "ollama"
    LLAMA_CPP = "llama_cpp"
    LITELLM = "litellm"
    OPEN_WEBUI = "open_webui"
    RAY = "ray"
    WHISPER = "whisper"
    POSTGRESQL = "postgresql"
    OTHER = "other"


class RouteKind(enum.StrEnum):
    """Which endpoint of a model server; paths that are none of them are OTHER."""

    UNKNOWN = "unknown"
    CHAT_COMPLETIONS = "chat_completions"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    MESSAGES = "messages"
    EMBEDDINGS = "embeddings"
    RERANK = "rerank"
    TRANSCRIPTIONS = "transcriptions"
    SPEECH = "speech"
    OLLAMA_CHAT = "ollama_chat"
    OLLAMA_GENERATE = "ollama_generate"
    OLLAMA_EMBED = "ollama_embed"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class RouteId:
    """One endpoint and model behind one port. `model` is a name from outside, empty where none was given."""

    port: int
    route: RouteKind
    model: str
    server: ServerKind


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteEvidence:
    """Exchanges of one route in a window: how many, how many of them affected, how many could not be judged.

    The numbers of tokens, generated and allowed, are medians of the affected. `baseline` is what is usual on
    this route for whatever the case is about (a share, or seconds), `measured` what it is now.
    """

    id: RouteId
    window_s: float
    exchanges: int
    affected: int
    affected_streamed: int
    unobserved: int
    completion_tokens: int | None = None
    max_tokens: int | None = None
    measured: float | None = None
    baseline: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlightEvidence:
    """Requests of one route that are under way while nothing comes back; `patience_s` is what was allowed."""

    id: RouteId
    requests: int
    waiting: int
    oldest_s: float
    silent_s: float
    patience_s: float
    largest_request_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSizeEvidence:
    """How exchanges ended by the size of their request: below `split_bytes` and from there on."""

    id: RouteId
    window_s: float
    split_bytes: int
    small: int
    small_failed: int
    large: int
    large_failed: int


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


@dataclass(frozen=True, slots=True)
class UnknownEvidence:
    """Evidence of a kind that a newer agent sends; kept as its bytes' size, never dropped silently."""

    size_bytes: int


Evidence = (
    DeviceOpenEvidence
    | OomEvidence
    | SignalEvidence
    | ListenerEvidence
    | BlindEvidence
    | RouteEvidence
    | FlightEvidence
    | PromptSizeEvidence
    | MemoryEvidence
    | PlacementEvidence
    | GpuEvidence
    | XidEvidence
    | UnknownEvidence
)


class CasePhase(enum.StrEnum):
    """What a report says about a case."""

    UNKNOWN = "unknown"
    OPENED = "opened"
    UPDATED = "updated"
    CLEARED = "cleared"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseReport:
    """A case was opened, updated or cleared. `count` is how often the fault was seen since `first_seen_ns`.

    `fault_number` keeps the wire's number when `fault_class` is UNKNOWN, so that nothing is lost.
    `target` is what an action would act on (a unit or container), when it is known and differs from the
    subject.
    """

    phase: CasePhase
    case_id: CaseId
    fault_class: FaultClass
    severity: Severity
    subject: Subject
    incarnation: Incarnation
    first_seen_ns: int
    last_seen_ns: int
    count: int
    target: Subject | None = None
    reasons: tuple[Reason, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    fault_number: int | None = None


@dataclass(frozen=True, slots=True)
class SensorCoverage:
    """Whether one sensor sees. `blind` is None when it does; `error` is an errno where one is known."""

    sensor: str
    blind: BlindReason | None
    error: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """The agent lives, and this is what it can and cannot see."""

    kernel_boot_id: str
    agent_version: str
    started_ns: int
    coverage: tuple[SensorCoverage, ...]
    open_cases: int
    spool_reports: int
    spool_bytes: int
    interval_s: float


class LossKind(enum.StrEnum):
    """Where something was lost."""

    UNKNOWN = "unknown"
    RING_FULL = "ring_full"
    PIPELINE_FULL = "pipeline_full"
    SPOOL_QUARANTINED = "spool_quarantined"
    SPOOL_FULL = "spool_full"
    SPOOL_UNWRITABLE = "spool_unwritable"
    REPORT_REFUSED = "report_refused"


@dataclass(frozen=True, slots=True)
class Loss:
    """`count` things were lost at `kind`, of `sensor` where it has one; a lower bound unless `exact`."""

    kind: LossKind
    sensor: str
    count: int
    exact: bool


Body = CaseReport | Heartbeat | Loss


@dataclass(frozen=True, slots=True)
class UnknownBody:
    """A report of a kind that a newer agent sends: stored and acknowledged, shown as unknown."""

    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One durable, numbered message from a host. (agent_id, boot_id, sequence) is its identity."""

    agent_id: AgentId
    boot_id: BootId
    sequence: int
    created_ns: int
    body: Body | UnknownBody


class ActionKind(enum.StrEnum):
    """What is recommended. INSPECT reads only; HUMAN is described and can never be approved here."""

    RESTART_UNIT = "restart_unit"
    RESTART_CONTAINER = "restart_container"
    REMOVE_ROUTE = "remove_route"
    CHANGE_SETTING = "change_setting"
    INSPECT = "inspect"
    HUMAN = "human"


@dataclass(frozen=True, slots=True)
class Action:
    """A typed action: `command` is the exact argument list that a person would run on `host`."""

    kind: ActionKind
    host: AgentId
    target: Subject
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verification:
    """Proof of recovery: the same detector clears within `within_s` and does not reopen for `quiet_s`."""

    text: str
    within_s: float
    quiet_s: float


@dataclass(frozen=True, slots=True)
class Advice:
    """What a remedy says about an incident: the action, its price, its limits and its proof."""

    action: Action
    summary: str
    risk: str
    will_not_fix: str
    verification: Verification


class State(enum.StrEnum):
    """Where a recommendation stands; the table of moves is in `server/approvals.py`."""

    PROPOSED = "proposed"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    DONE = "done"
    LAPSED = "lapsed"
    VERIFIED = "verified"
    NOT_CURED = "not_cured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One cause on one host, folded from the reports that share it.

    `explained_by` names the open incident of which this one is a consequence: that one is to be decided.
    """

    id: IncidentId
    agent_id: AgentId
    fault_class: FaultClass
    fault_number: int | None
    subject: Subject
    target: Subject | None
    severity: Severity
    incarnation: Incarnation
    case_id: CaseId
    open: bool
    first_seen_ns: int
    last_seen_ns: int
    cleared_ns: int | None
    count: int
    reasons: tuple[Reason, ...] = field(default=())
    evidence: tuple[Evidence, ...] = field(default=())
    explained_by: IncidentId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """An advice bound to an incident, its evidence and its target's incarnation by `digest`.

    `approvers` may name one person while the state is still PROPOSED: then policy wants a second.
    """

    id: RecommendationId
    incident_id: IncidentId
    advice: Advice
    digest: str
    state: State
    created_ns: int
    approve_by_ns: int
    execute_by_ns: int | None = None
    decided_by: str | None = None
    decided_ns: int | None = None
    decision_reason: str | None = None
    approvers: tuple[str, ...] = ()
    done_by: str | None = None
    done_ns: int | None = None
    finished_ns: int | None = None
