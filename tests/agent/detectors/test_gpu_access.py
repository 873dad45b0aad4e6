"""F17, F19 and F20: refused opens of NVIDIA nodes, and what only looks like them."""

from __future__ import annotations

import errno

import pytest

from agent.detector import CgroupLook, ProcessKey, World
from agent.detectors.gpu_access import Config, GpuAccess
from agent.finding import Finding, Place, Verdict
from agent.testing import (
    CGROUP_PATH,
    CONTAINER,
    HOST,
    SURROUNDINGS,
    blind,
    gpu_absent,
    gpu_state,
    open_case,
    opens,
    origin,
    present,
    reloaded,
    seeing,
    slept,
    tick,
)
from escalation.model import Device, FaultClass, ReasonCode, Severity, Subject, SubjectKind
from probes.gpu.facts import Absence
from probes.observation import CgroupId, DeviceOpens, NvidiaDevice, Observation, ServerKind

IN_CONTAINER = Subject(SubjectKind.CONTAINER, CONTAINER)
PLACE = Place(CgroupId(2305), CGROUP_PATH)
PROCESS = ProcessKey(4711, 100)
SENSOR = "kernel.device_open"


@pytest.fixture
def detector() -> GpuAccess:
    """A detector whose sensor sees."""
    made = GpuAccess.build(Config(), SURROUNDINGS)
    made.observe(seeing(0, SENSOR))
    return made


def absent(found: list[Finding], fault: FaultClass) -> list[Finding]:
    return [one for one in found if one.verdict is Verdict.ABSENT and one.fault_class is fault]


def test_refusal_after_success_is_a_revocation(detector: GpuAccess) -> None:
    """EPERM in a cgroup that had opened a node before: critical, with errno, counts and process."""
    (found,) = present(detector, opens(1, errno.EPERM, prior=7, count=3))
    assert (found.fault_class, found.severity, found.subject) == (
        FaultClass.GPU_ACCESS_REVOKED,
        Severity.CRITICAL,
        IN_CONTAINER,
    )
    assert found.reasons[0].code is ReasonCode.OPEN_REFUSED_AFTER_SUCCESS
    evidence = found.evidence[0]
    assert (evidence.device, evidence.errno, evidence.failures, evidence.prior_successes) == (  # type: ignore[union-attr]
        Device.CONTROL,
        errno.EPERM,
        3,
        7,
    )
    assert found.place == PLACE
    assert found.lifebound


def test_probing_without_a_gpu_stays_quiet(detector: GpuAccess) -> None:
    """EPERM in a container that never had a GPU is probing."""
    assert present(detector, opens(1, errno.EPERM, prior=0, count=13)) == []


def test_gpu_that_the_driver_excludes_stays_quiet(detector: GpuAccess) -> None:
    """EPERM on one GPU while the control node opens is the driver's own exclusion."""
    control = opens(1, 0)
    excluded = opens(2, errno.EPERM, device=NvidiaDevice.GPU, minor=1, prior=1)
    assert present(detector, control, excluded) == []


def test_gpu_that_had_opened_before_is_a_revocation_though_control_opens(detector: GpuAccess) -> None:
    """A node that this very cgroup had opened is not an excluded one."""
    story = (
        opens(1, 0),
        opens(1, 0, device=NvidiaDevice.GPU, minor=0),
        opens(2, errno.EPERM, device=NvidiaDevice.GPU, minor=0, prior=2),
    )
    assert [found.fault_class for found in present(detector, *story)] == [FaultClass.GPU_ACCESS_REVOKED]


def test_refusal_by_mode_says_so(detector: GpuAccess) -> None:
    """EACCES is the node's file mode, told apart in its reason and one step less grave."""
    (found,) = present(detector, opens(1, errno.EACCES, prior=1))
    assert found.reasons[0].code is ReasonCode.OPEN_REFUSED_BY_MODE
    assert found.severity is Severity.HIGH


