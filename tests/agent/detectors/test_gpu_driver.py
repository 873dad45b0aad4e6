"""F14: a library and a module of two versions, and what is another fault."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, strategies as st

from agent.detectors.gpu_driver import Config, GpuDriverMismatch
from agent.finding import Finding, Verdict
from agent.testing import (
    HOST,
    SURROUNDINGS,
    blind,
    gpu_absent,
    gpu_driver,
    gpu_state,
    open_case,
    present,
    seeing,
    tick,
    xid,
)
from escalation.model import FaultClass, GpuEvidence, ReasonCode, Severity, Subject, SubjectKind
from probes.gpu.facts import Absence
from probes.observation import BlindReason, Observation

FAULT = FaultClass.GPU_DRIVER_MISMATCH
HERE = Subject(SubjectKind.HOST, HOST)
OLD = "575.57.08"
TWO = ("0000:1b:00.0", "0000:43:00.0")


@pytest.fixture
def detector() -> GpuDriverMismatch:
    """A detector whose sensor reads two GPUs under a driver of one version."""
    made = GpuDriverMismatch.build(Config(), SURROUNDINGS)
    for seen in (seeing(0, "gpu.nvml"), gpu_driver(0), *_both(0)):
        made.observe(seen)
    return made


def _both(seconds: float) -> list[Observation]:
    return [gpu_state(seconds, pci=pci, index=i) for i, pci in enumerate(TWO)]


def _lost(*seconds: float, pcis: Sequence[str] = TWO) -> list[Observation]:
    return [
        gpu_absent(second, Absence.LOST, code=15, pci=pci, index=TWO.index(pci))
        for second in seconds
        for pci in pcis
    ]


def _refused(seconds: float) -> list[Observation]:
    absent = gpu_absent(seconds, Absence.VERSION_MISMATCH, code=18)
    return [absent, blind(seconds, "gpu.nvml", BlindReason.VERSION_MISMATCH)]


def _codes(finding: Finding) -> list[ReasonCode]:
    return [reason.code for reason in finding.reasons]


def test_a_refusal_by_version_is_high_and_says_what_is_missing(detector: GpuDriverMismatch) -> None:
    """Code 18 alone; while it goes on, each opening says so again and counts nothing."""
    first, again = present(detector, *_refused(1), *_refused(31))
    assert (first.subject, first.severity) == (HERE, Severity.HIGH)
    assert _codes(first) == [ReasonCode.LIBRARY_DIFFERS_FROM_MODULE, ReasonCode.SECOND_LAYER_UNKNOWN]
    assert isinstance(first.evidence[0], GpuEvidence)
    assert first.evidence[0].nvml_code == 18
    assert (first.count, again.count) == (1, 0)


def test_the_versions_are_its_second_layer(detector: GpuDriverMismatch) -> None:
    """The module is older than the library on disk, and NVML refuses."""
    (found,) = present(detector, gpu_driver(1, module=OLD), *_refused(2))
    assert _codes(found) == [
        ReasonCode.LIBRARY_DIFFERS_FROM_MODULE,
        ReasonCode.INSTALLED_LIBRARY_DIFFERS,
    ]


def test_a_refusal_does_not_take_back_a_clearing_that_it_denies_itself(detector: GpuDriverMismatch) -> None:
    """The blindness that comes with code 18 is the fault and no unknown."""
    findings = [found for seen in _refused(1) for found in detector.observe(seen)]
    assert [found.verdict for found in findings] == [Verdict.PRESENT]


def test_an_upgrade_without_a_reboot_is_high_once_it_lasts(detector: GpuDriverMismatch) -> None:
    """What runs goes on, what starts fails; the agent's own library still works."""
    detector.observe(gpu_driver(10, module=OLD))
    detector.observe(gpu_state(300, pci=TWO[0]))
    assert present(detector, tick(309)) == []
    (found,) = present(detector, tick(310), tick(311), tick(4000))
    assert found.severity is Severity.HIGH
    assert _codes(found) == [ReasonCode.INSTALLED_LIBRARY_DIFFERS, ReasonCode.SECOND_LAYER_UNKNOWN]


def test_an_upgrade_that_is_under_way_stays_quiet(detector: GpuDriverMismatch) -> None:
    """The module is loaded anew within minutes."""
    seen = [gpu_driver(10, module=OLD), tick(200), gpu_driver(240), *_both(241), tick(310), tick(900)]
    assert present(detector, *seen) == []


