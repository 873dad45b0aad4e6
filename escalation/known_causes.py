"""What is known to cause each fault class: a closed list, in our words.

Whoever guesses at a cause (a model that is asked for it) chooses from here, so that what is shown of the
guess is a sentence of ours. A class without a list, and whatever is not on it, is `unknown`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from escalation.model import FaultClass


@dataclass(frozen=True, slots=True)
class Cause:
    """A cause: its name for programs, and what it is, in words that continue "probably"."""

    code: str
    words: str


UNKNOWN: Final = Cause("unknown", "nothing that is on the list of known causes")

_BAD_BUILD = Cause("changed_image_or_flags", "another image, build or set of flags than the one that worked")
_DYING_DEVICE = Cause("failing_hardware", "hardware that is failing")
_EXPECTED_LOAD = Cause("more_load", "more requests, or longer ones, than it has room for")
_LEAK = Cause("leak", "something that takes more and more and gives nothing back")
_LIMIT_LOW = Cause("limit_too_low", "a limit that is lower than what the work needs")
_NEIGHBOUR = Cause("neighbour", "something else on the host that takes what it needs")
_PEER_GONE = Cause("peer_gone", "the other end: a rank, an engine or a host that ended or hangs")
_PATH = Cause("network_path", "the network between the two: a link, a route or a firewall")
_TEMPLATE = Cause("parser_or_template", "a chat template or parser that does not fit the model")
_NOT_STARTED = Cause("not_started", "a server that does not run, or is still loading its model")
_UPDATE = Cause("package_update", "a package update that replaced what was in use")

KNOWN_CAUSES: Final[Mapping[FaultClass, tuple[Cause, ...]]] = {
    FaultClass.CONTAINER_SHM_TOO_SMALL: (
        Cause("default_shm", "the 64 MB that a container has for shared memory unless it is given more"),
    ),
    FaultClass.CPU_CONTENTION: (_NEIGHBOUR, _EXPECTED_LOAD),
    FaultClass.CPU_QUOTA_THROTTLED: (_LIMIT_LOW, _EXPECTED_LOAD),
    FaultClass.DATABASE_CONNECTIONS_EXHAUSTED: (
        Cause("pools_too_large", "pools of connections that together want more than the database allows"),
        _LEAK,
    ),
    FaultClass.DISTRIBUTED_RANK_STALL: (
        _PEER_GONE,
        _PATH,
        Cause("long_prompt", "a prompt that is too long for the ranks to get through in time"),
    ),
    FaultClass.DISTRIBUTED_WORKER_LOST: (
        _PEER_GONE,
        _PATH,
        Cause("out_of_memory", "memory that ran out where the worker ran"),
    ),
    FaultClass.EXPOSURE_OFF_MESH_LISTENER: (
        Cause("wildcard_bind", "a service that was told to listen on every address"),
        Cause("published_port", "a container whose port is published beyond loopback"),
    ),
    FaultClass.EXPOSURE_OPEN_CONTROL_PLANE: (
        Cause("wildcard_bind", "a service that was told to listen on every address"),
        Cause("published_port", "a container whose port is published beyond loopback"),
    ),
    FaultClass.GPU_ACCESS_REVOKED: (
        Cause("daemon_reload", "a daemon-reload of systemd, which wrote the container's device rules anew"),
        _UPDATE,
        Cause("limits_changed", "somebody or something that changed the container's limits"),
    ),
    FaultClass.GPU_APPLICATION_XID: (
        Cause("application_defect", "a defect of the program or its kernels"),
        _BAD_BUILD,
        _DYING_DEVICE,
    ),
    FaultClass.GPU_CLOCKS_CAPPED: (
        Cause("power_supply", "a power supply that negotiated too little"),
        Cause("heat", "heat"),
        Cause("power_cap", "a power limit that somebody set"),
    ),
    FaultClass.GPU_CPU_FALLBACK: (
        Cause("gpu_not_found_at_start", "a GPU that could not be used when the server started"),
        Cause("does_not_fit", "a model that does not fit into the GPU's memory"),
        _BAD_BUILD,
    ),
    FaultClass.GPU_DEVICE_FAULT: (_DYING_DEVICE, Cause("heat", "heat"), Cause("driver_defect", "the driver")),
    FaultClass.GPU_DRIVER_MISMATCH: (_UPDATE,),
    FaultClass.GPU_NEVER_GRANTED: (
        Cause("not_asked_for", "a container that was started without asking for a GPU"),
        Cause("toolkit_absent", "a host on which the container toolkit is missing or not set up"),
    ),
    FaultClass.GPU_UVM_LOST: (
        Cause("resume", "a suspend and resume of the host"),
        Cause("module_unloaded", "a kernel module that was unloaded"),
    ),
    FaultClass.MEMORY_CGROUP_OOM_KILL: (_LIMIT_LOW, _LEAK, _EXPECTED_LOAD),
    FaultClass.MEMORY_PAGE_CACHE_REFUSAL: (
        Cause("cache_counted_as_used", "a server that counts the page cache as memory in use"),
    ),
    FaultClass.MEMORY_THRASHING: (_LIMIT_LOW, _NEIGHBOUR, _LEAK),
    FaultClass.MEMORY_UNIFIED_EXHAUSTION: (
        Cause("gpu_share_too_large", "a server that was allowed too large a share of the shared memory"),
        Cause("long_prompt", "long prompts, whose memory comes on top of the model's"),
        _NEIGHBOUR,
    ),
    FaultClass.MESH_DEGRADED: (
        Cause("key_expired", "a key that expired"),
        Cause("no_direct_path", "a firewall or NAT that leaves only a relay"),
        _PATH,
    ),
    FaultClass.MONITOR_BLIND: (
        Cause("source_stopped", "a source (a driver, the journal, a page of metrics) that is not there"),
        Cause("rights_missing", "rights that the agent was not given"),
        _UPDATE,
    ),
    FaultClass.NETWORK_RDMA_FAULT: (_PATH, _PEER_GONE, _DYING_DEVICE),
    FaultClass.NETWORK_RETRANSMISSION: (_PATH, _EXPECTED_LOAD),
    FaultClass.NETWORK_UPSTREAM_UNREACHABLE: (_NOT_STARTED, _PATH, _PEER_GONE),
    FaultClass.PROCESS_FD_EXHAUSTED: (_LIMIT_LOW, _LEAK, _EXPECTED_LOAD),
    FaultClass.PROCESS_KILLED_BY_SIGNAL: (
        Cause("application_defect", "a defect of the program or its kernels"),
        Cause("out_of_memory", "memory that ran out"),
        _BAD_BUILD,
        _DYING_DEVICE,
    ),
    FaultClass.PROCESS_NOT_ANSWERING: (
        Cause("stopped", "a process that was stopped (SIGSTOP) and not continued"),
        Cause("deadlock", "a deadlock in the program"),
        _EXPECTED_LOAD,
    ),
    FaultClass.PROCESS_UNINTERRUPTIBLE: (
        _DYING_DEVICE,
        Cause("stuck_mount", "a mount whose other end does not answer"),
        Cause("driver_defect", "a driver that hangs"),
    ),
    FaultClass.ROUTE_ANSWER_MISROUTED: (_TEMPLATE, _BAD_BUILD),
    FaultClass.ROUTE_BROKEN_STREAM: (_PEER_GONE, _PATH, Cause("engine_died", "an engine that ended")),
    FaultClass.ROUTE_CONTEXT_OVERFLOW: (
        Cause("context_too_small", "a context that was set smaller than the clients' prompts"),
        _EXPECTED_LOAD,
    ),
    FaultClass.ROUTE_DEGENERATE_OUTPUT: (
        Cause("damaged_quantisation", "a quantisation or kernel that does not work on this GPU"),
        _TEMPLATE,
        _BAD_BUILD,
    ),
    FaultClass.ROUTE_EMPTY_COMPLETION: (
        _TEMPLATE,
        Cause("failure_hidden_by_proxy", "a proxy that answers success where the engine failed"),
        _BAD_BUILD,
    ),
    FaultClass.ROUTE_ENGINE_STALLED: (
        _PEER_GONE,
        Cause("deadlock", "a deadlock in the engine"),
        Cause("long_prompt", "a prompt that the engine does not get through"),
        _EXPECTED_LOAD,
    ),
    FaultClass.ROUTE_ERRORS_RISING: (_PEER_GONE, _EXPECTED_LOAD, _BAD_BUILD),
    FaultClass.ROUTE_FAILS_REAL_TRAFFIC: (
        Cause("long_prompt", "prompts as long as real ones, which the checks do not send"),
        _TEMPLATE,
        _PEER_GONE,
    ),
    FaultClass.ROUTE_LATENCY_RISING: (
        _EXPECTED_LOAD,
        Cause("cpu_fallback", "a model that runs on the CPU"),
        _NEIGHBOUR,
    ),
    FaultClass.ROUTE_REASONING_BUDGET_EXHAUSTED: (
        _LIMIT_LOW,
        Cause("thinks_too_long", "a model that thinks longer than the clients allow for"),
    ),
    FaultClass.ROUTE_ROUTER_COOLDOWN: (_PEER_GONE, _NOT_STARTED, _EXPECTED_LOAD),
    FaultClass.ROUTE_SATURATED: (_EXPECTED_LOAD, _LIMIT_LOW),
    FaultClass.SCOPE_VIOLATION: (
        Cause("scope_too_narrow", "a scope that leaves out what the service needs"),
        Cause("service_changed", "a service that was changed, by its people or by somebody else"),
    ),
    FaultClass.SERVICE_CONFIG_DRIFT: (
        Cause("started_by_hand", "somebody who started it by hand"),
        Cause("deployed", "a deployment with other settings"),
    ),
    FaultClass.STORAGE_FULL: (
        Cause("models_and_images", "models and images that are kept and no longer used"),
        Cause("logs_and_metrics", "logs or metrics that grow"),
        _LEAK,
    ),
    FaultClass.STORAGE_READ_ONLY: (_DYING_DEVICE, Cause("filesystem_error", "an error in the filesystem")),
    FaultClass.STORAGE_SLOW_LOAD: (
        Cause("cold_cache", "a model that is read from the disk for the first time"),
        _NEIGHBOUR,
        _DYING_DEVICE,
    ),
    FaultClass.TRANSCRIPTION_CPU_FALLBACK: (
        Cause("gpu_not_found_at_start", "a GPU that could not be used when the server started"),
        _BAD_BUILD,
    ),
    FaultClass.UI_BLANK_ANSWERS: (
        Cause("fields_disagree", "an interface that reads another field than the server writes"),
        _BAD_BUILD,
    ),
    FaultClass.UNIT_RESTART_LOOP: (
        Cause("port_in_use", "a port that something else has"),
        Cause("settings_wrong", "settings with which it cannot start"),
        _NOT_STARTED,
    ),
    FaultClass.UNKNOWN: (),
}


def causes_of(fault_class: str) -> tuple[Cause, ...]:
    """Return the known causes of a fault class by its dotted name, `unknown` last."""
    name = fault_class.partition(":")[0]
    known = KNOWN_CAUSES.get(FaultClass(name), ()) if name in set(FaultClass) else ()
    return (*known, UNKNOWN)
