"""F28 on one host: a rank waits for another while requests wait for it, and what only looks like it."""

from __future__ import annotations

import pytest

from agent.detectors.distributed_rank import Config, DistributedRank
from agent.finding import Verdict
from agent.testing import (
    SURROUNDINGS,
    at,
    blind,
    exchange,
    in_flight,
    log_line,
    open_case,
    origin,
    present,
    seeing,
    tick,
)
from escalation.model import (
    FaultClass,
    FlightEvidence,
    LogEvidence,
    ReasonCode,
    Severity,
    Subject,
    SubjectKind,
)
from probes.http.facts import Ending
from probes.observation import SensorName, ServerGauge, ServerKind, ServerMetrics
from probes.observed.server_metrics import GaugeRead

FAULT = FaultClass.DISTRIBUTED_RANK_STALL
ROUTE = Subject(SubjectKind.ROUTE, "8000/chat_completions qwen3-32b")
BLOCKED = "vllm.broadcast_blocked"


@pytest.fixture
def detector() -> DistributedRank:
    """A detector whose sensors see."""
    made = DistributedRank.build(Config(), SURROUNDINGS)
    for sensor in ("host.logs", "http.routes"):
        made.observe(seeing(0, sensor))
    return made


@pytest.mark.parametrize("line_first", [True, False])
@pytest.mark.parametrize("pattern", [BLOCKED, "vllm.rpc_timeout", "trtllm.hang"])
def test_the_line_with_requests_that_wait_is_a_case(
    detector: DistributedRank, pattern: str, line_first: bool
) -> None:
    """The engine says that a rank does not answer, and no byte came on any request for half a minute."""
    waiting = in_flight(61, oldest_s=60)
    line = log_line(60 if line_first else 62, pattern, where=origin(), seconds=60)
    (found,) = present(detector, *((line, waiting) if line_first else (waiting, line)))
    assert (found.fault_class, found.subject, found.severity) == (FAULT, ROUTE, Severity.CRITICAL)
    assert [reason.code for reason in found.reasons] == [
        ReasonCode.BROADCAST_BLOCKED,
        ReasonCode.NO_BYTES_WHILE_IN_FLIGHT,
    ]
    assert [type(each) for each in found.evidence] == [LogEvidence, FlightEvidence]
    assert found.target is not None


def test_the_engines_own_numbers_are_a_third_layer(detector: DistributedRank) -> None:
    """Tokens stand still while it runs requests."""
    flat = log_line(60, "vllm.throughput_zero", where=origin(), running=2, waiting=1)
    (found,) = present(detector, flat, log_line(60, BLOCKED), in_flight(61, oldest_s=60))
    assert found.reasons[-1].code is ReasonCode.TOKEN_COUNTERS_FLAT
    assert found.reasons[-1].count == 2


def _numbers(seconds: float, tokens: float, running: float, *, port: int = 8000) -> ServerMetrics:
    return ServerMetrics(
        sensor=SensorName("host.server_metrics"),
        at=at(seconds),
        server=ServerKind.VLLM,
        port=port,
        gauges=(
            GaugeRead(ServerGauge.GENERATED_TOKENS, tokens),
            GaugeRead(ServerGauge.REQUESTS_RUNNING, running),
        ),
    )


@pytest.mark.parametrize(
    ("numbers", "agree"),
    [
        ([_numbers(30, 900, 2), _numbers(45, 900, 2)], True),
        ([_numbers(30, 900, 2), _numbers(45, 950, 2)], False),
        ([_numbers(30, 900, 0), _numbers(45, 900, 0)], False),
        ([_numbers(30, 900, 2, port=8001), _numbers(45, 900, 2, port=8001)], False),
        ([_numbers(45, 900, 2)], False),
        ([_numbers(1, 900, 2), _numbers(10, 900, 2)], False),
    ],
)
def test_numbers_of_the_server_may_agree(
    detector: DistributedRank, numbers: list[ServerMetrics], agree: bool
) -> None:
    """Scraped from that port a moment ago: requests run, and the count of tokens stands still."""
    (found,) = present(detector, *numbers, log_line(60, BLOCKED), in_flight(61, oldest_s=60))
    assert (ReasonCode.METRICS_AGREE in {reason.code for reason in found.reasons}) is agree


def test_one_stall_is_counted_once(detector: DistributedRank) -> None:
    """It is told every few seconds while it lasts."""
    found = present(
        detector, log_line(60, BLOCKED), *[in_flight(61 + s, oldest_s=60 + s) for s in range(0, 30, 5)]
    )
    assert [each.count for each in found] == [1, 0, 0, 0, 0, 0]