def test_clears_when_every_refused_node_opens_again(detector: GpuAccess) -> None:
    """Success on one node of two refused is not recovery; on both it is."""
    detector.observe(opens(1, errno.EPERM, prior=2))
    detector.observe(opens(1, errno.EPERM, device=NvidiaDevice.UVM, prior=2))
    first = list(detector.observe(opens(2, 0)))
    second = list(detector.observe(opens(3, 0, device=NvidiaDevice.UVM)))
    assert absent(first, FaultClass.GPU_ACCESS_REVOKED) == []
    (over,) = absent(second, FaultClass.GPU_ACCESS_REVOKED)
    assert over.reasons[0].code is ReasonCode.OPEN_SUCCEEDS_AGAIN


@pytest.mark.parametrize(
    "look", [CgroupLook(exists=False), CgroupLook(exists=True, populated=True, same=False)]
)
def test_clears_when_the_cgroup_is_gone(detector: GpuAccess, look: CgroupLook) -> None:
    """A cgroup that vanished or was replaced under its old path can be refused nothing."""
    case = open_case(FaultClass.GPU_ACCESS_REVOKED, IN_CONTAINER, place=PLACE)
    (over,) = detector.tick(tick(5, case, world=World(cgroups={PLACE: look})))
    assert over.verdict is Verdict.ABSENT
    assert over.reasons[0].code is ReasonCode.CGROUP_GONE


@pytest.mark.parametrize("look", [None, CgroupLook(exists=True, populated=False, same=True)])
def test_keeps_open_while_the_cgroup_stands_or_is_unknown(
    detector: GpuAccess, look: CgroupLook | None
) -> None:
    """Neither an empty cgroup nor ignorance is recovery."""
    case = open_case(FaultClass.GPU_ACCESS_REVOKED, IN_CONTAINER, place=PLACE)
    assert detector.tick(tick(9e5, case, world=World(cgroups={PLACE: look} if look else {}))) == []


def test_is_unknown_while_the_sensor_is_blind(detector: GpuAccess) -> None:
    """Blindness says unknown of all three faults, whatever the world looks like."""
    detector.observe(blind(1, SENSOR))
    case = open_case(FaultClass.GPU_ACCESS_REVOKED, IN_CONTAINER, place=PLACE)
    found = detector.tick(tick(2, case, world=World(cgroups={PLACE: CgroupLook(exists=False)})))
    assert {one.verdict for one in found} == {Verdict.UNKNOWN}


def test_server_that_ends_without_a_node_never_had_a_gpu(detector: GpuAccess) -> None:
    """vLLM finds no control node and is gone at the next look: the GPU was never granted."""
    detector.observe(opens(1, errno.ENOENT))
    assert detector.watching() == (PROCESS,)
    (found,) = present(detector, tick(3, world=World(processes={PROCESS: False})))
    assert (found.fault_class, found.severity) == (FaultClass.GPU_NEVER_GRANTED, Severity.HIGH)
    assert found.reasons[0].code is ReasonCode.DEVICE_NODE_MISSING
    assert detector.watching() == ()


def test_cpu_image_that_probes_and_serves_stays_quiet(detector: GpuAccess) -> None:
    """A process that lives past the grace did not need what it looked for."""
    story = (
        opens(1, errno.ENOENT),
        tick(30, world=World(processes={PROCESS: True})),
        tick(62, world=World(processes={PROCESS: True})),
        tick(90, world=World(processes={PROCESS: False})),
    )
    assert present(detector, *story) == []


def test_server_that_falls_back_by_design_stays_quiet(detector: GpuAccess) -> None:
    """Ollama's discovery process always ends; a missing node is no fault there."""
    story = (
        opens(1, errno.ENOENT, where=origin(server=ServerKind.OLLAMA)),
        tick(3, world=World(processes={PROCESS: False})),
    )
    assert present(detector, *story) == []


