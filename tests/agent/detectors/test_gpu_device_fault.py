"""F13 told by NVML: GPUs that are lost, ask for a reset or tell nothing, and what only looks like it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from agent.detectors.gpu_xid import Config, GpuXids
from agent.finding import Verdict
from agent.testing import (
    SURROUNDINGS,
    at,
    gpu_absent,
    gpu_driver,
    gpu_state,
    open_case,
    present,
    seeing,
    slept,
    tick,
    xid,
)
from escalation.model import GpuEvidence, ReasonCode, Severity
from probes.gpu.facts import Absence, Unread
from probes.gpu.protocol import NvmlCode
from probes.observation import Observation
from tests.agent.detectors.watched_gpus import DEVICE, GPU, PCI, TWO, WELL, codes, watching


@pytest.fixture
def detector() -> GpuXids:
    """A detector whose sensor sees a GPU that is well."""
    return watching()


def _well(*seconds: float) -> Sequence[Observation]:
    return [gpu_state(second, **WELL) for second in seconds]


def test_an_xid_and_a_lost_gpu_are_critical(detector: GpuXids) -> None:
    """Both layers, and the code that NVML gave."""
    *_, found = present(
        detector, xid(1, 79), *[gpu_absent(s, Absence.LOST, code=15, pci=PCI) for s in (1.5, 7)]
    )
    assert found.severity is Severity.CRITICAL
    assert codes(found) == [ReasonCode.GPU_IS_LOST, ReasonCode.XID_REPORTED]
    assert isinstance(found.evidence[0], GpuEvidence)
    assert (found.evidence[0].gpu, found.evidence[0].nvml_code) == (PCI, 15)


@pytest.mark.parametrize("why", [Absence.LOST, Absence.GONE])
def test_a_lost_gpu_is_high_after_a_moment_and_counted_once(detector: GpuXids, why: Absence) -> None:
    """A second of absence is none; an hour of it is one fault."""
    found = present(detector, *[gpu_absent(s, why, code=15, pci=PCI) for s in range(1, 60)])
    assert found[0].at == at(6)
    assert found[0].severity is Severity.HIGH
    assert codes(found[0]) == [ReasonCode.GPU_IS_LOST, ReasonCode.SECOND_LAYER_UNKNOWN]
    assert sum(f.count for f in found) == 1


def test_a_gpu_that_tells_nothing_at_all_is_high_after_it_was_asked_anew(detector: GpuXids) -> None:
    """Code 999 of everything: longer than a driver takes to start, and the time before it was lost counts."""
    mute = [gpu_absent(s, Absence.UNKNOWN, code=999, pci=PCI) for s in range(1, 60)]
    found = present(detector, *mute)
    assert (found[0].at, found[0].severity, sum(f.count for f in found)) == (at(46), Severity.HIGH, 1)
    assert codes(found[0]) == [ReasonCode.GPU_IS_LOST, ReasonCode.SECOND_LAYER_UNKNOWN]
    assert isinstance(found[0].evidence[0], GpuEvidence)
    assert found[0].evidence[0].nvml_code == 999
    detector.observe(gpu_state(60, **WELL))
    mute = [gpu_absent(s, Absence.UNKNOWN, code=999, pci=PCI) for s in range(61, 70)]
    (lost,) = present(detector, *mute, gpu_absent(70, Absence.LOST, code=15, pci=PCI))
    assert lost.at == at(70)


@pytest.mark.parametrize("why", [Absence.NO_PERMISSION, Absence.BLOCKED])
def test_a_gpu_that_refuses_to_be_asked_is_no_fault_of_it(detector: GpuXids, why: Absence) -> None:
    """That says something about whoever asks."""
    assert present(detector, *[gpu_absent(s, why, code=4, pci=PCI) for s in range(1, 90)]) == []


def test_reset_required_is_high_at_once(detector: GpuXids) -> None:
    """Code 16 leaves no doubt."""
    (found,) = present(detector, gpu_absent(1, Absence.RESET_REQUIRED, code=16, pci=PCI))
    assert (found.severity, codes(found)[0]) == (Severity.HIGH, ReasonCode.GPU_NEEDS_RESET)


def test_advice_of_the_driver_is_high_and_critical_with_an_xid(detector: GpuXids) -> None:
    """Field 230 alone, and then together with the Xid that led to it."""
    first, second, third = present(
        detector, gpu_state(1, recovery_action=2), xid(2, 154), xid(2, 119), gpu_state(3, recovery_action=2)
    )
    assert (first.severity, codes(first)[0]) == (Severity.HIGH, ReasonCode.RECOVERY_IS_ADVISED)
    assert second.severity is Severity.CRITICAL
    assert (third.severity, third.count) == (Severity.CRITICAL, 1)
    assert isinstance(third.evidence[0], GpuEvidence)
    assert third.evidence[0].recovery_action == 2


def test_a_change_of_advice_to_none_stays_quiet(detector: GpuXids) -> None:
    """154 tells of a change; what it changed to is read from the field."""
    assert present(detector, xid(1, 154), *_well(5, 15), tick(17), tick(30)) == []


def test_a_change_of_advice_that_cannot_be_read_is_a_note(detector: GpuXids) -> None:
    """A driver that has no such field leaves the question open."""
    (found,) = present(detector, gpu_state(0), xid(1, 154), gpu_state(15), tick(17), tick(30))
    assert (found.fault_class, found.severity) == (DEVICE, Severity.NOTE)


def _two(seconds: float) -> list[Observation]:
    return [gpu_state(seconds, pci=pci, index=i, **WELL) for i, pci in enumerate(TWO)]


def _gone(*seconds: float, pcis: Sequence[str] = TWO) -> list[Observation]:
    return [
        gpu_absent(second, Absence.LOST, code=15, pci=pci, index=TWO.index(pci))
        for second in seconds
        for pci in pcis
    ]


@pytest.fixture
def pair() -> GpuXids:
    """A detector that sees two GPUs."""
    made = GpuXids.build(Config(), SURROUNDINGS)
    for seen in (seeing(0, "gpu.nvml"), gpu_driver(0), *_two(0)):
        made.observe(seen)
    return made


def test_all_gpus_lost_at_once_are_the_drivers_doing(pair: GpuXids) -> None:
    """An unloaded or upgraded driver loses them together; the versions do not speak against it."""
    assert present(pair, *_gone(*range(1, 400))) == []
    upgraded = gpu_driver(401, module="575.57.08")
    assert present(pair, upgraded, *_gone(402, 403)) == []


def test_all_gpus_lost_under_a_driver_that_is_the_same_are_a_fault(pair: GpuXids) -> None:
    """A module that is loaded after the loss, in the installed version, was not unloaded."""
    found = present(pair, *_gone(1, 50), gpu_driver(60), *_gone(80))
    assert found == []
    found = present(pair, *_gone(92))
    assert {f.subject and f.subject.name for f in found} == set(TWO)


def test_one_of_two_lost_gpus_is_a_fault_of_its_own(pair: GpuXids) -> None:
    """The other one still answers."""
    found = present(pair, *_gone(1, pcis=TWO[1:]), gpu_state(7, pci=TWO[0], **WELL), *_gone(7, pcis=TWO[1:]))
    assert [f.subject and f.subject.name for f in found] == [TWO[1]]


def test_gpus_lost_one_after_the_other_are_faults(pair: GpuXids) -> None:
    """An hour apart is not at once."""
    found = present(pair, *_gone(1, 10, pcis=TWO[:1]), *_gone(3600, 3610, pcis=TWO[1:]))
    assert {f.subject and f.subject.name for f in found} == set(TWO)


def test_all_gpus_lost_with_an_xid_of_their_own_are_faults(pair: GpuXids) -> None:
    """Unloading a driver raises no Xid 79."""
    told = [xid(1, 79, pci=pci) for pci in TWO]
    found = present(pair, *told, *_gone(2, 8))
    assert [f.severity for f in found[-2:]] == [Severity.CRITICAL, Severity.CRITICAL]


def test_a_gpu_that_is_slow_to_wake_stays_quiet(detector: GpuXids) -> None:
    """After a sleep of the laptop it has a minute; then it is lost, and the sleep is said."""
    lost = [gpu_absent(s, Absence.LOST, code=15, pci=PCI) for s in (1, 30, 59)]
    assert present(detector, slept(1), *lost) == []
    (found,) = present(detector, gpu_absent(62, Absence.LOST, code=15, pci=PCI))
    assert codes(found) == [
        ReasonCode.GPU_IS_LOST,
        ReasonCode.SECOND_LAYER_UNKNOWN,
        ReasonCode.HOST_SLEPT_BEFORE,
    ]


@pytest.mark.parametrize(
    "why",
    [
        Absence.NO_DEVICE,
        Absence.NO_DRIVER,
        Absence.NO_LIBRARY,
        Absence.NO_PERMISSION,
        Absence.VERSION_MISMATCH,
        Absence.NOT_ANSWERING,
        Absence.BLOCKED,
    ],
)
def test_what_keeps_nvml_from_working_is_no_fault_of_a_gpu(detector: GpuXids, why: Absence) -> None:
    """Each is somebody else's case."""
    assert present(detector, *[gpu_absent(s, why) for s in range(1, 300, 30)]) == []