def test_weights_that_load_stay_quiet(detector: DistributedRank) -> None:
    """The same line each minute while kernels compile, and nobody has asked for anything."""
    assert (
        present(detector, *[log_line(60 * n, BLOCKED, where=origin()) for n in range(1, 20)], tick(1200))
        == []
    )


def test_requests_that_move_stay_quiet(detector: DistributedRank) -> None:
    """Bytes came a moment ago: the line speaks of a worker that is busy."""
    assert present(detector, log_line(60, BLOCKED), in_flight(61, oldest_s=60, silent_s=2)) == []


def test_requests_of_long_ago_stay_quiet(detector: DistributedRank) -> None:
    """What waited before it was answered, or before the sensor last told, does not wait now."""
    answered = exchange(70)
    assert present(detector, in_flight(61, oldest_s=60), answered, log_line(72, BLOCKED)) == []
    assert present(detector, in_flight(1000, oldest_s=60), log_line(1100, BLOCKED)) == []


def test_a_stall_without_the_line_is_another_class(detector: DistributedRank) -> None:
    """A silent engine alone is judged by its route."""
    assert present(detector, *[in_flight(s, oldest_s=s) for s in range(60, 600, 5)]) == []


def test_an_old_line_stays_quiet(detector: DistributedRank) -> None:
    """The line of a load that is long over does not make a slow answer a stall."""
    assert present(detector, log_line(60, BLOCKED), in_flight(600, oldest_s=60)) == []


def test_a_line_of_another_container_stays_quiet(detector: DistributedRank) -> None:
    """Two engines on one host: one compiles, the other is slow."""
    other = origin(container="b" * 64)
    assert present(detector, log_line(60, BLOCKED, where=other), in_flight(61, oldest_s=60)) == []


@pytest.mark.parametrize("server", [ServerKind.LITELLM, ServerKind.OLLAMA])
def test_who_waits_for_no_rank_stays_quiet(detector: DistributedRank, server: ServerKind) -> None:
    """A router waits for the engine, and is not what has ranks."""
    waits = in_flight(
        61, port=4000, oldest_s=60, where=origin(container=None, unit="x.service", server=server)
    )
    assert present(detector, log_line(60, BLOCKED), waits) == []


def test_clears_on_good_answers(detector: DistributedRank) -> None:
    """Two good answers in a row since; one, or one cut short in between, is not enough."""
    present(detector, log_line(60, BLOCKED), in_flight(61, oldest_s=60))
    case = open_case(FAULT, ROUTE, last_seen=at(61))
    detector.observe(exchange(70))
    assert detector.tick(tick(71, case)) == []
    detector.observe(exchange(72, ending=Ending.CUT))
    detector.observe(exchange(73))
    assert detector.tick(tick(74, case)) == []
    detector.observe(exchange(75))
    (over,) = detector.tick(tick(76, case))
    assert (over.verdict, over.reasons[0].code) == (Verdict.ABSENT, ReasonCode.ENGINE_ANSWERS_AGAIN)


def test_keeps_open_when_source_goes_blind(detector: DistributedRank) -> None:
    """Nothing is known of answers that cannot be seen, and what was seen before does not count."""
    present(detector, log_line(60, BLOCKED), in_flight(61, oldest_s=60))
    detector.observe(exchange(70))
    detector.observe(exchange(71))
    (unknown,) = detector.observe(blind(72, "http.routes"))
    assert unknown.verdict is Verdict.UNKNOWN
    assert detector.tick(tick(1e5, open_case(FAULT, ROUTE, last_seen=at(61)))) == []


def test_keeps_open_while_nothing_is_asked(detector: DistributedRank) -> None:
    """Clients that gave up are no recovery."""
    present(detector, log_line(60, BLOCKED), in_flight(61, oldest_s=60))
    assert detector.tick(tick(5000, open_case(FAULT, ROUTE, last_seen=at(61)))) == []


def test_what_is_remembered_is_bounded(detector: DistributedRank) -> None:
    """Ports, models and lines come from outside."""
    for number in range(1, 1000):
        detector.observe(log_line(60 + number / 100, BLOCKED))
        detector.observe(in_flight(61 + number / 100, port=number, model=f"m{number}", oldest_s=60))
    assert len(detector._ports) <= 64
    assert len(detector._said) <= 256
    assert len(detector._log.blocked) <= 64