def test_never_granted_clears_on_success_and_late_when_gone(detector: GpuAccess) -> None:
    """A crash loop takes its cgroup away between two lives, so that alone is not recovery for a day."""
    case = open_case(FaultClass.GPU_NEVER_GRANTED, IN_CONTAINER, place=PLACE)
    gone = World(cgroups={PLACE: CgroupLook(exists=False)})
    assert detector.tick(tick(3600, case, world=gone)) == []
    assert [one.verdict for one in detector.tick(tick(86400, case, world=gone))] == [Verdict.ABSENT]
    assert len(absent(list(detector.observe(opens(90000, 0))), FaultClass.GPU_NEVER_GRANTED)) == 1


@pytest.mark.parametrize("code", [errno.ENXIO, errno.ENOENT, errno.EIO])
def test_uvm_lost_is_the_hosts(detector: GpuAccess, code: int) -> None:
    """The memory node fails while the control node opens: a fault of the whole host."""
    (found,) = present(detector, opens(1, 0), opens(2, code, device=NvidiaDevice.UVM, prior=1))
    assert (found.fault_class, found.subject) == (
        FaultClass.GPU_UVM_LOST,
        Subject(SubjectKind.HOST, HOST),
    )
    over = detector.observe(opens(9, 0, device=NvidiaDevice.UVM, where=origin(cgroup_id=9)))
    assert len(absent(list(over), FaultClass.GPU_UVM_LOST)) == 1


def test_uvm_failure_without_a_control_node_stays_quiet(detector: GpuAccess) -> None:
    """Where the control node fails as well, no GPU was granted, and nothing was lost."""
    story = (opens(1, errno.ENOENT), opens(2, errno.ENOENT, device=NvidiaDevice.UVM))
    assert present(detector, *story) == []


def test_node_missing_in_one_container_only_stays_quiet(detector: GpuAccess) -> None:
    """Another cgroup opens the memory node, so the host has it."""
    other = origin(cgroup_id=9, container="d" * 64)
    story = (
        opens(1, 0, device=NvidiaDevice.UVM, where=other),
        opens(2, errno.ENOENT, device=NvidiaDevice.UVM, prior=1),
    )
    assert present(detector, *story) == []


def test_remembers_a_bounded_number_of_cgroups(detector: GpuAccess) -> None:
    """Ten thousand cgroups and processes cost a fixed amount of memory."""
    for number in range(3000):
        detector.observe(opens(1, errno.ENOENT, where=origin(cgroup_id=number, pid=number + 1)))
    assert len(detector.watching()) == 1024
    assert len(detector._cgroups) == 1024


def second(found: Finding) -> ReasonCode:
    """Return what a finding says of its second layer."""
    return found.reasons[1].code


def uvm(seconds: float, code: int = errno.ENXIO) -> DeviceOpens:
    """Return a failed open of the memory node, in a cgroup whose control node opens."""
    return opens(seconds, code, device=NvidiaDevice.UVM, prior=1)


def test_reload_before_a_revocation_is_its_second_layer(detector: GpuAccess) -> None:
    """The cgroup opened a node, the manager reloaded, the next open is refused."""
    (found,) = present(detector, opens(1, 0), reloaded(5), opens(90, errno.EPERM, prior=1))
    assert (found.reasons[1].code, found.reasons[1].window_s) == (ReasonCode.MANAGER_RELOADED_BEFORE, 85.0)


@pytest.mark.parametrize(
    "story",
    [
        (opens(2, errno.EPERM, prior=1),),
        (reloaded(5), opens(6, 0), opens(9, errno.EPERM, prior=1)),
        (reloaded(5), opens(5 + 86401, errno.EPERM, prior=1)),
        (reloaded(5), opens(6, errno.EACCES, prior=1)),
        (slept(5), opens(6, errno.EPERM, prior=1)),
    ],
    ids=["none", "opened-since", "long-ago", "mode", "a-sleep"],
)
def test_what_did_not_take_the_gpu_away_is_no_second_layer(
    detector: GpuAccess, story: tuple[Observation, ...]
) -> None:
    """No reload, one that the cgroup opened a node after, an old one, another errno, another event."""
    (found,) = present(detector, *story)
    assert second(found) is ReasonCode.SECOND_LAYER_UNKNOWN


