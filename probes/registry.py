"""Every sensor of the product, one line each, sorted by name."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from probes.gpu import sensor as gpu
from probes.host import (
    clock,
    command_lines,
    drills,
    links,
    listeners,
    manager,
    mesh,
    peers,
    portable,
    pressure,
    processes,
    readiness,
    server_metrics,
    servers,
    sessions,
    storage,
    suspend,
    units,
    waits,
)
from probes.host.cgroups import CgroupMounts, CgroupPaths, find_mounts
from probes.host.identity import Identifier
from probes.host.known_servers import KnownServers
from probes.host.memory import MemoryFiles
from probes.host.model_servers import Servers
from probes.host.neighbours import CgroupUse
from probes.host.quotas import Quotas
from probes.http import routes
from probes.kernel import (
    block,
    cgroups as kernel_cgroups,
    descriptors,
    device_open,
    fatal_signal,
    http_capture,
    listener,
    oom_kill,
    reclaim,
    run_delay,
    scope,
    storage_error,
    task_hang,
    xid,
)
from probes.kernel.capture import capture_of
from probes.kernel.handover import Handover
from probes.kernel.peer_tables import PeerTables
from probes.kernel.programs import KernelProgram
from probes.logs import sensor as logs
from probes.observation import SensorName
from probes.sensor import Sensor
from probes.settings import SensorSettings


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What sensors are built from: the handover (None before the first), readers of the host, settings.

    `slow_identifier` has a memory of cgroups of its own, for all that is read on the other thread.
    """

    handover: Handover | None
    mounts: CgroupMounts
    cgroups: CgroupPaths
    identifier: Identifier
    slow_identifier: Identifier
    settings: SensorSettings = field(default_factory=SensorSettings)
    known_servers: KnownServers = field(default_factory=KnownServers)


@dataclass(frozen=True, slots=True)
class SensorSpec:
    """One sensor: its name, what it sees, how to build it, and its kernel program if it has one.

    `stands_in` is for one that is used only where the system is no Linux, because others see more there.
    """

    name: SensorName
    about: str
    period_s: float
    build: Callable[[Surroundings], Sensor]
    program: KernelProgram | None = None
    stands_in: bool = False


def surroundings(handover: Handover | None, settings: SensorSettings | None = None) -> Surroundings:
    """Return the real host's."""
    mounts = find_mounts()
    cgroups, slow = (CgroupPaths(root=mounts.unified, monotonic=time.monotonic) for _ in range(2))
    return Surroundings(
        handover,
        mounts,
        cgroups,
        identifier=Identifier(cgroups=cgroups),
        slow_identifier=Identifier(cgroups=slow),
        settings=settings or SensorSettings(),
    )


def sensors_of(platform: str) -> tuple[SensorSpec, ...]:
    """Return the sensors that an agent on `platform` (as `sys.platform` names it) is to have."""
    return tuple(spec for spec in SENSORS if not spec.stands_in or platform != "linux")


def programs() -> tuple[KernelProgram, ...]:
    """Return the kernel programs of all sensors that have one."""
    return tuple(spec.program for spec in SENSORS if spec.program is not None)


def _block(host: Surroundings) -> Sensor:
    return block.BlockSensor(handover=host.handover)


def _descriptors(host: Surroundings) -> Sensor:
    return descriptors.DescriptorsSensor(handover=host.handover, identifier=host.identifier)


def _device_open(host: Surroundings) -> Sensor:
    return device_open.DeviceOpenSensor(
        handover=host.handover, identifier=host.identifier, cgroups=host.cgroups
    )


def _fatal_signal(host: Surroundings) -> Sensor:
    return fatal_signal.FatalSignalSensor(handover=host.handover, identifier=host.identifier)


def _gpu_nvml(host: Surroundings) -> Sensor:
    return gpu.NvmlSensor(identifier=host.identifier, clock=clock.now)


def _command_lines(host: Surroundings) -> Sensor:
    return command_lines.CommandLineSensor(
        identifier=host.identifier,
        rules=host.settings.scopes,
        root=host.mounts.unified,
        settings=host.settings.command_lines,
    )


def _host_drills(_: Surroundings) -> Sensor:
    return drills.DrillsSensor()


def _host_links(_: Surroundings) -> Sensor:
    return links.LinksSensor()


def _host_listeners(host: Surroundings) -> Sensor:
    return listeners.HostListeners(identifier=host.slow_identifier, root=host.mounts.unified)


