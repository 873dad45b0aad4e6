"""F17 gpu.access_revoked, F19 gpu.never_granted, F20 gpu.uvm_lost: opens of NVIDIA device nodes that fail.

The errno decides the cause. EPERM is the device cgroup: a revocation if this cgroup had opened a node
before, probing if it never had. EACCES is the node's mode. ENOENT is a missing node, ENXIO a node without a
driver behind it. Files that are open already go on working after a revocation, so the refused open is the
first sign there is.

A second layer is what took it away. For a revocation that is a reload of the service manager since the
cgroup last opened a node, because a reload applies device lists anew; for the lost memory module it is a
sleep of the host since anybody last opened it. Both are seen by other sensors, which may tell a moment later
than the refusal. A server that the driver lists on no GPU agrees with its revocation as well; one that is
listed says nothing, because what is open goes on working. docs/adr/0009-what-took-the-gpu-away.md

Three look-alikes stay quiet: a container that never had a GPU and probes for one (EPERM, no success
before); one GPU that the driver itself excludes (EPERM on that node while the control node opens); and a
CPU image that probes once and then serves (ENOENT, and its process lives on). The last is told apart from a
server that was promised a GPU by waiting `exit_grace_s` to see whether the process gave up.
"""

from __future__ import annotations

import errno
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Final, Self

from msgspec import Meta

from agent.bounded import entry, keep
from agent.detector import (
    DetectorConfig,
    FaultNote,
    ProcessKey,
    Surroundings,
    Tick,
    World,
    sight_after,
)
from agent.finding import Finding, Hysteresis, OpenCase, Verdict, absent, unknown
from agent.gpus.lists import GpuLists
from agent.host.antecedents import Antecedents
from agent.subjects import incarnation_of, place_of, process_name, subject_of, target_of
from escalation.model import (
    Device,
    DeviceOpenEvidence,
    FaultClass,
    Incarnation,
    Reason,
    ReasonCode,
    Severity,
    Subject,
    SubjectKind,
)
from probes.observation import (
    Blind,
    CgroupId,
    DeviceOpens,
    Gap,
    GpuAbsent,
    GpuState,
    Instant,
    ManagerReloaded,
    NvidiaDevice,
    Observation,
    SensorName,
    ServerKind,
    Suspended,
)

SENSOR = SensorName("kernel.device_open")
GPUS = SensorName("gpu.nvml")
MANAGER = SensorName("host.manager")
SLEEP = SensorName("host.suspend")
_REMEMBERED: Final = 1024
"""Cgroups and processes kept in mind; the oldest is forgotten first."""

_ALONE: Final = 64
"""Refusals without a second sign that a late one may still join."""

_NEEDS_GPU: Final = frozenset({ServerKind.VLLM, ServerKind.TENSORRT_LLM})
"""Servers that end when they find no GPU; the others fall back to the CPU, which is another fault."""

_UVM_ERRORS: Final = frozenset({errno.ENXIO, errno.ENOENT, errno.EIO})

_Node = tuple[NvidiaDevice, int | None]


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When refused opens become a case, and for how long they must succeed again."""

    open_after: Annotated[int, Meta(ge=1)] = 1
    open_window_s: Annotated[float, Meta(gt=0)] = 600.0
    clear_hold_s: Annotated[float, Meta(ge=0)] = 30.0
    exit_grace_s: Annotated[float, Meta(ge=0)] = 60.0
    never_granted_clear_after_s: Annotated[float, Meta(gt=0)] = 86400.0
    reload_window_s: Annotated[float, Meta(ge=0)] = 86400.0
    sleep_window_s: Annotated[float, Meta(ge=0)] = 43200.0


@dataclass(slots=True)
class _Cgroup:
    """What one cgroup's opens have shown: which nodes opened last, and which are refused now."""

    opened: set[_Node] = field(default_factory=set)
    refused: set[_Node] = field(default_factory=set)
    opened_at: Instant | None = None


@dataclass(slots=True)
class _Waiting:
    """An open that found no node; its process is given time to show whether it needed one."""

    opens: DeviceOpens
    subject: Subject


