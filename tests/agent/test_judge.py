"""The judge asks for whom its detectors ask, and carries what they learnt over a change of their settings."""

from __future__ import annotations

from agent.cases import CaseBook
from agent.detector import Detector, ProcessKey
from agent.detectors.fd_exhausted import Config as DescriptorConfig, FdExhausted
from agent.detectors.route_baseline import Config, RouteBaseline
from agent.judge import Judge, hysteresis_of
from agent.testing import HOST, KERNEL_BOOT, SURROUNDINGS, at, exchange
from agent.testing_pressure import refused


def judge_of(detector: Detector, errors: list[str]) -> Judge:
    """Return a judge of one detector."""
    book = CaseBook(agent_id=HOST, kernel_boot_id=KERNEL_BOOT, hysteresis=hysteresis_of((detector,)))
    return Judge(detectors=(detector,), book=book, failed=lambda name, _: errors.append(name))


def test_a_reload_forgets_nothing_that_was_learnt() -> None:
    """A new detector with other thresholds goes on from what the old one knew."""
    judge = judge_of(RouteBaseline.build(Config(), SURROUNDINGS), [])
    judge.observe([exchange(second, streamed=True) for second in range(20)], at(20))
    memory = judge.memory()
    fresh = RouteBaseline.build(Config(slow_in_a_row=9), SURROUNDINGS)
    judge.retune((fresh,), ())
    assert judge.memory() == memory
    assert len(fresh.memory()) == len(memory) == 3


def test_a_detector_whose_memory_fails_is_counted_and_costs_no_other_its_own() -> None:
    """A defect in remembering is a detector's error like any other."""

    class Forgetful(RouteBaseline):
        def memory(self) -> dict[str, bytes]:
            raise ZeroDivisionError

        def recall(self, _: object) -> int:
            raise ZeroDivisionError

    errors: list[str] = []
    judge = judge_of(Forgetful.build(Config(), SURROUNDINGS), errors)
    assert judge.memory() == {}
    assert judge.recall({"route_baseline/x": b""}) == 0
    assert errors == ["route_baseline"] * 2


def test_processes_are_asked_about_while_the_detectors_that_are_there_ask() -> None:
    """Most detectors ask for none; after a change of settings it is the new ones that ask."""
    first, second = (FdExhausted.build(DescriptorConfig(), SURROUNDINGS) for _ in range(2))
    judge = judge_of(first, [])
    judge.observe([refused(1, 50)], at(1))
    assert judge.questions().processes == {ProcessKey(4711, 100)}
    judge.retune((RouteBaseline.build(Config(), SURROUNDINGS),), ())
    assert judge.questions().processes == frozenset()
    judge.retune((second,), ())
    judge.observe([refused(2, 50)], at(2))
    assert judge.questions().processes == {ProcessKey(4711, 100)}
