"""F12 and F13: whose fault an Xid is, what NVML adds to it, and every look-alike."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, strategies as st

from agent.cases import CaseBook
from agent.detector import Tick
from agent.detectors.gpu_xid import Config, GpuXids
from agent.finding import Finding, Verdict
from agent.gpus.table import GPUS_MAX
from agent.testing import (
    CONTAINER,
    HOST,
    KERNEL_BOOT,
    SURROUNDINGS,
    at,
    blind,
    gpu_absent,
    gpu_driver,
    gpu_state,
    open_case,
    origin,
    present,
    seeing,
    slept,
    tick,
    xid,
)
from escalation.model import (
    BootId,
    CasePhase,
    FaultClass,
    GpuEvidence,
    ReasonCode,
    Report,
    Severity,
    Subject,
    SubjectKind,
    XidEvidence,
)
from escalation.wire.codec import decode, encode
from probes.gpu.facts import Absence, Unread, XidSource
from probes.gpu.protocol import NvmlCode
from probes.observation import BlindReason, Observation, Origin, ServerKind

APPLICATION, DEVICE = FaultClass.GPU_APPLICATION_XID, FaultClass.GPU_DEVICE_FAULT
PCI = "000f:01:00.0"
GPU = Subject(SubjectKind.GPU, PCI)
ENGINE = origin()
OTHER = origin(
    container=None,
    unit="whisper.service",
    cgroup_id=7,
    cgroup_path="/system.slice/whisper.service",
    pid=99,
    name="python3",
    server=ServerKind.WHISPER,
)
WELL = {"recovery_action": 0, "remap_pending": False, "remap_failed": False}
TWO = ("0000:1b:00.0", "0000:43:00.0")


@pytest.fixture
def detector() -> GpuXids:
    """A detector whose sensor sees a GPU that is well."""
    made = GpuXids.build(Config(), SURROUNDINGS)
    made.observe(seeing(0, "gpu.nvml"))
    made.observe(gpu_state(0, **WELL))
    return made


def _codes(finding: Finding) -> list[ReasonCode]:
    return [reason.code for reason in finding.reasons]


def _xids(finding: Finding) -> list[tuple[int, int, int]]:
    return [(e.number, e.count, e.sources) for e in finding.evidence if isinstance(e, XidEvidence)]


def _well(*seconds: float) -> Sequence[Observation]:
    return [gpu_state(second, **WELL) for second in seconds]


@pytest.mark.parametrize("number", [13, 31])
def test_one_fault_of_a_program_is_a_note(detector: GpuXids, number: int) -> None:
    """A bad pointer is that program's bug; the case says that nobody knows whose."""
    (found,) = present(detector, xid(1, number))
    assert (found.fault_class, found.subject, found.severity) == (APPLICATION, GPU, Severity.NOTE)
    assert _codes(found) == [ReasonCode.XID_REPORTED, ReasonCode.SECOND_LAYER_UNKNOWN]
    assert _xids(found) == [(number, 1, 1)]
    assert found.target is None


@pytest.mark.parametrize("number", [8, 32, 69, 94, 70, 139])
def test_other_errors_of_a_program_are_medium(detector: GpuXids, number: int) -> None:
    """The program has to be started again."""
    (found,) = present(detector, xid(1, number))
    assert (found.fault_class, found.severity) == (APPLICATION, Severity.MEDIUM)


def test_a_program_that_errs_again_and_again_is_medium(detector: GpuXids) -> None:
    """The third 31 within an hour; one an hour ago does not count."""
    told = [xid(second, 31, where=ENGINE) for second in (1, 4000, 4010, 4020)]
    found = present(detector, *told)
    assert [f.severity for f in found] == [Severity.NOTE, Severity.NOTE, Severity.NOTE, Severity.MEDIUM]


def test_the_same_error_of_several_programs_is_suspicion_of_the_hardware(detector: GpuXids) -> None:
    """High, and nothing to restart: no one program is to blame."""
    *_, found = present(detector, xid(1, 31, where=ENGINE), xid(60, 31, where=OTHER))
    assert (found.fault_class, found.severity, found.target) == (APPLICATION, Severity.HIGH, None)
    assert found.reasons[1].code is ReasonCode.XID_FROM_SEVERAL_PROCESSES
    assert found.reasons[1].count == 2
    assert not found.lifebound