def _host_log_files(host: Surroundings) -> Sensor:
    return logs.file_sensor(identifier=host.identifier, settings=host.settings.logs)


def _host_logs(host: Surroundings) -> Sensor:
    return logs.journal_sensor(identifier=host.identifier, settings=host.settings.logs)


def _host_manager(_: Surroundings) -> Sensor:
    return manager.ManagerSensor()


def _host_memory(_: Surroundings) -> Sensor:
    return pressure.MemorySensor()


def _host_portable(_: Surroundings) -> Sensor:
    return portable.PortableSensor()


def _host_server_metrics(host: Surroundings) -> Sensor:
    return server_metrics.ServerMetricsSensor(endpoints=host.settings.metrics_endpoints)


def _host_sessions(host: Surroundings) -> Sensor:
    identifier = host.slow_identifier
    servers_here = Servers(identifier=identifier, root=host.mounts.unified, monotonic=time.monotonic)
    return sessions.SessionSensor(origin=servers_here.origin)


def _host_peers(host: Surroundings) -> Sensor:
    tables = PeerTables(handover=host.handover)
    return peers.PeerSensor(tables=tables, identifier=host.slow_identifier)


def _host_pressure(host: Surroundings) -> Sensor:
    return waits.PressureSensor(
        identifier=host.slow_identifier,
        known=host.known_servers,
        quotas=Quotas(mounts=host.mounts),
        root=host.mounts.unified,
    )


def _host_processes(host: Surroundings) -> Sensor:
    return processes.ProcessesSensor(
        identifier=host.slow_identifier, known=host.known_servers, mounts=host.mounts
    )


def _host_readiness(host: Surroundings) -> Sensor:
    return readiness.ReadinessSensor(known=host.known_servers)


def _host_servers(host: Surroundings) -> Sensor:
    return servers.ServersSensor(
        identifier=host.slow_identifier, root=host.mounts.unified, known=host.known_servers
    )


def _host_storage(host: Surroundings) -> Sensor:
    return storage.StorageSensor(settings=host.settings.storage)


def _host_suspend(_: Surroundings) -> Sensor:
    return suspend.SuspendSensor()


def _http_routes(host: Surroundings) -> Sensor:
    servers_here = Servers(identifier=host.identifier, root=host.mounts.unified, monotonic=time.monotonic)
    return routes.RouteSensor(capture=capture_of(host.handover), servers=servers_here)


def _host_units(_: Surroundings) -> Sensor:
    return units.UnitsSensor()


def _kernel_cgroups(host: Surroundings) -> Sensor:
    return kernel_cgroups.CgroupsSensor(handover=host.handover)


def _mesh_tailscale(host: Surroundings) -> Sensor:
    return mesh.TailscaleSensor(socket=host.settings.tailscale.socket)


def _listener(host: Surroundings) -> Sensor:
    return listener.ListenerSensor(handover=host.handover, identifier=host.identifier)


def _oom_kill(host: Surroundings) -> Sensor:
    memory = MemoryFiles(mounts=host.mounts)
    return oom_kill.OomKillSensor(handover=host.handover, identifier=host.identifier, memory=memory)


def _storage_error(host: Surroundings) -> Sensor:
    return storage_error.StorageErrorSensor(
        handover=host.handover, identifier=host.identifier, cgroups=host.cgroups
    )


def _reclaim(host: Surroundings) -> Sensor:
    return reclaim.ReclaimSensor(
        handover=host.handover, identifier=host.slow_identifier, root=host.mounts.unified
    )


def _run_delay(host: Surroundings) -> Sensor:
    return run_delay.RunDelaySensor(
        handover=host.handover, known=host.known_servers, use=CgroupUse(mounts=host.mounts)
    )


def _task_hang(host: Surroundings) -> Sensor:
    return task_hang.TaskHangSensor(handover=host.handover, identifier=host.identifier)


def _scope(host: Surroundings) -> Sensor:
    return scope.ScopeSensor(
        handover=host.handover,
        identifier=host.identifier,
        rules=host.settings.scopes,
        root=host.mounts.unified,
    )


def _xid(host: Surroundings) -> Sensor:
    return xid.XidSensor(handover=host.handover)


