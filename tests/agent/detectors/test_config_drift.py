"""F42: a server that came back otherwise, and everything that only looks so."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from agent.detectors.config_drift import SERVERS_MAX, Config, ConfigDrift
from agent.finding import Finding, Verdict
from agent.testing import CONTAINER, SURROUNDINGS, at, blind, open_case, origin, present, seeing, tick
from escalation.model import (
    Change,
    DriftEvidence,
    FaultClass,
    ReasonCode,
    ServerKind as WireServer,
    Severity,
    Subject,
    SubjectKind,
)
from probes.observation import CommandLine, CommandLines, Origin, SensorName, ServerKind
from probes.observed.scope import CommandPart, PartPrint

FAULT = FaultClass.SERVICE_CONFIG_DRIFT
SENSOR = SensorName("host.command_lines")
UNIT = "vllm.service"
SUBJECT = Subject(SubjectKind.UNIT, UNIT)
SERVER = origin(container=None, unit=UNIT, cgroup_path=f"/system.slice/{UNIT}", name="vllm")


def line(
    started: float,
    *,
    pid: int = 10,
    port: int = 8000,
    where: Origin = SERVER,
    context: int | None = 32768,
    **parts: str,
) -> CommandLine:
    """Return how a server was started; parts have prints as good as any other words."""
    words = {"model": "m1", "context": str(context), "executable": "e1", **parts}
    life = Origin(
        cgroup_id=where.cgroup_id,
        cgroup_path=where.cgroup_path,
        unit=where.unit,
        container_id=where.container_id,
        pid=pid,
        start_ticks=int((started + 10_000) * 100),
        process_name=where.process_name,
        server=ServerKind.VLLM,
    )
    return CommandLine(
        origin=life,
        started=at(started),
        port=port,
        print="/".join(words.get(part.value, "") for part in CommandPart),
        parts=tuple(PartPrint(part, words.get(part.value, "")) for part in CommandPart),
        context_tokens=context,
    )


def look(seconds: float, *lines: CommandLine, key: str = "k", accepted: tuple[str, ...] = ()) -> CommandLines:
    """Return one look at all servers."""
    return CommandLines(sensor=SENSOR, at=at(seconds), key=key, lines=lines, complete=True, accepted=accepted)


@pytest.fixture
def detector() -> ConfigDrift:
    """A detector that knows a server which has run well for an hour."""
    judge = ConfigDrift.build(Config(), SURROUNDINGS)
    judge.observe(seeing(0, SENSOR))
    assert not present(judge, look(3600, line(0)))
    return judge


def ended(found: object) -> list[tuple[Subject | None, ReasonCode]]:
    """Return what is over, and why."""
    assert isinstance(found, (list, tuple))
    over = [f for f in found if isinstance(f, Finding) and f.verdict is Verdict.ABSENT]
    return [(f.subject, f.reasons[0].code) for f in over]


def test_another_command_line_is_a_case(detector: ConfigDrift) -> None:
    """Medium, about the unit, with what changed; the next look at it is no new sighting."""
    found, again = present(
        detector,
        look(3700, line(3660, pid=11, context=8192)),
        look(3730, line(3660, pid=11, context=8192)),
    )
    assert (found.subject, found.severity, found.count, again.count) == (SUBJECT, Severity.MEDIUM, 1, 0)
    assert [reason.code for reason in found.reasons] == [
        ReasonCode.COMMAND_LINE_CHANGED,
        ReasonCode.CONTEXT_CHANGED,
    ]
    (evidence,) = found.evidence
    assert isinstance(evidence, DriftEvidence)
    assert (evidence.server, evidence.changes) == (WireServer.VLLM, (Change.CONTEXT,))
    assert (evidence.context_before, evidence.context_now, evidence.ran_s) == (32768, 8192, 3600.0)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("model", Change.MODEL),
        ("quantization", Change.QUANTIZATION),
        ("parser", Change.PARSER),
        ("memory", Change.MEMORY),
        ("parallelism", Change.PARALLELISM),
        ("address", Change.ADDRESS),
        ("executable", Change.EXECUTABLE),
        ("other", Change.OTHER_OPTION),
    ],
)
def test_every_part_has_its_word(detector: ConfigDrift, part: str, change: Change) -> None:
    """What changed is said, not what it was."""
    (found,) = present(detector, look(3700, line(3660, pid=11, **{part: "another"})))
    (evidence,) = found.evidence
    assert isinstance(evidence, DriftEvidence)
    assert evidence.changes == (change,)
    assert (ReasonCode.MODEL_CHANGED in {reason.code for reason in found.reasons}) is (part == "model")


def test_a_restart_with_the_same_line_is_quiet(detector: ConfigDrift) -> None:
    """Deploys and crashes restart too."""
    assert not present(detector, look(3700, line(3660, pid=11)), look(9000, line(8000, pid=12)))


def test_the_first_seconds_of_a_process_are_not_judged(detector: ConfigDrift) -> None:
    """A shell may still become the server by exec."""
    assert not present(detector, look(3670, line(3660, pid=11, executable="sh")))
    assert not present(detector, look(3700, line(3660, pid=11)))


def test_a_line_that_never_ran_well_is_no_record() -> None:
    """Somebody tries flags until it works: none of the tries is what it must be."""
    judge = ConfigDrift.build(Config(), SURROUNDINGS)
    tries = [look(100 * n, line(100 * n - 50, pid=n, memory=str(n))) for n in range(1, 7)]
    assert not present(judge, *tries)
    assert not present(judge, look(2000, line(900, pid=9)))
    assert present(judge, look(2100, line(2050, pid=10, memory="another")))


def test_two_of_one_kind_and_port_are_not_judged(detector: ConfigDrift) -> None:
    """They cannot be told apart: which of them came back as what?"""
    two = [line(3660, pid=11, context=1), line(3660, pid=12, context=2)]
    assert not present(detector, look(3700, *two))


def test_who_is_only_looked_at_for_secrets_is_not_judged(detector: ConfigDrift) -> None:
    """It has no print."""
    stranger = CommandLine(origin=SERVER, started=at(0), port=0, print="")
    assert not present(detector, look(3700, stranger))


def test_another_key_makes_no_difference(detector: ConfigDrift) -> None:
    """After the key was lost every print is another one, and no server is."""
    assert not present(detector, look(3700, line(0, context=1), key="other"))
    assert present(detector, look(9000, line(8000, pid=12, context=2), key="other"))


def test_clears_when_the_recorded_line_is_back(detector: ConfigDrift) -> None:
    """That is the proof: the print is the one of the record."""
    present(detector, look(3700, line(3660, pid=11, context=1)))
    assert ended(detector.observe(look(3800, line(3770, pid=12)))) == [(SUBJECT, ReasonCode.BACK_AS_RECORDED)]
    (again,) = present(detector, look(3900, line(3870, pid=13, context=1)))
    assert again.count == 1


def test_clears_when_a_person_accepts_the_change(detector: ConfigDrift) -> None:
    """From then on it is what is recorded, and the old one would be another change."""
    present(detector, look(3700, line(3660, pid=11, context=1)))
    over = detector.observe(look(3730, line(3660, pid=11, context=1), accepted=(UNIT,)))
    assert ended(over) == [(SUBJECT, ReasonCode.CHANGE_ACCEPTED)]
    assert not present(detector, look(3760, line(3660, pid=11, context=1)))
    assert present(detector, look(3900, line(3870, pid=12)))


def test_clears_when_the_accepted_server_is_not_there(detector: ConfigDrift) -> None:
    """A person's word about a case that stands open ends it."""
    present(detector, look(3700, line(3660, pid=11, context=1)))
    detector.observe(look(3730, accepted=(UNIT,)))
    case = open_case(FAULT, SUBJECT)
    assert ended(detector.tick(tick(3731, case))) == [(SUBJECT, ReasonCode.CHANGE_ACCEPTED)]
    assert ended(detector.tick(tick(3732, case))) == []