def test_one_server_started_anew_and_its_workers_are_one_program(detector: GpuXids) -> None:
    """Another pid, another worker of the same container: still one program."""
    again = origin(pid=5000, name="VLLM::Worker_TP1")
    found = present(detector, xid(1, 31, where=ENGINE), xid(60, 31, where=again))
    assert [f.severity for f in found] == [Severity.NOTE, Severity.NOTE]


def test_different_errors_of_several_programs_are_their_own(detector: GpuXids) -> None:
    """Only the same number counts together."""
    found = present(detector, xid(1, 31, where=ENGINE), xid(60, 13, where=OTHER))
    assert [f.severity for f in found] == [Severity.NOTE, Severity.NOTE]


def test_the_only_process_on_the_gpu_is_the_one_to_restart(detector: GpuXids) -> None:
    """NVML does not say whose an Xid is, but who is there."""
    detector.observe(gpu_state(1, ENGINE, **WELL))
    (found,) = present(detector, xid(2, 69))
    assert found.target == Subject(SubjectKind.CONTAINER, CONTAINER)
    assert found.incarnation is not None
    assert (found.incarnation.container_id, found.incarnation.pid) == (CONTAINER, 4711)
    assert _codes(found) == [ReasonCode.XID_REPORTED]


def test_of_two_processes_the_one_that_leaves_is_the_one(detector: GpuXids) -> None:
    """What an Xid ends is gone from the GPU in the next samples; the case learns its target."""
    book = CaseBook(agent_id=HOST, kernel_boot_id=KERNEL_BOOT, hysteresis=detector.hysteresis)
    detector.observe(gpu_state(1, ENGINE, OTHER, **WELL))
    (opened,) = book.judge(detector.observe(xid(2, 69)), at(2)).bodies
    assert opened.target is None
    (updated,) = book.judge(detector.observe(gpu_state(3, OTHER, **WELL)), at(3)).bodies
    assert (updated.phase, updated.target) == (
        CasePhase.UPDATED,
        Subject(SubjectKind.CONTAINER, CONTAINER),
    )
    assert updated.count == 1


def test_two_that_leave_or_one_that_leaves_late_are_not_blamed(detector: GpuXids) -> None:
    """A guess is no evidence."""
    detector.observe(gpu_state(1, ENGINE, OTHER, **WELL))
    detector.observe(xid(2, 69))
    assert present(detector, gpu_state(3, **WELL)) == []
    detector.observe(gpu_state(10, ENGINE, OTHER, **WELL))
    detector.observe(xid(11, 69))
    assert present(detector, gpu_state(30, OTHER, **WELL)) == []


def test_an_xid_of_a_slice_is_of_the_process_in_it(detector: GpuXids) -> None:
    """In MIG mode only the processes of that instance come into question; here there is none."""
    detector.observe(gpu_state(1, ENGINE, **WELL))
    (found,) = present(detector, xid(2, 69, gpu_instance=3))
    assert found.target is None


@pytest.mark.parametrize("number", [43, 45])
def test_clean_up_after_another_xid_stays_quiet(detector: GpuXids, number: int) -> None:
    """Before it or after it within the settling time."""
    found = present(detector, xid(1, 31), xid(2, number), tick(10))
    assert [_xids(f)[0][0] for f in found] == [31]
    found = present(detector, xid(100, number), xid(101, 32), tick(110))
    assert [_xids(f)[0][0] for f in found] == [32]


@pytest.mark.parametrize("number", [43, 45])
def test_clean_up_after_a_kill_stays_quiet(detector: GpuXids, number: int) -> None:
    """A process that was killed leaves the GPU a sample later."""
    detector.observe(gpu_state(1, ENGINE, OTHER, **WELL))
    found = present(detector, xid(2, number), gpu_state(3, OTHER, **WELL), tick(10), tick(100))
    assert found == []


