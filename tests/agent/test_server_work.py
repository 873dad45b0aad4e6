"""What a server did: cores laid over requests, and a pace that is only learnt where it is told to be."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from agent.host.server_work import LEARNT_FROM, ServerWork, pace_of
from agent.testing import at, exchange, usage
from probes.http.facts import Route

_QUICK = {"duration_s": 4.0, "first_token_s": 0.4}
_SLOW = {"duration_s": 72.4, "first_token_s": 0.4}


def test_only_stretches_with_requests_are_work() -> None:
    """Cores that were busy while nobody asked, as when a model is loaded, do not count."""
    work = ServerWork()
    for end, cores in ((5, 16), (10, 2), (15, 8), (20, 16)):
        work.used(usage(end, cores))
    work.asked(at(14).boot_ns, 7, on_gpu=True)
    burn = work.burn(at(20), 60)
    assert burn is not None
    assert (burn.cores, burn.window_s, burn.stretches, burn.requests) == (5.0, 10.0, 2, 1)


def test_stretches_that_others_share_are_left_out() -> None:
    """A request for a model that belongs on the CPU hides what the others burnt."""
    work = ServerWork()
    work.used(usage(5, 10))
    work.used(usage(10, 10))
    work.asked(at(10).boot_ns, 10, on_gpu=True)
    work.asked(at(7).boot_ns, 1, on_gpu=False)
    burn = work.burn(at(10), 60)
    assert burn is not None
    assert burn.stretches == 1


def test_a_request_that_is_told_late_counts_all_the_same() -> None:
    """An answer is told when it is over, after the cores that it kept busy."""
    work = ServerWork()
    work.used(usage(5, 10))
    assert work.burn(at(5), 60) is None
    work.asked(at(30).boot_ns, 29, on_gpu=True)
    assert work.burn(at(30), 60) is not None
    assert work.burn(at(90), 60) is None


def test_pace_is_judged_against_what_was_learnt() -> None:
    """Too few answers make nothing usual; what is slow later is not learnt."""
    work = ServerWork()
    for number in range(LEARNT_FROM):
        work.answered(at(number), exchange(number, completion_tokens=144, **_QUICK).facts, learn=True)
        assert work.slow(at(number), 60, 0.33) is None
    work.answered(at(50), exchange(50, completion_tokens=144, **_SLOW).facts, learn=False)
    slow = work.slow(at(50), 60, 0.33)
    assert slow is not None
    assert (slow.measured, slow.usual) == (pytest.approx(2.0), pytest.approx(40.0))
    assert work.slow(at(111), 60, 0.33) is None


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"completion_tokens": 40, "duration_s": 5.0, "first_token_s": 1.0}, 10.0),
        ({"completion_tokens": 31}, None),
        ({"completion_tokens": None}, None),
        ({"completion_tokens": 40, "status": 500}, None),
        ({"completion_tokens": 40, "error_in_answer": True}, None),
        ({"completion_tokens": 40, "duration_s": 0.0, "first_token_s": None}, None),
        ({"route": Route.TRANSCRIPTIONS, "request_bytes": 160_000, "duration_s": 4.0}, 40_000.0),
        ({"route": Route.TRANSCRIPTIONS, "request_bytes": 1000, "duration_s": 4.0}, None),
    ],
)
def test_an_answer_that_is_too_short_has_no_pace(facts: dict[str, object], expected: float | None) -> None:
    """Tokens a second after the first one, bytes of audio a second; errors and trifles have none."""
    assert pace_of(exchange(1, **facts).facts) == expected  # type: ignore[arg-type]  # facts of many types


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6), st.booleans()), max_size=400))
def test_what_is_remembered_is_bounded(requests: list[tuple[float, float, bool]]) -> None:
    """Any number of requests, in any order, costs a fixed amount of memory."""
    work = ServerWork()
    for number, (end, lasted, on_gpu) in enumerate(requests):
        work.asked(at(end).boot_ns, lasted, on_gpu=on_gpu)
        work.used(usage(end, 1))
        work.answered(at(end), exchange(end, model=str(number)).facts, learn=True)
    assert len(work._requests) <= 256
    assert len(work._stretches) <= 64
    assert len(work._usual) <= 16
    work.burn(at(1e6), 60)
