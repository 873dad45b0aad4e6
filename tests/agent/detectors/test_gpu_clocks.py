"""F15: a busy GPU that is held back, and clocks that are low for a good reason."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from agent.detectors.gpu_clocks import Config, GpuClocks
from agent.finding import Verdict
from agent.testing import (
    SURROUNDINGS,
    blind,
    exchange,
    gpu_absent,
    gpu_state,
    open_case,
    present,
    seeing,
    tick,
)
from escalation.model import FaultClass, GpuEvidence, ReasonCode, Severity, Subject, SubjectKind
from probes.gpu.facts import Absence, ClockReason
from probes.observation import GpuState, Observation

GPUS = "gpu.nvml"
FAULT = FaultClass.GPU_CLOCKS_CAPPED
THIS = Subject(SubjectKind.GPU, "000f:01:00.0")


@pytest.fixture
def detector() -> GpuClocks:
    """A detector whose sensor sees."""
    made = GpuClocks.build(Config(), SURROUNDINGS)
    made.observe(seeing(0, GPUS))
    return made


def sample(second: float, clock: int | None = 2400, **facts: Any) -> GpuState:
    """A GB10 that is busy at its usual clock and power, unless told otherwise."""
    usual: dict[str, Any] = {
        "sm_clock_mhz": clock,
        "sm_clock_max_mhz": 3003,
        "utilisation_percent": 96,
        "power_w": 60.0,
        "clock_reasons": 0,
    }
    return gpu_state(second, **(usual | facts))


def run(since: int, until: int, clock: int | None = 2400, **facts: Any) -> list[Observation]:
    return [sample(second, clock, **facts) for second in range(since, until)]


def test_low_clock_and_low_power_are_a_cap(detector: GpuClocks) -> None:
    """Learnt under load, then a fifth of it without a reason: high, with what is usual."""
    found = present(detector, *run(0, 100), *run(100, 200, 507, power_w=14.0))
    assert (found[0].severity, found[0].subject) == (Severity.HIGH, THIS)
    assert [reason.code for reason in found[0].reasons] == [
        ReasonCode.CLOCKS_LOW_UNDER_LOAD,
        ReasonCode.POWER_LOW_UNDER_LOAD,
        ReasonCode.NO_THROTTLE_REASON,
    ]
    evidence = found[0].evidence[0]
    assert isinstance(evidence, GpuEvidence)
    assert (evidence.sm_mhz, evidence.usual_mhz, evidence.watts) == (507, 2400, 14.0)
    assert found[0].at == sample(160).at
    assert [one.count for one in found] == [1] + [0] * 39


def test_slow_answers_are_a_second_layer_too(detector: GpuClocks) -> None:
    """Where power is not told, the pace of answers agrees."""
    story: list[Observation] = run(0, 100, power_w=None)
    story += [exchange(n, completion_tokens=100, first_token_s=0.4) for n in range(10)]
    story += run(100, 150, 507, power_w=None)
    story += [exchange(150, completion_tokens=100, first_token_s=0.4, duration_s=20.0)]
    story += run(150, 200, 507, power_w=None)
    found = present(detector, *story)
    assert found[0].severity is Severity.HIGH
    assert ReasonCode.PACE_BELOW_BASELINE in {reason.code for reason in found[0].reasons}


def test_a_gpu_that_was_capped_since_it_booted_does_not_call_that_usual(detector: GpuClocks) -> None:
    """Nothing was learnt: the highest clock is what it is held against, and with one layer it is a note."""
    found = present(detector, *run(0, 300, 507, power_w=14.0))
    assert {one.severity for one in found} == {Severity.NOTE}
    assert found[0].reasons[-1].code is ReasonCode.SECOND_LAYER_UNKNOWN


def test_a_reason_that_the_driver_gives_is_kept(detector: GpuClocks) -> None:
    """Heat and power limits are reasons: what is advised is another thing."""
    hot = int(ClockReason.HARDWARE_THERMAL)
    found = present(detector, *run(0, 100), *run(100, 200, 507, power_w=14.0, clock_reasons=hot))
    assert ReasonCode.NO_THROTTLE_REASON not in {reason.code for reason in found[0].reasons}
    unknown = present(detector, *run(200, 300, 507, power_w=14.0, clock_reasons=None))
    assert ReasonCode.NO_THROTTLE_REASON not in {reason.code for reason in unknown[-1].reasons}


@pytest.mark.parametrize(
    "facts",
    [
        {"utilisation_percent": 3, "clock_reasons": int(ClockReason.GPU_IDLE)},
        {"utilisation_percent": 79},
        {"utilisation_percent": None},
        {"clock_reasons": int(ClockReason.APPLICATION_SETTING)},
        {"clock_reasons": int(ClockReason.SYNC_BOOST)},
        {"clock_reasons": int(ClockReason.DISPLAY_SETTING)},
    ],
    ids=["idle", "half-busy", "load-unknown", "locked", "sync", "display"],
)
def test_clocks_that_are_low_for_a_good_reason_stay_quiet(
    detector: GpuClocks, facts: dict[str, object]
) -> None:
    """Idle, or held there by somebody on purpose."""
    assert present(detector, *run(0, 100), *run(100, 300, 507, power_w=14.0, **facts)) == []


@pytest.mark.parametrize(
    "bad", [ClockReason.HARDWARE_SLOWDOWN, ClockReason.HARDWARE_THERMAL, ClockReason.HARDWARE_POWER_BRAKE]
)
def test_a_setting_does_not_hide_what_slows_the_gpu_down(detector: GpuClocks, bad: ClockReason) -> None:
    """The reasons are bits: clocks that are set, and brought down by heat on top of it."""
    both = int(ClockReason.APPLICATION_SETTING | bad)
    found = present(detector, *run(0, 100), *run(100, 200, 507, power_w=14.0, clock_reasons=both))
    assert found[0].severity is Severity.HIGH


def test_low_power_at_full_clock_stays_quiet(detector: GpuClocks) -> None:
    """Memory-bound decoding draws a third of the power of a prefill."""
    assert present(detector, *run(0, 100), *run(100, 300, 2400, power_w=20.0)) == []


def test_a_laptop_at_its_power_limit_stays_quiet(detector: GpuClocks) -> None:
    """Half of the highest clock for hours is what 95 W can do there, and the driver says so."""
    capped = int(ClockReason.SOFTWARE_POWER_CAP)
    story = run(0, 900, 1545, sm_clock_max_mhz=3090, power_w=95.0, clock_reasons=capped)
    assert present(detector, *story) == []


def test_a_moment_at_a_low_clock_stays_quiet(detector: GpuClocks) -> None:
    """A minute is waited for, and a gap in the samples begins it anew."""
    assert present(detector, *run(0, 100), *run(100, 150, 507), *run(150, 160), *run(160, 210, 507)) == []
    assert present(detector, *run(230, 280, 507), *run(300, 350, 507)) == []


def test_a_gpu_whose_clock_is_not_told_stays_quiet(detector: GpuClocks) -> None:
    """Unknown is not low."""
    assert present(detector, *run(0, 200, None)) == []
    assert present(detector, *run(200, 400, 507, sm_clock_max_mhz=None)) == []


def test_clears_when_the_busy_gpu_is_fast_again(detector: GpuClocks) -> None:
    """An idle GPU proves nothing; a busy one at its usual clock does."""
    present(detector, *run(0, 100), *run(100, 200, 507))
    assert detector.observe(sample(200, 2400, utilisation_percent=5)) == ()
    assert detector.observe(sample(201, 1500)) == ()
    (over,) = detector.observe(sample(202, 2350))
    assert (over.verdict, over.reasons[0].code) == (Verdict.ABSENT, ReasonCode.CLOCKS_USUAL_AGAIN)


@pytest.mark.parametrize(
    "gap", [blind(150, GPUS), gpu_absent(150, Absence.LOST, code=15, pci="000f:01:00.0")]
)
def test_keeps_open_when_source_goes_blind(detector: GpuClocks, gap: Observation) -> None:
    """Blindness is unknown, and a minute has to pass anew after it."""
    present(detector, *run(0, 100), *run(100, 150, 507))
    said = detector.observe(gap)
    assert [one.verdict for one in said] in ([Verdict.UNKNOWN], [])
    assert present(detector, seeing(151, GPUS), *run(151, 205, 507)) == []
    detector.observe(blind(210, GPUS))
    assert [one.verdict for one in detector.tick(tick(211, open_case(FAULT, THIS)))] == [Verdict.UNKNOWN]


def test_a_gpu_that_is_lost_hides_no_cap_of_another(detector: GpuClocks) -> None:
    """It is told as lost each second, and that says nothing about the one beside it."""
    present(detector, *run(0, 100))
    told = [
        seen
        for second in range(100, 200)
        for seen in (
            sample(second, 507, power_w=14.0),
            gpu_absent(second, Absence.LOST, code=15, pci="0000:43:00.0", index=1),
        )
    ]
    assert present(detector, *told)[0].severity is Severity.HIGH


def test_what_is_low_is_not_learnt(detector: GpuClocks) -> None:
    """An hour at a low clock is no new usual."""
    present(detector, *run(0, 100))
    found = present(detector, *run(100, 3700, 507, power_w=14.0))
    evidence = found[-1].evidence[0]
    assert isinstance(evidence, GpuEvidence)
    assert evidence.usual_mhz == 2400


@given(
    st.lists(
        st.builds(
            sample,
            st.floats(0, 1e5),
            st.none() | st.integers(0, 100_000),
            utilisation_percent=st.none() | st.integers(0, 100),
            sm_clock_max_mhz=st.none() | st.integers(1, 100_000),
            power_w=st.none() | st.floats(0, 1e5),
            clock_reasons=st.none() | st.integers(0, 2**64 - 1),
            index=st.integers(0, 200),
        ),
        max_size=80,
    )
)
def test_whatever_a_driver_says_is_survived_and_bounded(samples: list[GpuState]) -> None:
    """Any numbers, from any number of GPUs, in any order of time."""
    detector = GpuClocks.build(Config(), SURROUNDINGS)
    detector.observe(seeing(0, GPUS))
    for each in samples:
        detector.observe(each)
    assert len(detector._gpus) <= 64


def test_what_is_usual_is_known_after_a_restart(detector: GpuClocks) -> None:
    """Clock, power and pace outlive the agent: a cap is judged in its first minute. Nonsense counts."""
    present(detector, *run(0, 120, power_w=150.0))
    second_life = GpuClocks.build(Config(), SURROUNDINGS)
    assert second_life.recall({**detector.memory(), "gpu/x": b"{}", "paces": b"["}) == 2
    second_life.observe(seeing(200, "gpu.nvml"))
    found = present(second_life, *run(201, 270, 700, power_w=30.0))
    assert ReasonCode.POWER_LOW_UNDER_LOAD in {reason.code for reason in found[0].reasons}
    fresh = GpuClocks.build(Config(), SURROUNDINGS)
    fresh.observe(seeing(200, "gpu.nvml"))
    assert {each.severity for each in present(fresh, *run(201, 270, 700, power_w=30.0))} == {Severity.NOTE}


def test_what_is_usual_outlives_a_life_in_which_the_gpu_was_not_seen(detector: GpuClocks) -> None:
    """An agent that started while the driver was away keeps what an earlier one learnt."""
    present(detector, *run(0, 120, power_w=150.0))
    saw_nothing = GpuClocks.build(Config(), SURROUNDINGS)
    assert saw_nothing.recall(detector.memory()) == 0
    assert saw_nothing.memory() == detector.memory()
    raw = next(raw for key, raw in detector.memory().items() if key.startswith("gpu/"))
    saw_nothing.recall({f"gpu/{number}": raw for number in range(200)})
    assert len(saw_nothing.memory()) == 65