@pytest.mark.parametrize("number", [43, 45])
def test_clean_up_after_nothing_is_a_note(detector: GpuXids, number: int) -> None:
    """Nobody left and nothing else was told."""
    detector.observe(gpu_state(1, ENGINE, OTHER, **WELL))
    (found,) = present(
        detector, xid(2, number), gpu_state(3, ENGINE, OTHER, **WELL), tick(6), tick(7), tick(99)
    )
    assert (found.fault_class, found.severity) == (APPLICATION, Severity.NOTE)


def test_an_unknown_number_stays_visible_as_a_note(detector: GpuXids) -> None:
    """It carries its number and blames nobody."""
    detector.observe(gpu_state(1, ENGINE, **WELL))
    (found,) = present(detector, xid(2, 4242))
    assert (found.fault_class, found.severity, found.target) == (APPLICATION, Severity.NOTE, None)
    assert _xids(found) == [(4242, 1, 1)]


@pytest.mark.parametrize("number", [63, 92, 121, 144, 156, 162])
def test_accounts_and_trends_are_notes_on_the_device(detector: GpuXids, number: int) -> None:
    """A row that will be remapped is for the next quiet window."""
    (found,) = present(detector, xid(1, number))
    assert (found.fault_class, found.severity) == (DEVICE, Severity.NOTE)


@pytest.mark.parametrize("number", [46, 48, 62, 64, 74, 79, 95, 119, 120, 140, 143, 158, 173])
def test_an_xid_of_the_device_is_high_alone(detector: GpuXids, number: int) -> None:
    """The second layer is NVML's own word, and it is missing."""
    (found,) = present(detector, xid(1, number))
    assert (found.fault_class, found.severity) == (DEVICE, Severity.HIGH)
    assert _codes(found) == [ReasonCode.XID_REPORTED, ReasonCode.SECOND_LAYER_UNKNOWN]
    assert not found.lifebound


def test_one_context_switch_timeout_is_a_note_and_two_are_a_fault(detector: GpuXids) -> None:
    """109 asks for a reset when it repeats."""
    found = present(detector, xid(1, 109), xid(60, 109))
    assert [f.severity for f in found] == [Severity.NOTE, Severity.HIGH]


def test_three_tellings_are_one_error_with_three_sources(detector: GpuXids) -> None:
    """The count is not that of the sources."""
    found = present(
        detector,
        xid(1.0, 79, source=XidSource.TRACEPOINT),
        xid(1.1, 79, source=XidSource.NVML),
        xid(1.2, 79, source=XidSource.LOG),
        gpu_absent(2, Absence.LOST, code=15, pci=PCI),
        gpu_absent(8, Absence.LOST, code=15, pci=PCI),
    )
    assert _xids(found[0]) == [(79, 1, 1)]
    assert _xids(found[-1]) == [(79, 1, 3)]


def test_an_xid_and_a_lost_gpu_are_critical(detector: GpuXids) -> None:
    """Both layers, and the code that NVML gave."""
    *_, found = present(
        detector, xid(1, 79), *[gpu_absent(s, Absence.LOST, code=15, pci=PCI) for s in (1.5, 7)]
    )
    assert found.severity is Severity.CRITICAL
    assert _codes(found) == [ReasonCode.GPU_IS_LOST, ReasonCode.XID_REPORTED]
    assert isinstance(found.evidence[0], GpuEvidence)
    assert (found.evidence[0].gpu, found.evidence[0].nvml_code) == (PCI, 15)


@pytest.mark.parametrize("why", [Absence.LOST, Absence.GONE])
def test_a_lost_gpu_is_high_after_a_moment_and_counted_once(detector: GpuXids, why: Absence) -> None:
    """A second of absence is none; an hour of it is one fault."""
    found = present(detector, *[gpu_absent(s, why, code=15, pci=PCI) for s in range(1, 60)])
    assert found[0].at == at(6)
    assert found[0].severity is Severity.HIGH
    assert _codes(found[0]) == [ReasonCode.GPU_IS_LOST, ReasonCode.SECOND_LAYER_UNKNOWN]
    assert sum(f.count for f in found) == 1