def test_clears_when_it_has_run_for_a_day(detector: ConfigDrift) -> None:
    """Its time adds up over lives of the same line, and only while it runs."""
    lives = [(4000.0, 50_000.0), (100_000.0, 200_000.0)]
    looks = [(start, start + ran) for start, end in lives for ran in range(100, int(end - start), 100)]
    accepted = next(
        now
        for start, now in looks
        if ended(detector.observe(look(now, line(start, pid=int(start), context=1))))
    )
    first_life_s = lives[0][1] - lives[0][0]
    assert accepted == pytest.approx(100_000.0 + 86_400 - first_life_s, abs=600)


def test_a_server_that_is_away_changes_nothing(detector: ConfigDrift) -> None:
    """Absence neither opens a case nor clears one."""
    present(detector, look(3700, line(3660, pid=11, context=1)))
    assert ended(detector.observe(look(3730))) == []
    assert detector.tick(tick(3731, open_case(FAULT, SUBJECT))) == []


def test_keeps_open_when_source_goes_blind(detector: ConfigDrift) -> None:
    """What cannot be seen is unknown."""
    detector.observe(blind(3700, SENSOR))
    (found,) = detector.tick(tick(3701, open_case(FAULT, SUBJECT)))
    assert found.verdict is Verdict.UNKNOWN
    detector.observe(look(3730))
    assert detector.tick(tick(3731, open_case(FAULT, SUBJECT))) == []