@pytest.mark.parametrize(
    ("why", "code"),
    [
        (Absence.NO_DRIVER, 9),
        (Absence.NO_LIBRARY, 12),
        (Absence.NO_PERMISSION, 4),
        (Absence.BLOCKED, 17),
        (Absence.NOT_ANSWERING, None),
        (Absence.NO_DEVICE, None),
        (Absence.RESET_REQUIRED, 16),
        (Absence.UNKNOWN, 999),
    ],
)
def test_other_absences_are_other_faults(detector: GpuDriverMismatch, why: Absence, code: int | None) -> None:
    """No driver, no library, no permission: the sensor is blind, and no version differs."""
    assert present(detector, gpu_absent(1, why, code=code), gpu_absent(31, why, code=code), tick(400)) == []


def test_all_gpus_lost_at_once_are_a_note(detector: GpuDriverMismatch) -> None:
    """An unloaded driver looks like that; nothing else says so."""
    found = present(detector, *_lost(*range(1, 30)))
    assert (found[0].severity, sum(f.count for f in found)) == (Severity.NOTE, 1)
    assert _codes(found[0]) == [ReasonCode.GPU_IS_LOST, ReasonCode.SECOND_LAYER_UNKNOWN]
    assert found[0].reasons[0].count == 2


@pytest.mark.parametrize("module", [OLD, None])
def test_all_gpus_lost_are_high_with_the_versions(detector: GpuDriverMismatch, module: str | None) -> None:
    """The module is of another version, or not loaded any more."""
    found = present(detector, gpu_driver(1, module=module), *_lost(2, 8))
    assert {f.severity for f in found} == {Severity.HIGH}


def test_one_lost_gpu_is_another_fault(detector: GpuDriverMismatch) -> None:
    """It is the device's."""
    assert present(detector, *_lost(*range(1, 60), pcis=TWO[:1])) == []


def test_the_only_gpu_lost_is_another_fault() -> None:
    """On a host of one GPU, all at once says nothing."""
    alone = GpuDriverMismatch.build(Config(), SURROUNDINGS)
    alone.observe(gpu_state(0, pci=TWO[0]))
    assert present(alone, *_lost(*range(1, 60), pcis=TWO[:1])) == []


def test_gpus_lost_with_xids_of_their_own_are_another_fault(detector: GpuDriverMismatch) -> None:
    """Unloading a driver raises no Xid 79."""
    assert present(detector, xid(1, 79, pci=TWO[0]), *_lost(2, 10)) == []


def test_clears_when_gpus_can_be_read_and_the_versions_agree(detector: GpuDriverMismatch) -> None:
    """Both are needed, and the reading has to be of now."""
    case = open_case(FAULT, HERE)
    detector.observe(gpu_driver(1, module=OLD))
    assert [f.verdict for f in detector.tick(tick(2, case))] == []
    detector.observe(gpu_driver(100))
    assert [f.verdict for f in detector.tick(tick(101, case))] == []
    detector.observe(gpu_state(102, pci=TWO[0]))
    (over,) = detector.tick(tick(103, case))
    assert (over.verdict, _codes(over)) == (Verdict.ABSENT, [ReasonCode.DRIVER_ANSWERS_AGAIN])


def test_keeps_open_while_the_versions_are_not_known() -> None:
    """After a restart of the agent, until it has looked."""
    fresh = GpuDriverMismatch.build(Config(), SURROUNDINGS)
    fresh.observe(gpu_state(1))
    assert fresh.tick(tick(2, open_case(FAULT, HERE))) == ()


def test_keeps_open_when_its_source_goes_blind(detector: GpuDriverMismatch) -> None:
    """No driver at all is unknown, not recovery."""
    (unknown,) = detector.observe(blind(1, "gpu.nvml", BlindReason.NO_DRIVER))
    assert unknown.verdict is Verdict.UNKNOWN
    assert detector.tick(tick(2, open_case(FAULT, HERE))) == ()


_VERSIONS = st.none() | st.sampled_from([OLD, "580.65.06"]) | st.text(max_size=10)
_HOSTILE = st.one_of(
    st.builds(gpu_driver, st.floats(0, 1e4), _VERSIONS, _VERSIONS),
    st.builds(gpu_state, st.floats(0, 1e4), pci=st.text(max_size=20), index=st.integers(0, 99)),
    st.builds(
        gpu_absent,
        st.floats(0, 1e4),
        st.sampled_from(Absence),
        code=st.none() | st.integers(-5, 2**40),
        pci=st.none() | st.text(max_size=20),
        index=st.integers(0, 99),
    ),
    st.builds(xid, st.floats(0, 1e4), st.integers(0, 2**64)),
)


@given(st.lists(_HOSTILE, max_size=30), st.floats(1e4, 2e4))
def test_it_speaks_of_the_host_whatever_comes(seen: list[Observation], later: float) -> None:
    """Nothing from outside breaks it, and every finding is about this host."""
    made = GpuDriverMismatch.build(Config(), SURROUNDINGS)
    found = [f for each in seen for f in made.observe(each)]
    found += made.tick(tick(later, open_case(FAULT, HERE)))
    assert {f.subject for f in found} <= {HERE}