class GpuAccess:
    """Says who lost the GPU, who never got it, and when the driver's memory module is gone."""

    NAME: ClassVar[str] = "gpu_access"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=FaultClass.GPU_ACCESS_REVOKED,
            severity=(Severity.HIGH, Severity.CRITICAL),
            sensors=(MANAGER, GPUS, SENSOR),
            opens="A cgroup that had opened an NVIDIA node cannot open one any more: EPERM (the device "
            "cgroup, critical) or EACCES (the node's mode, high). A reload of the service manager since the "
            "last success, or no GPU that lists the server, is the second sign.",
            quiet="EPERM in a cgroup that never had a GPU; EPERM on one GPU while the control node opens and "
            "that GPU never had (excluded by the driver).",
            clears="The same cgroup opens the refused nodes again, or is gone; held for `clear_hold_s`.",
        ),
        FaultNote(
            fault_class=FaultClass.GPU_NEVER_GRANTED,
            severity=(Severity.HIGH,),
            sensors=(SENSOR,),
            opens="vLLM or TensorRT-LLM finds no control node (ENOENT), or may not open it (EACCES), and "
            "ends within `exit_grace_s`; its cgroup never had opened one.",
            quiet="A CPU image that probes and goes on serving; servers that fall back to the CPU by design.",
            clears="An open of the same container or unit succeeds; or its cgroup is gone and nothing was "
            "tried for `never_granted_clear_after_s`.",
        ),
        FaultNote(
            fault_class=FaultClass.GPU_UVM_LOST,
            severity=(Severity.HIGH,),
            sensors=(SLEEP, SENSOR),
            opens="`/dev/nvidia-uvm` fails with ENXIO, ENOENT or EIO for a cgroup whose control node opens. "
            "A sleep of the host since it last opened is the second sign.",
            quiet="The control node fails too (no GPU was granted); the node is missing in one container "
            "while another cgroup opens it.",
            clears="Any cgroup opens `/dev/nvidia-uvm` again; held for `clear_hold_s`.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._around = surroundings
        self._seeing_since: Instant | None = None
        self._cgroups: OrderedDict[CgroupId | Subject, _Cgroup] = OrderedDict()
        self._waiting: OrderedDict[ProcessKey, _Waiting] = OrderedDict()
        self._uvm_opened_by: set[CgroupId | Subject] = set()
        self._uvm_opened_at: Instant | None = None
        self._before = Antecedents(
            reload_window_s=config.reload_window_s, sleep_window_s=config.sleep_window_s
        )
        self._alone: deque[tuple[DeviceOpens, Subject, _Cgroup]] = deque(maxlen=_ALONE)
        self._uvm_alone: DeviceOpens | None = None
        self._lists = GpuLists()

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """The same for the three: rare and grave, so one refusal is enough by default."""
        rule = Hysteresis(
            open_after=self._config.open_after,
            open_window_s=self._config.open_window_s,
            clear_hold_s=self._config.clear_hold_s,
        )
        return {note.fault_class: rule for note in self.FAULTS}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Judge one run of opens, or follow the sensor's sight."""
        if isinstance(observation, Gap) and observation.sensor == SENSOR:
            self._seeing_since = sight_after(self._seeing_since, observation)
            return () if self._seeing_since else self._out_of_sight(observation.at)
        match observation:
            case ManagerReloaded() | Suspended():
                return self._joined(observation)
            case GpuState() | GpuAbsent():
                self._lists.take(observation)
                return ()
            case Gap(sensor=sensor, coverage=Blind()) if sensor == GPUS:
                self._lists.forget()
                return ()
            case DeviceOpens():
                pass
            case _:
                return ()
        subject = subject_of(observation.origin)
        if observation.errno == 0:
            return self._opened(observation, subject)
        return self._failed(observation, subject)

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Clear cases whose cgroup is gone; decide about servers that found no node."""
        if self._seeing_since is None:
            return self._out_of_sight(tick.now) if tick.open_cases else ()
        gone = [found for case in tick.open_cases if (found := self._gone(case, tick)) is not None]
        return [*gone, *self._gave_up(tick)]

    def watching(self) -> Sequence[ProcessKey]:
        """Ask for the processes that found no node."""
        return tuple(self._waiting)

    def _opened(self, opens: DeviceOpens, subject: Subject) -> Sequence[Finding]:
        cgroup = self._remember(opens, subject)
        node = (opens.device, opens.minor)
        cgroup.opened.add(node)
        cgroup.opened_at = opens.at
        cgroup.refused.discard(node)
        over = Reason(ReasonCode.OPEN_SUCCEEDS_AGAIN, count=opens.count)
        found = [absent(FaultClass.GPU_NEVER_GRANTED, subject, opens.at, over)]
        if not cgroup.refused:
            found.append(absent(FaultClass.GPU_ACCESS_REVOKED, subject, opens.at, over))
        if opens.device is NvidiaDevice.UVM:
            self._uvm_opened_by.add(_key(opens, subject))
            self._uvm_opened_at = opens.at
            host = Subject(SubjectKind.HOST, self._around.host)
            found.append(absent(FaultClass.GPU_UVM_LOST, host, opens.at, over))
        return found

    def _failed(self, opens: DeviceOpens, subject: Subject) -> Sequence[Finding]:
        cgroup = self._remember(opens, subject)
        node = (opens.device, opens.minor)
        had_access = opens.prior_successes > 0
        if opens.errno in {errno.EPERM, errno.EACCES} and had_access:
            excluded = (
                opens.errno == errno.EPERM
                and opens.device is NvidiaDevice.GPU
                and node not in cgroup.opened
                and any(device is NvidiaDevice.CONTROL for device, _ in cgroup.opened)
            )
            if excluded:
                return ()
            cgroup.refused.add(node)
            if opens.errno == errno.EPERM and self._reload_before(opens, cgroup) is None:
                self._alone.append((opens, subject, cgroup))
            return (self._revoked(opens, subject, cgroup),)
        if opens.device is NvidiaDevice.UVM and opens.errno in _UVM_ERRORS:
            return self._uvm_failed(opens, subject, cgroup)
        if opens.device is NvidiaDevice.CONTROL:
            cgroup.opened = {(device, minor) for device, minor in cgroup.opened if device != opens.device}
            needs = opens.origin.server in _NEEDS_GPU and opens.origin.pid is not None
            if opens.errno in {errno.ENOENT, errno.EACCES} and needs and not had_access:
                self._wait(opens, subject)
        return ()

    def _uvm_failed(self, opens: DeviceOpens, subject: Subject, cgroup: _Cgroup) -> Sequence[Finding]:
        control_fine = opens.prior_successes > 0 or any(
            device is NvidiaDevice.CONTROL for device, _ in cgroup.opened
        )
        here = _key(opens, subject)
        elsewhere = self._uvm_opened_by - {here}
        self._uvm_opened_by.discard(here)
        if not control_fine or (opens.errno == errno.ENOENT and elsewhere):
            return ()
        self._uvm_opened_by.clear()
        if self._sleep_before(opens) is None:
            self._uvm_alone = opens
        return (self._uvm_lost(opens),)

    def _uvm_lost(self, opens: DeviceOpens) -> Finding:
        code = (
            ReasonCode.DEVICE_NODE_MISSING
            if opens.errno == errno.ENOENT
            else ReasonCode.DRIVER_BEHIND_NODE_MISSING
        )
        return Finding(
            verdict=Verdict.PRESENT,
            fault_class=FaultClass.GPU_UVM_LOST,
            subject=Subject(SubjectKind.HOST, self._around.host),
            at=opens.at,
            severity=Severity.HIGH,
            incarnation=Incarnation(kernel_boot_id=self._around.kernel_boot_id),
            count=opens.count,
            lifebound=True,
            reasons=(
                Reason(code, count=opens.count, threshold=float(self._config.open_after)),
                self._sleep_before(opens) or Reason(ReasonCode.SECOND_LAYER_UNKNOWN),
            ),
            evidence=(_evidence(opens),),
        )

    def _joined(self, event: ManagerReloaded | Suspended) -> Sequence[Finding]:
        """Take note of what came before; say again what was refused after it and told before it."""
        self._before.take(event)
        if isinstance(event, Suspended):
            lost, self._uvm_alone = self._uvm_alone, None
            again = lost is not None and self._sleep_before(lost) is not None
            return (replace(self._uvm_lost(lost), count=1),) if lost is not None and again else ()
        waiting, self._alone = self._alone, deque(maxlen=_ALONE)
        return [
            replace(self._revoked(opens, subject, cgroup), count=1)
            for opens, subject, cgroup in waiting
            if self._reload_before(opens, cgroup) is not None
        ]

    def _second_layer(self, opens: DeviceOpens, subject: Subject, cgroup: _Cgroup) -> Sequence[Reason]:
        """Return what agrees with a refusal, or that nothing is known to."""
        told = [self._reload_before(opens, cgroup)]
        pids = () if opens.origin.pid is None else (opens.origin.pid,)
        if self._lists.lists(subject, pids, opens.at) is False:
            told.append(Reason(ReasonCode.NOT_LISTED_ON_GPU))
        return [reason for reason in told if reason] or [Reason(ReasonCode.SECOND_LAYER_UNKNOWN)]

    def _reload_before(self, opens: DeviceOpens, cgroup: _Cgroup) -> Reason | None:
        if opens.errno != errno.EPERM:  # a file's mode is nothing that a reload changes
            return None
        return self._before.reload_before(opens.at, last_success=cgroup.opened_at)

    def _sleep_before(self, opens: DeviceOpens) -> Reason | None:
        return self._before.sleep_before(opens.at, last_success=self._uvm_opened_at)

    def _revoked(self, opens: DeviceOpens, subject: Subject, cgroup: _Cgroup) -> Finding:
        by_mode = opens.errno == errno.EACCES
        code = ReasonCode.OPEN_REFUSED_BY_MODE if by_mode else ReasonCode.OPEN_REFUSED_AFTER_SUCCESS
        return Finding(
            verdict=Verdict.PRESENT,
            fault_class=FaultClass.GPU_ACCESS_REVOKED,
            subject=subject,
            target=target_of(opens.origin, subject),
            at=opens.at,
            severity=Severity.HIGH if by_mode else Severity.CRITICAL,
            incarnation=incarnation_of(opens.origin, self._around.kernel_boot_id),
            place=place_of(opens.origin),
            lifebound=True,
            count=opens.count,
            reasons=(
                Reason(code, count=opens.count, threshold=float(self._config.open_after)),
                *self._second_layer(opens, subject, cgroup),
            ),
            evidence=(_evidence(opens),),
        )

    def _wait(self, opens: DeviceOpens, subject: Subject) -> None:
        key = ProcessKey(opens.origin.pid or 0, opens.origin.start_ticks)
        if key not in self._waiting:
            keep(self._waiting, key, _Waiting(opens, subject), limit=_REMEMBERED)

    def _gave_up(self, tick: Tick) -> Sequence[Finding]:
        found = []
        for key, waiting in list(self._waiting.items()):
            alive = tick.world.processes.get(key)
            waited_s = tick.now.since_s(waiting.opens.at)
            if alive is False:
                del self._waiting[key]
                found.append(self._never_granted(waiting, waited_s))
            elif waited_s >= self._config.exit_grace_s:
                del self._waiting[key]
        return found

    def _never_granted(self, waiting: _Waiting, waited_s: float) -> Finding:
        opens = waiting.opens
        code = (
            ReasonCode.DEVICE_NODE_MISSING if opens.errno == errno.ENOENT else ReasonCode.OPEN_REFUSED_BY_MODE
        )
        return Finding(
            verdict=Verdict.PRESENT,
            fault_class=FaultClass.GPU_NEVER_GRANTED,
            subject=waiting.subject,
            target=target_of(opens.origin, waiting.subject),
            at=opens.at,
            severity=Severity.HIGH,
            incarnation=incarnation_of(opens.origin, self._around.kernel_boot_id),
            place=place_of(opens.origin),
            lifebound=waiting.subject.kind in {SubjectKind.CGROUP, SubjectKind.PROCESS},
            count=opens.count,
            reasons=(
                Reason(
                    code, count=opens.count, threshold=self._config.exit_grace_s, window_s=round(waited_s, 3)
                ),
            ),
            evidence=(_evidence(opens),),
        )

    def _gone(self, case: OpenCase, tick: Tick) -> Finding | None:
        if case.place is None or not _is_gone(case, tick.world):
            return None
        quiet_s = tick.now.since_s(case.last_seen)
        needed_s = 0.0
        if case.fault_class is FaultClass.GPU_NEVER_GRANTED:
            needed_s = self._config.never_granted_clear_after_s
        if quiet_s < needed_s:
            return None
        reason = Reason(ReasonCode.CGROUP_GONE, threshold=needed_s, window_s=round(quiet_s, 3))
        return absent(case.fault_class, case.subject, tick.now, reason)

    def _out_of_sight(self, at: Instant) -> Sequence[Finding]:
        return [unknown(note.fault_class, at) for note in self.FAULTS]

    def _remember(self, opens: DeviceOpens, subject: Subject) -> _Cgroup:
        key = _key(opens, subject)
        return entry(self._cgroups, key, _Cgroup, limit=_REMEMBERED)


def _key(opens: DeviceOpens, subject: Subject) -> CgroupId | Subject:
    return subject if opens.origin.cgroup_id is None else opens.origin.cgroup_id


def _is_gone(case: OpenCase, world: World) -> bool:
    look = world.cgroups.get(case.place) if case.place else None
    return look is not None and (not look.exists or look.same is False)


def _evidence(opens: DeviceOpens) -> DeviceOpenEvidence:
    return DeviceOpenEvidence(
        device=Device(opens.device.value),
        minor=opens.minor,
        errno=opens.errno,
        failures=opens.count,
        prior_successes=opens.prior_successes,
        process_name=process_name(opens.origin),
        pid=opens.origin.pid,
    )
