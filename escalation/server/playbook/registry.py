"""Which remedy answers which fault class: one explicit tuple, sorted, one line each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from escalation.model import Advice, FaultClass, Incident
from escalation.server.playbook import (
    access_revoked,
    killed_by_signal,
    monitor_blind,
    never_granted,
    off_mesh_listener,
    oom_kill,
    unknown_fault,
    uvm_lost,
)


@dataclass(frozen=True, slots=True)
class Remedy:
    """What is advised when an incident of `fault_class` is open; `advise` is pure and total."""

    fault_class: FaultClass
    advise: Callable[[Incident], Advice]


REMEDIES: Final[tuple[Remedy, ...]] = (
    Remedy(FaultClass.EXPOSURE_OFF_MESH_LISTENER, off_mesh_listener.advise),
    Remedy(FaultClass.GPU_ACCESS_REVOKED, access_revoked.advise),
    Remedy(FaultClass.GPU_NEVER_GRANTED, never_granted.advise),
    Remedy(FaultClass.GPU_UVM_LOST, uvm_lost.advise),
    Remedy(FaultClass.MEMORY_CGROUP_OOM_KILL, oom_kill.advise),
    Remedy(FaultClass.MONITOR_BLIND, monitor_blind.advise),
    Remedy(FaultClass.PROCESS_KILLED_BY_SIGNAL, killed_by_signal.advise),
    Remedy(FaultClass.UNKNOWN, unknown_fault.advise),
)

_BY_FAULT_CLASS: Final = {remedy.fault_class: remedy for remedy in REMEDIES}


def advise(incident: Incident) -> Advice:
    """Return what the playbook says about `incident`."""
    return _BY_FAULT_CLASS[incident.fault_class].advise(incident)