def test_reload_that_is_told_late_is_joined_all_the_same(detector: GpuAccess) -> None:
    """The refusal was read first; the reload before it gives the case its second layer, once."""
    alone, joined = present(detector, opens(10.2, errno.EPERM, prior=1, count=4), reloaded(10), reloaded(11))
    assert (second(alone), alone.count) == (ReasonCode.SECOND_LAYER_UNKNOWN, 4)
    assert (second(joined), joined.count) == (ReasonCode.MANAGER_RELOADED_BEFORE, 1)
    assert joined.subject == alone.subject


def test_reload_after_a_refusal_explains_nothing(detector: GpuAccess) -> None:
    """A cause does not come after its effect."""
    assert len(present(detector, opens(10, errno.EPERM, prior=1), reloaded(12))) == 1


def test_sleep_before_the_memory_node_failed_is_its_second_layer(detector: GpuAccess) -> None:
    """Told before the failure or just after it, and not when the node opened since."""
    (found,) = present(detector, opens(1, 0), slept(50), uvm(60))
    assert second(found) is ReasonCode.HOST_SLEPT_BEFORE
    other = GpuAccess.build(Config(), SURROUNDINGS)
    alone, joined = present(other, seeing(0, SENSOR), opens(1, 0), uvm(49.8), slept(50))
    assert (second(alone), second(joined)) == (ReasonCode.SECOND_LAYER_UNKNOWN, ReasonCode.HOST_SLEPT_BEFORE)
    since = GpuAccess.build(Config(), SURROUNDINGS)
    (found,) = present(since, opens(1, 0), slept(50), opens(55, 0, device=NvidiaDevice.UVM), uvm(60))
    assert second(found) is ReasonCode.SECOND_LAYER_UNKNOWN


@pytest.mark.parametrize("event", [reloaded(43000), slept(5)])
def test_memory_node_that_failed_without_a_sleep_stays_alone(detector: GpuAccess, event: Observation) -> None:
    """A reload does not unload a module, and a sleep half a day before is too long ago."""
    (found,) = present(detector, opens(1, 0), event, uvm(43300))
    assert second(found) is ReasonCode.SECOND_LAYER_UNKNOWN


def test_joins_a_bounded_number_of_late_refusals(detector: GpuAccess) -> None:
    """Ten thousand refusals that wait for a cause cost a fixed amount of memory."""
    for number in range(3000):
        detector.observe(opens(1, errno.EPERM, prior=1, where=origin(cgroup_id=number)))
    assert len(detector._alone) == 64


def test_server_on_no_gpu_agrees_with_its_revocation(detector: GpuAccess) -> None:
    """Refused and listed nowhere: the list is the second layer, beside a reload where there is one."""
    (found,) = present(detector, gpu_state(9), opens(10, errno.EPERM, prior=1))
    assert second(found) is ReasonCode.NOT_LISTED_ON_GPU
    (both,) = present(detector, reloaded(20), gpu_state(20), opens(21, errno.EPERM, prior=1))
    assert [reason.code for reason in both.reasons[1:]] == [
        ReasonCode.MANAGER_RELOADED_BEFORE,
        ReasonCode.NOT_LISTED_ON_GPU,
    ]


@pytest.mark.parametrize(
    "told",
    [
        (gpu_state(9, origin()),),
        (gpu_state(9, listed=False),),
        (gpu_absent(9, Absence.NO_DRIVER, code=9),),
        (gpu_state(9), blind(9.5, "gpu.nvml")),
    ],
    ids=["listed", "not-told", "no-driver", "blind"],
)
def test_list_that_has_the_server_or_is_not_whole_says_nothing(
    detector: GpuAccess, told: tuple[Observation, ...]
) -> None:
    """What is open goes on working, so being listed contradicts nothing; what is unknown does not agree."""
    (found,) = present(detector, *told, opens(10, errno.EPERM, prior=1))
    assert (found.severity, second(found)) == (Severity.CRITICAL, ReasonCode.SECOND_LAYER_UNKNOWN)