def test_a_container_that_is_made_anew_is_the_same_server() -> None:
    """Known by kind and port: the case of the one that is gone ends, and its successor's opens."""
    judge = ConfigDrift.build(Config(), SURROUNDINGS)
    first = origin()
    second = origin(container="d" * 64, cgroup_path=f"/docker/{'d' * 64}", cgroup_id=9)
    third = origin(container="e" * 64, cgroup_path=f"/docker/{'e' * 64}", cgroup_id=10)
    assert not present(judge, look(3600, line(0, where=first)))
    (found,) = present(judge, look(3700, line(3660, pid=11, where=second, context=1)))
    assert found.subject == Subject(SubjectKind.CONTAINER, "d" * 64)
    moved = judge.observe(look(3800, line(3770, pid=12, where=third, context=1)))
    assert ended(moved) == [(Subject(SubjectKind.CONTAINER, "d" * 64), ReasonCode.CGROUP_GONE)]
    assert [f.subject for f in moved if f.verdict is Verdict.PRESENT] == [
        Subject(SubjectKind.CONTAINER, "e" * 64)
    ]
    back = judge.observe(look(3900, line(3870, pid=13, where=first)))
    assert ended(back) == [(Subject(SubjectKind.CONTAINER, "e" * 64), ReasonCode.BACK_AS_RECORDED)]
    assert CONTAINER != "e" * 64


def test_what_is_recorded_outlives_the_agent(detector: ConfigDrift) -> None:
    """A successor judges as its predecessor would have, and clears its case."""
    successor = ConfigDrift.build(Config(), SURROUNDINGS)
    assert successor.recall(detector.memory()) == 0
    (found,) = present(successor, look(3700, line(3660, pid=11, context=1)))
    third = ConfigDrift.build(Config(), SURROUNDINGS)
    assert third.recall(successor.memory()) == 0
    (again,) = present(third, look(3730, line(3660, pid=11, context=1)))
    assert (found.count, again.count) == (1, 0)
    assert ended(third.observe(look(3800, line(3770, pid=12)))) == [(SUBJECT, ReasonCode.BACK_AS_RECORDED)]


def test_a_case_ends_though_a_crash_lost_that_it_was_opened(detector: ConfigDrift) -> None:
    """What is learnt is kept each hour, a case at once: what was recorded before the drift is back."""
    memory = detector.memory()
    present(detector, look(3700, line(3660, pid=11, context=1)))
    successor = ConfigDrift.build(Config(), SURROUNDINGS)
    successor.recall(memory)
    assert ended(successor.observe(look(3800, line(3770, pid=12)))) == [
        (SUBJECT, ReasonCode.BACK_AS_RECORDED)
    ]


@given(st.dictionaries(st.text(max_size=20), st.binary(max_size=80), max_size=5))
def test_a_memory_that_cannot_be_read_is_counted(memory: dict[str, bytes]) -> None:
    """Whatever lies there."""
    assert 0 <= ConfigDrift.build(Config(), SURROUNDINGS).recall(memory) <= len(memory)


def test_holds_a_bounded_number_of_servers() -> None:
    """The host decides how many there are."""
    judge = ConfigDrift.build(Config(), SURROUNDINGS)
    for number in range(SERVERS_MAX + 50):
        where = origin(container=None, unit=f"v{number}.service", cgroup_path=None)
        judge.observe(look(3600 + number, line(0, where=where)))
    assert len(judge.memory()) == SERVERS_MAX
    assert sum(map(len, judge.memory().values())) < 64 * 1024