def test_a_gpu_that_tells_nothing_at_all_is_high_after_it_was_asked_anew(detector: GpuXids) -> None:
    """Code 999 of everything: longer than a driver takes to start, and the time before it was lost counts."""
    mute = [gpu_absent(s, Absence.UNKNOWN, code=999, pci=PCI) for s in range(1, 60)]
    found = present(detector, *mute)
    assert (found[0].at, found[0].severity, sum(f.count for f in found)) == (at(46), Severity.HIGH, 1)
    assert _codes(found[0]) == [ReasonCode.GPU_IS_LOST, ReasonCode.SECOND_LAYER_UNKNOWN]
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
    assert (found.severity, _codes(found)[0]) == (Severity.HIGH, ReasonCode.GPU_NEEDS_RESET)


def test_advice_of_the_driver_is_high_and_critical_with_an_xid(detector: GpuXids) -> None:
    """Field 230 alone, and then together with the Xid that led to it."""
    first, second, third = present(
        detector, gpu_state(1, recovery_action=2), xid(2, 154), xid(2, 119), gpu_state(3, recovery_action=2)
    )
    assert (first.severity, _codes(first)[0]) == (Severity.HIGH, ReasonCode.RECOVERY_IS_ADVISED)
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
    assert _codes(found) == [
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


def test_an_xid_without_an_address_is_of_the_only_gpu(detector: GpuXids) -> None:
    """With several, nobody knows of which."""
    (found,) = present(detector, xid(1, 79, pci=None))
    assert found.subject == GPU
    detector.observe(gpu_state(2, pci="0000:01:00.0", index=1))
    (found,) = present(detector, xid(20, 79, pci=None))
    assert found.subject == Subject(SubjectKind.GPU, "unknown")


@pytest.mark.parametrize("fault", [APPLICATION, DEVICE])
def test_clears_after_an_hour_in_which_everything_was_seen(detector: GpuXids, fault: FaultClass) -> None:
    """The GPU answers, the driver advises nothing, and an Xid would have been told."""
    case = open_case(fault, GPU, last_seen=at(100))
    detector.observe(gpu_state(3699, **WELL))
    assert detector.tick(tick(3699, case)) == []
    detector.observe(gpu_state(3700, **WELL))
    (over,) = detector.tick(tick(3700, case))
    assert (over.verdict, _codes(over)) == (
        Verdict.ABSENT,
        [ReasonCode.NO_XID_SINCE, ReasonCode.GPU_ANSWERS_AGAIN],
    )


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


def test_the_tracepoint_alone_sees_xids_where_nvml_does_not_tell_them(detector: GpuXids) -> None:
    """Sight is that of whoever has seen longest."""
    detector.observe(seeing(1, "kernel.xid"))
    detector.observe(gpu_state(9000, **WELL, unread=(Unread("xids", NvmlCode.NOT_SUPPORTED),)))
    (over,) = detector.tick(tick(9001, open_case(DEVICE, GPU)))
    assert over.verdict is Verdict.ABSENT


def test_keeps_open_when_its_source_goes_blind(detector: GpuXids) -> None:
    """Blindness is unknown, at once and at every tick."""
    (*unknown,) = detector.observe(blind(1, "gpu.nvml", BlindReason.NOT_ANSWERING))
    assert {(f.verdict, f.fault_class) for f in unknown} == {
        (Verdict.UNKNOWN, APPLICATION),
        (Verdict.UNKNOWN, DEVICE),
    }
    detector.observe(gpu_state(9000, **WELL))
    assert {f.verdict for f in detector.tick(tick(9001, open_case(DEVICE, GPU)))} == {Verdict.UNKNOWN}


def test_a_blind_tracepoint_changes_nothing(detector: GpuXids) -> None:
    """Where the driver has none, NVML tells."""
    assert detector.observe(blind(1, "kernel.xid", BlindReason.NO_KERNEL_SUPPORT)) == ()


def test_a_gpu_that_had_only_an_index_clears_under_its_name(detector: GpuXids) -> None:
    """A lost GPU may not tell its address; when it is back, it does."""
    fresh = GpuXids.build(Config(), SURROUNDINGS)
    lost = gpu_absent(0, Absence.LOST, code=15, pci="x")
    assert lost.gpu is not None
    nameless = type(lost)(lost.sensor, lost.at, type(lost.gpu)(uuid=None, pci=None, index=0), lost.why, 15)
    later = type(lost)(lost.sensor, at(9), nameless.gpu, lost.why, 15)
    (found,) = present(fresh, nameless, later)
    assert found.subject == Subject(SubjectKind.GPU, "index 0")
    for seen in (seeing(10, "gpu.nvml"), gpu_state(4000, **WELL)):
        fresh.observe(seen)
    (over,) = fresh.tick(tick(4001, open_case(DEVICE, found.subject, last_seen=at(9))))
    assert over.verdict is Verdict.ABSENT


_PCI = st.none() | st.sampled_from([PCI, *TWO]) | st.text(max_size=80)
_SECONDS = st.floats(0, 1e5)
_ORIGINS = st.sampled_from([ENGINE, OTHER, Origin()]) | st.builds(
    Origin,
    pid=st.none() | st.integers(1, 2**22),
    process_name=st.none() | st.text(max_size=200),
    unit=st.none() | st.text(max_size=2000),
    container_id=st.none() | st.text(max_size=2000),
    cgroup_path=st.none() | st.text(max_size=2000),
)
_HOSTILE = st.one_of(
    st.builds(
        xid,
        _SECONDS,
        st.sampled_from([31, 43, 45, 79, 109, 154, 63, 13]) | st.integers(0, 2**64 - 1),
        pci=_PCI,
        source=st.sampled_from(XidSource),
        where=_ORIGINS,
        gpu_instance=st.none() | st.integers(0, 2**32),
    ),
    st.builds(
        gpu_state,
        _SECONDS,
        _ORIGINS,
        pci=st.sampled_from([PCI, *TWO]) | st.text(max_size=80),
        index=st.integers(0, 100),
        name=st.text(max_size=300),
        listed=st.booleans(),
        recovery_action=st.none() | st.integers(0, 2**32),
        clock_reasons=st.none() | st.integers(0, 2**64),
    ),
    st.builds(
        gpu_absent,
        _SECONDS,
        st.sampled_from(Absence),
        code=st.none() | st.integers(-1, 2**40),
        pci=_PCI,
        index=st.integers(0, 100),
    ),
    st.builds(seeing, _SECONDS, st.just("gpu.nvml"), lost=st.integers(0, 3)),
    st.builds(blind, _SECONDS, st.just("gpu.nvml")),
    st.builds(slept, _SECONDS),
    st.builds(gpu_driver, _SECONDS, st.none() | st.text(max_size=5), st.none() | st.text(max_size=5)),
    st.builds(tick, _SECONDS),
)


@given(st.lists(_HOSTILE, max_size=40))
def test_nothing_that_comes_from_outside_breaks_it(seen: list[Observation | Tick]) -> None:
    """Every finding can be written to the wire and read back."""
    detector = GpuXids.build(Config(), SURROUNDINGS)
    book = CaseBook(agent_id=HOST, kernel_boot_id=KERNEL_BOOT, hysteresis=detector.hysteresis)
    for each in seen:
        if isinstance(each, Tick):
            findings, now = detector.tick(each), each.now
        else:
            findings, now = detector.observe(each), each.at
        for body in book.judge(findings, now).bodies:
            report = Report(agent_id=HOST, boot_id=BootId(KERNEL_BOOT), sequence=1, created_ns=1, body=body)
            assert decode(encode(report)) == report


def test_what_is_remembered_is_bounded(detector: GpuXids) -> None:
    """More GPUs and numbers than any host has push the oldest out."""
    for number in range(3000):
        second, where = 1 + number / 100, Origin(pid=number + 1)
        detector.observe(xid(second, number, pci=f"{number:04x}:01:00.0", where=where))
        detector.observe(gpu_state(second, pci=f"{number:04x}:02:00.0", index=number, recovery_action=1))
    assert repr(detector) == f"GpuXids(GpuTable(gpus={GPUS_MAX}, missing=0), XidTallies(128))"
