"""F12 and F13: whose fault an Xid is, and every look-alike."""

from __future__ import annotations

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
from tests.agent.detectors.watched_gpus import APPLICATION, DEVICE, GPU, PCI, TWO, WELL, codes, watching

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


@pytest.fixture
def detector() -> GpuXids:
    """A detector whose sensor sees a GPU that is well."""
    return watching()


def _xids(finding: Finding) -> list[tuple[int, int, int]]:
    return [(e.number, e.count, e.sources) for e in finding.evidence if isinstance(e, XidEvidence)]


@pytest.mark.parametrize("number", [13, 31])
def test_one_fault_of_a_program_is_a_note(detector: GpuXids, number: int) -> None:
    """A bad pointer is that program's bug; the case says that nobody knows whose."""
    (found,) = present(detector, xid(1, number))
    assert (found.fault_class, found.subject, found.severity) == (APPLICATION, GPU, Severity.NOTE)
    assert codes(found) == [ReasonCode.XID_REPORTED, ReasonCode.SECOND_LAYER_UNKNOWN]
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
    assert codes(found) == [ReasonCode.XID_REPORTED]


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
    assert codes(found) == [ReasonCode.XID_REPORTED, ReasonCode.SECOND_LAYER_UNKNOWN]
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
    assert (over.verdict, codes(over)) == (
        Verdict.ABSENT,
        [ReasonCode.NO_XID_SINCE, ReasonCode.GPU_ANSWERS_AGAIN],
    )


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
