"""Every drill there is, one line each, sorted; and why the other classes of fault have none."""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.drills import full_disk
from agent.drills.stage import DrillError, Stage
from escalation.model import FaultClass

_MEMORY_BYTES: Final = 64 << 20
_PORTS: Final = range(20_000, 32_768)
_TRIES: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Belongings:
    """What a drill announces beside its unit or control group."""

    ports: tuple[int, ...] = ()
    mounts: tuple[str, ...] = ()


def _ground(stage: Stage) -> str | None:
    if stage.theatre.systemd or stage.theatre.unified is not None:
        return None
    return "a drill needs systemd, or control groups of version 2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """One drill: what it does in a sentence, which sensors have to see, and how the fault is made.

    `needs` returns what this host lacks for it, or nothing; `prepare` what else will be its own; `make` makes
    the fault. Taking it away is the same for all (`remains.py`).
    """

    fault_class: FaultClass
    about: str
    sensors: tuple[str, ...]
    make: Callable[[Stage, Belongings], None]
    needs: Callable[[Stage], str | None] = _ground
    prepare: Callable[[Stage], Belongings] = lambda _: Belongings()


def _memory(stage: Stage) -> str | None:
    if stage.theatre.systemd or stage.theatre.memory is not None:
        return _ground(stage)
    return "no control group here can limit memory"


def _systemd(stage: Stage) -> str | None:
    return None if stage.theatre.systemd else "systemd does not run this host"


def _free_port(host: str) -> Belongings:
    """Return a port that nobody has, below those that the kernel gives to clients and could give away."""
    for _ in range(_TRIES):
        port = _PORTS.start + secrets.randbelow(len(_PORTS))
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
            probe.bind((host, port))
            return Belongings(ports=(port,))
    raise DrillError("no port is free")


def _off_mesh_listener(stage: Stage, own: Belongings) -> None:
    stage.play("listen", str(own.ports[0]))


def _access_revoked(stage: Stage, _: Belongings) -> None:
    stage.play("lose")


def _oom_kill(stage: Stage, _: Belongings) -> None:
    stage.play("eat", str(_MEMORY_BYTES), memory_bytes=_MEMORY_BYTES)


def _killed_by_signal(stage: Stage, _: Belongings) -> None:
    stage.play("die", str(int(stage.id.rpartition("-")[2], 16)))


def _no_descriptors(stage: Stage, _: Belongings) -> None:
    stage.play("starve", "32")


def _not_answering(stage: Stage, own: Belongings) -> None:
    stage.play("stall", str(own.ports[0]))


def _point(stage: Stage) -> Belongings:
    return Belongings(mounts=(str(stage.theatre.mounts / stage.id),))


def _full_disk(stage: Stage, own: Belongings) -> None:
    full_disk.make(stage, Path(own.mounts[0]))


def _restart_loop(stage: Stage, _: Belongings) -> None:
    stage.run_unit(
        ("/bin/false",),
        properties=(
            "Restart=always",
            "RestartSec=200ms",
            "StartLimitIntervalSec=60",
            "StartLimitBurst=5",
        ),
    )


DRILLS: Final[tuple[Drill, ...]] = (
    Drill(
        fault_class=FaultClass.EXPOSURE_OFF_MESH_LISTENER,
        about="a process listens on all addresses of an unused port and drops every packet unanswered",
        sensors=("host.listeners",),
        prepare=lambda _: _free_port("0.0.0.0"),  # noqa: S104 -- that is the drill
        make=_off_mesh_listener,
    ),
    Drill(
        fault_class=FaultClass.GPU_ACCESS_REVOKED,
        about="a process with a /dev of its own opens a file named like a GPU's node, then is refused it",
        sensors=("kernel.device_open",),
        make=_access_revoked,
    ),
    Drill(
        fault_class=FaultClass.MEMORY_CGROUP_OOM_KILL,
        about="a process fills a control group of its own, limited to 64 MiB, until the kernel kills it",
        sensors=("kernel.oom_kill",),
        needs=_memory,
        make=_oom_kill,
    ),
    Drill(
        fault_class=FaultClass.PROCESS_FD_EXHAUSTED,
        about="a process that is limited to 32 descriptors opens more",
        sensors=("kernel.descriptors",),
        make=_no_descriptors,
    ),
    Drill(
        fault_class=FaultClass.PROCESS_KILLED_BY_SIGNAL,
        about="a process that is named like a model server's dies by SIGSEGV and leaves no core",
        sensors=("kernel.fatal_signal",),
        make=_killed_by_signal,
    ),
    Drill(
        fault_class=FaultClass.PROCESS_NOT_ANSWERING,
        about="a process listens on loopback, is stopped, and leaves two connections of its own waiting",
        sensors=("host.processes",),
        prepare=lambda _: _free_port("127.0.0.1"),
        make=_not_answering,
    ),
    Drill(
        fault_class=FaultClass.STORAGE_FULL,
        about="a filesystem of its own, 16 MiB in memory, is filled until writes to it are refused",
        sensors=("host.storage",),
        needs=full_disk.lacking,
        prepare=_point,
        make=_full_disk,
    ),
    Drill(
        fault_class=FaultClass.UNIT_RESTART_LOOP,
        about="a transient service ends with an error five times, until systemd gives it up",
        sensors=("host.units",),
        needs=_systemd,
        make=_restart_loop,
    ),
)

_GPU: Final = "a GPU's faults cannot be made without harm to what runs on it"
_TRAFFIC: Final = "it would need false answers in the traffic of a route that people use"
_OTHERS: Final = "it needs a part of the fleet beyond this host"

WITHOUT: Final[Mapping[FaultClass, str]] = {
    FaultClass.CONTAINER_SHM_TOO_SMALL: "it would need a container of its own, and no image is known here",
    FaultClass.CPU_CONTENTION: "it slows the servers that it would have to be measured on",
    FaultClass.CPU_QUOTA_THROTTLED: "only the quotas of real servers are watched, and they are not touched",
    FaultClass.DATABASE_CONNECTIONS_EXHAUSTED: "it would turn real clients of the database away",
    FaultClass.DISTRIBUTED_RANK_STALL: _OTHERS,
    FaultClass.DISTRIBUTED_WORKER_LOST: _OTHERS,
    FaultClass.EXPOSURE_OPEN_CONTROL_PLANE: (
        "the ports of control planes are fixed, and one that is free now may be wanted in a moment; the "
        "drill of exposure.off_mesh_listener proves the same sensors"
    ),
    FaultClass.GPU_APPLICATION_XID: _GPU,
    FaultClass.GPU_CLOCKS_CAPPED: _GPU,
    FaultClass.GPU_CPU_FALLBACK: _TRAFFIC,
    FaultClass.GPU_DEVICE_FAULT: _GPU,
    FaultClass.GPU_DRIVER_MISMATCH: _GPU,
    FaultClass.GPU_NEVER_GRANTED: "it would need a container of its own, and no image is known here",
    FaultClass.GPU_UVM_LOST: _GPU,
    FaultClass.MEMORY_PAGE_CACHE_REFUSAL: "it would fill the host's page cache",
    FaultClass.MEMORY_THRASHING: "it would slow everything that reads from the same disk",
    FaultClass.MEMORY_UNIFIED_EXHAUSTION: "it would take the memory that the host itself needs",
    FaultClass.MESH_DEGRADED: "it would cut this host off from its mesh",
    FaultClass.MONITOR_BLIND: "switch a sensor off in the configuration instead, and reload",
    FaultClass.NETWORK_RDMA_FAULT: _OTHERS,
    FaultClass.NETWORK_RETRANSMISSION: "it would drop packets of a path that is used",
    FaultClass.NETWORK_UPSTREAM_UNREACHABLE: _TRAFFIC,
    FaultClass.PROCESS_UNINTERRUPTIBLE: "a process that hangs in the kernel may hang for good",
    FaultClass.ROUTE_ANSWER_MISROUTED: _TRAFFIC,
    FaultClass.ROUTE_BROKEN_STREAM: _TRAFFIC,
    FaultClass.ROUTE_CONTEXT_OVERFLOW: _TRAFFIC,
    FaultClass.ROUTE_DEGENERATE_OUTPUT: _TRAFFIC,
    FaultClass.ROUTE_EMPTY_COMPLETION: _TRAFFIC,
    FaultClass.ROUTE_ENGINE_STALLED: _TRAFFIC,
    FaultClass.ROUTE_ERRORS_RISING: _TRAFFIC,
    FaultClass.ROUTE_FAILS_REAL_TRAFFIC: _TRAFFIC,
    FaultClass.ROUTE_LATENCY_RISING: _TRAFFIC,
    FaultClass.ROUTE_REASONING_BUDGET_EXHAUSTED: _TRAFFIC,
    FaultClass.ROUTE_ROUTER_COOLDOWN: _TRAFFIC,
    FaultClass.ROUTE_SATURATED: _TRAFFIC,
    FaultClass.SCOPE_VIOLATION: "it would have to be done inside a scope that somebody declared",
    FaultClass.SERVICE_CONFIG_DRIFT: "it would have to restart a real server with other settings",
    FaultClass.STORAGE_READ_ONLY: "it would need an error of a filesystem, which the kernel's log keeps",
    FaultClass.STORAGE_SLOW_LOAD: "it would slow a disk that is used",
    FaultClass.TRANSCRIPTION_CPU_FALLBACK: _TRAFFIC,
    FaultClass.UI_BLANK_ANSWERS: _TRAFFIC,
}
"""Said by `nanobot-agent drill --list`, so that nobody takes a class without a drill for a proven one."""


def drill_of(name: str) -> Drill:
    """Return the drill of the fault class `name`; raise DrillError with the reason where there is none."""
    for drill in DRILLS:
        if drill.fault_class.value == name:
            return drill
    for fault_class, why in WITHOUT.items():
        if fault_class.value == name:
            raise DrillError(f"{name} has no drill: {why}")
    raise DrillError(f"there is no fault class {name}; nanobot-agent drill --list names them")