SENSORS: tuple[SensorSpec, ...] = (
    SensorSpec(gpu.NAME, "NVIDIA GPUs: state, processes, Xids, versions of the driver", 1.0, _gpu_nvml),
    SensorSpec(command_lines.NAME, "how model servers were started, by keyed prints", 30.0, _command_lines),
    SensorSpec(
        drills.NAME, "drills: faults that root makes on purpose, to see them noticed", 0.5, _host_drills
    ),
    SensorSpec(links.NAME, "carriers of network hardware, errors of RDMA ports", 10.0, _host_links),
    SensorSpec(listeners.NAME, "every listening TCP socket of the host", 60.0, _host_listeners),
    SensorSpec(logs.FILES, "lines of known patterns in the files that [logs] names", 0.25, _host_log_files),
    SensorSpec(logs.JOURNAL, "lines of known patterns in the journal, the kernel's too", 0.25, _host_logs),
    SensorSpec(manager.NAME, "reloads of the service manager", 0.25, _host_manager),
    SensorSpec(pressure.NAME, "memory that is left, and stalls for want of it", 0.5, _host_memory),
    SensorSpec(peers.NAME, "peers that cannot be reached, and segments lost", 10.0, _host_peers),
    SensorSpec(portable.NAME, "memory and listeners, without Linux", 15.0, _host_portable, stands_in=True),
    SensorSpec(waits.NAME, "who waits for processors, memory and disks", 5.0, _host_pressure),
    SensorSpec(processes.NAME, "processes that do not get on, connections not taken", 15.0, _host_processes),
    SensorSpec(readiness.NAME, "servers that do not listen yet", readiness.PERIOD_S, _host_readiness),
    SensorSpec(server_metrics.NAME, "numbers that servers tell of themselves", 15.0, _host_server_metrics),
    SensorSpec(servers.NAME, "cores that each model server keeps busy", 5.0, _host_servers),
    SensorSpec(sessions.NAME, "connections that databases and cluster heads hold", 10.0, _host_sessions),
    SensorSpec(storage.NAME, "space, inodes and read-only mounts", storage.SAMPLE_S, _host_storage),
    SensorSpec(suspend.NAME, "sleep of the host", 0.5, _host_suspend),
    SensorSpec(units.NAME, "services that end, are given up or stay up", 5.0, _host_units),
    SensorSpec(
        http_capture.NAME,
        "answers of model servers, at their sockets",
        0.25,
        _http_routes,
        http_capture.PROGRAM,
    ),
    SensorSpec(block.NAME, "how long disks take to read and write", 15.0, _block, block.PROGRAM),
    SensorSpec(
        kernel_cgroups.NAME,
        "cgroups of services and containers that come and go",
        0.5,
        _kernel_cgroups,
        kernel_cgroups.PROGRAM,
    ),
    SensorSpec(
        descriptors.NAME,
        "processes that run out of descriptors",
        0.5,
        _descriptors,
        descriptors.PROGRAM,
    ),
    SensorSpec(
        device_open.NAME, "opens of NVIDIA device nodes, by result", 0.25, _device_open, device_open.PROGRAM
    ),
    SensorSpec(
        fatal_signal.NAME, "processes ended by a fault signal", 0.25, _fatal_signal, fatal_signal.PROGRAM
    ),
    SensorSpec(listener.NAME, "TCP sockets that begin or stop listening", 0.25, _listener, listener.PROGRAM),
    SensorSpec(oom_kill.NAME, "processes killed for want of memory", 0.25, _oom_kill, oom_kill.PROGRAM),
    SensorSpec(
        reclaim.NAME, "control groups that must make room for themselves", 5.0, _reclaim, reclaim.PROGRAM
    ),
    SensorSpec(
        run_delay.NAME, "waits of servers' threads for a processor", 5.0, _run_delay, run_delay.PROGRAM
    ),
    SensorSpec(scope.NAME, "breaches of declared scopes", 0.25, _scope, scope.PROGRAM),
    SensorSpec(
        storage_error.NAME,
        "disks and filesystems that fail, writes that are refused",
        0.25,
        _storage_error,
        storage_error.PROGRAM,
    ),
    SensorSpec(task_hang.NAME, "tasks that the kernel found stuck", 0.25, _task_hang, task_hang.PROGRAM),
    SensorSpec(xid.NAME, "errors (Xid) by the NVIDIA driver's tracepoint", 0.25, _xid, xid.PROGRAM),
    SensorSpec(mesh.NAME, "how the private mesh is, by its daemon", 30.0, _mesh_tailscale),
)