@pytest.mark.parametrize(
    "last",
    [
        [],
        [gpu_state(9000, recovery_action=1)],
        [gpu_state(9000, unread=(Unread("recovery_action", NvmlCode.TIMEOUT),))],
        [gpu_state(9000, recovery_action=0, remap_pending=True)],
        [gpu_state(9000, recovery_action=0, remap_failed=True)],
        [gpu_state(9000, **WELL), gpu_absent(9000, Absence.UNKNOWN, code=999, pci=PCI)],
        [gpu_state(9000, **WELL), seeing(9000, "gpu.nvml", lost=3)],
        [gpu_state(9000, **WELL, unread=(Unread("xids", NvmlCode.NOT_SUPPORTED),))],
    ],
)
def test_keeps_a_device_fault_open_without_positive_evidence(
    detector: GpuXids, last: Sequence[Observation]
) -> None:
    """A GPU that was not read, that is advised against, or whose Xids nobody would tell, is not well."""
    case = open_case(DEVICE, GPU, last_seen=at(0))
    for seen in last:
        detector.observe(seen)
    assert [f for f in detector.tick(tick(9001, case)) if f.verdict is Verdict.ABSENT] == []


@pytest.mark.parametrize("code", [NvmlCode.NOT_SUPPORTED, NvmlCode.INVALID_ARGUMENT])
def test_a_gpu_without_the_field_clears_by_its_answers(detector: GpuXids, code: NvmlCode) -> None:
    """A driver that has no word of recovery for this GPU, or none at all, keeps no case open for ever."""
    detector.observe(gpu_state(9000, unread=(Unread("recovery_action", code),)))
    (over,) = detector.tick(tick(9001, open_case(DEVICE, GPU)))
    assert over.verdict is Verdict.ABSENT
