"""Every detector, sorted by name: adding one is a line here."""

from __future__ import annotations

from typing import Final

from agent.detector import Detector
from agent.detectors.blind_sensor import BlindSensor
from agent.detectors.config_drift import ConfigDrift
from agent.detectors.control_plane import OpenControlPlane
from agent.detectors.cpu_contention import CpuContention
from agent.detectors.cpu_quota import CpuQuota
from agent.detectors.database_sessions import DatabaseSessions
from agent.detectors.distributed_rank import DistributedRank
from agent.detectors.distributed_worker import DistributedWorker
from agent.detectors.fatal_signal import FatalSignalDetector
from agent.detectors.fd_exhausted import FdExhausted
from agent.detectors.gpu_access import GpuAccess
from agent.detectors.gpu_clocks import GpuClocks
from agent.detectors.gpu_driver import GpuDriverMismatch
from agent.detectors.gpu_placement import GpuPlacement
from agent.detectors.gpu_xid import GpuXids
from agent.detectors.memory_exhaustion import MemoryExhaustion
from agent.detectors.memory_thrashing import MemoryThrashing
from agent.detectors.mesh import MeshDegraded
from agent.detectors.network_rdma import NetworkRdma
from agent.detectors.network_retransmission import NetworkRetransmission
from agent.detectors.network_upstream import NetworkUpstream
from agent.detectors.not_answering import NotAnswering
from agent.detectors.off_mesh_listener import OffMeshListener
from agent.detectors.oom_kill import OomKillDetector
from agent.detectors.page_cache import PageCache
from agent.detectors.process_stuck import ProcessStuck
from agent.detectors.restart_loop import RestartLoop
from agent.detectors.route_answers import RouteAnswers
from agent.detectors.route_baseline import RouteBaseline
from agent.detectors.route_failures import RouteFailures
from agent.detectors.route_limits import RouteLimits
from agent.detectors.route_refusals import RouteRefusals
from agent.detectors.route_stall import RouteStall
from agent.detectors.scope import ScopeViolation
from agent.detectors.shared_memory import SharedMemory
from agent.detectors.storage_full import StorageFull
from agent.detectors.storage_read_only import StorageReadOnly
from agent.detectors.storage_slow_load import StorageSlowLoad
from agent.detectors.ui_answers import UiAnswers

DETECTORS: Final[tuple[type[Detector], ...]] = (
    BlindSensor,
    ConfigDrift,
    OpenControlPlane,
    CpuContention,
    CpuQuota,
    DatabaseSessions,
    DistributedRank,
    DistributedWorker,
    FatalSignalDetector,
    FdExhausted,
    GpuAccess,
    GpuClocks,
    GpuDriverMismatch,
    GpuPlacement,
    GpuXids,
    MemoryExhaustion,
    MemoryThrashing,
    MeshDegraded,
    NetworkRdma,
    NetworkRetransmission,
    NetworkUpstream,
    NotAnswering,
    OffMeshListener,
    OomKillDetector,
    PageCache,
    ProcessStuck,
    RestartLoop,
    RouteAnswers,
    RouteBaseline,
    RouteFailures,
    RouteLimits,
    RouteRefusals,
    RouteStall,
    ScopeViolation,
    SharedMemory,
    StorageFull,
    StorageReadOnly,
    StorageSlowLoad,
    UiAnswers,
)
