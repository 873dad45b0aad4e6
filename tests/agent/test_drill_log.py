"""Drills: what is found in what a drill announced is marked, all else is real, and nothing stays open."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from agent.case_notes import decode, encode
from agent.cases import CaseBook, Changes
from agent.drill_log import LINGER_S, REMEMBERED
from agent.finding import Finding, Hysteresis, Place, Verdict
from agent.judge import Judge
from agent.testing import HOST, KERNEL_BOOT, at
from escalation.model import (
    CasePhase,
    CaseReport,
    Evidence,
    FaultClass,
    Incarnation,
    ListenerEvidence,
    Reach,
    ReasonCode,
    Severity,
    Subject,
    SubjectKind,
)
from probes.observation import CgroupId, DrillBegan, DrillEnded, SensorName

SENSOR = SensorName("host.drills")
NAME = "nanobot-drill-0a1b2c3d"
OOM = FaultClass.MEMORY_CGROUP_OOM_KILL
LISTENER = FaultClass.EXPOSURE_OFF_MESH_LISTENER
REAL = Subject(SubjectKind.UNIT, "vllm.service")
OWN = Subject(SubjectKind.UNIT, f"{NAME}.service")
PORT = Subject(SubjectKind.LISTENER, "0.0.0.0:40001/tcp")


def began(
    seconds: float = 0, *, fault: FaultClass = OOM, name: str = NAME, ports: tuple[int, ...] = ()
) -> DrillBegan:
    return DrillBegan(
        sensor=SENSOR,
        at=at(seconds),
        id=name,
        fault_class=fault.value,
        units=(f"{name}.service",),
        cgroups=(f"/{name}",),
        mounts=(f"/run/nanobot-drill/{name}/disk",),
        pids=(77,),
        ports=ports,
    )


def ended(seconds: float, name: str = NAME) -> DrillEnded:
    return DrillEnded(sensor=SENSOR, at=at(seconds), id=name)


def found(
    seconds: float,
    subject: Subject = OWN,
    *evidence: Evidence,
    fault: FaultClass = OOM,
    path: str | None = None,
    pid: int | None = None,
    target: Subject | None = None,
    verdict: Verdict = Verdict.PRESENT,
) -> Finding:
    return Finding(
        verdict=verdict,
        fault_class=fault,
        subject=subject,
        at=at(seconds),
        severity=Severity.HIGH,
        incarnation=Incarnation(KERNEL_BOOT, pid=pid),
        place=Place(CgroupId(1), path) if path else None,
        target=target,
        evidence=evidence,
    )


def listening(port: int) -> ListenerEvidence:
    return ListenerEvidence("0.0.0.0", port, Reach.ALL_INTERFACES, "python3", confirmed=True)


class Host:
    """A case book that is told of drills and findings, and what it says to each."""

    def __init__(self) -> None:
        self.book = self._fresh()

    def _fresh(self) -> CaseBook:
        rules = dict.fromkeys(FaultClass, Hysteresis(clear_hold_s=5))
        return CaseBook(agent_id=HOST, kernel_boot_id=KERNEL_BOOT, hysteresis=rules)

    def tell(self, observation: DrillBegan | DrillEnded) -> None:
        self.book.drills.told(observation)

    def judge(self, *findings: Finding, seconds: float | None = None) -> list[tuple[CasePhase, bool]]:
        now = at(seconds) if seconds is not None else findings[-1].at
        self.changes: Changes = self.book.judge(findings, now)
        return [(body.phase, body.drill) for body in self.changes.bodies]

    def bodies(self) -> list[CaseReport]:
        return list(self.changes.bodies)

    def restart(self, seconds: float) -> None:
        notes = self.book.notes()
        self.book = self._fresh()
        changes, unreadable = self.book.restore(notes, at(seconds))
        assert (changes.bodies, unreadable) == ((), 0)


@pytest.fixture
def host() -> Host:
    return Host()


OPENED, CLEARED = (CasePhase.OPENED, True), (CasePhase.CLEARED, True)


@pytest.mark.parametrize(
    "finding",
    [
        found(1),
        found(1, REAL, target=OWN),
        found(1, Subject(SubjectKind.CGROUP, f"/{NAME}")),
        found(1, Subject(SubjectKind.PROCESS, "python3"), path=f"/{NAME}/inner"),
        found(1, Subject(SubjectKind.PROCESS, "python3"), path=f"/machine/{NAME}"),
        found(1, Subject(SubjectKind.PROCESS, "python3"), path=f"/system.slice/{NAME}.service"),
        found(1, Subject(SubjectKind.MOUNT, f"/run/nanobot-drill/{NAME}/disk")),
        found(1, Subject(SubjectKind.PROCESS, "python3"), pid=77),
        found(1, fault=FaultClass.PROCESS_KILLED_BY_SIGNAL),
    ],
    ids=["unit", "target", "group", "below", "container", "slice", "mount", "pid", "consequence"],
)
def test_what_is_found_in_a_drills_own_is_a_drill(host: Host, finding: Finding) -> None:
    """By its unit, its control group, its mount or its process; a consequence of another class too."""
    host.tell(began())
    assert host.judge(finding) == [OPENED]


@pytest.mark.parametrize(
    "finding",
    [
        found(1, REAL),
        found(1, Subject(SubjectKind.PROCESS, NAME)),
        found(1, Subject(SubjectKind.UNIT, f"{NAME}.service.evil")),
        found(1, Subject(SubjectKind.PROCESS, "x"), path=f"/user.slice/{NAME}0"),
        found(1, Subject(SubjectKind.PROCESS, "x"), path=f"/x{NAME}"),
        found(1, REAL, pid=78),
        found(1, REAL, pid=77, fault=FaultClass.PROCESS_KILLED_BY_SIGNAL),
        found(1, PORT, listening(40_001), fault=LISTENER),
    ],
    ids=["elsewhere", "name", "unit", "group", "prefix", "pid", "class", "port"],
)
def test_the_same_fault_elsewhere_is_real(host: Host, finding: Finding) -> None:
    """Also where something calls itself like the drill, and where another class uses its numbers."""
    host.tell(began())
    assert host.judge(finding) == [(CasePhase.OPENED, False)]


def test_a_port_is_the_drills_only_for_its_own_class(host: Host) -> None:
    """The listener that was announced, and none beside it."""
    host.tell(began(fault=LISTENER, ports=(40_001,)))
    assert host.judge(found(1, PORT, listening(40_001), fault=LISTENER)) == [OPENED]
    other = Subject(SubjectKind.LISTENER, "0.0.0.0:40002/tcp")
    assert host.judge(found(1, other, listening(40_002), fault=LISTENER)) == [(CasePhase.OPENED, False)]


def test_before_and_without_a_drill_everything_is_real(host: Host) -> None:
    """A case that stands open before the drill stays what it is, whatever is announced then."""
    assert host.judge(found(1)) == [(CasePhase.OPENED, False)]
    host.tell(began(2))
    host.judge(replace(found(30), count=9))
    assert [body.drill for body in host.bodies()] == [False]


def test_a_drills_case_that_clears_by_itself_says_so(host: Host) -> None:
    """The detector's own evidence closes it, with its own reasons, and the command is told."""
    host.tell(began())
    host.judge(found(1))
    host.tell(ended(4))
    host.judge(found(5, verdict=Verdict.ABSENT))
    assert host.judge(seconds=10) == [CLEARED]
    assert host.bodies()[0].reasons == ()
    drill = host.book.drills.newest
    assert drill is not None
    assert [(case.by_itself, case.cleared) for case in drill.raised] == [(True, at(10))]


def test_a_drills_case_does_not_outlive_it_for_long(host: Host) -> None:
    """A detector that waits for a day to be sure does not have to: what was made is removed."""
    host.tell(began())
    host.judge(found(1))
    assert host.judge(seconds=500) == []
    host.tell(ended(500))
    assert host.judge(seconds=499 + LINGER_S) == []
    assert host.judge(seconds=500 + LINGER_S) == [CLEARED]
    assert [reason.code for reason in host.bodies()[0].reasons] == [ReasonCode.DRILL_ENDED]
    drill = host.book.drills.newest
    assert drill is not None
    assert [(case.by_itself, case.cleared) for case in drill.raised] == [(False, at(500 + LINGER_S))]
    assert host.book.count_open() == {}


def test_what_is_told_late_is_still_the_drills(host: Host) -> None:
    """An event may lie in a buffer for a moment after the drill has ended."""
    host.tell(began())
    host.tell(ended(2))
    assert host.judge(found(3)) == [OPENED]


def test_remains_are_no_news(host: Host) -> None:
    """A detector that looks back for minutes finds the drill's unit again: that opens nothing."""
    host.tell(began())
    host.tell(ended(2))
    assert host.judge(found(2 + LINGER_S)) == []
    assert host.book.count_open() == {}


def test_a_real_fault_in_the_place_of_a_drill_is_a_case_of_its_own(host: Host) -> None:
    """A server that takes the port that a drill had left is exposed for real."""
    host.tell(began(fault=LISTENER, ports=(40_001,)))
    host.judge(found(1, PORT, listening(40_001), fault=LISTENER))
    first = host.bodies()[0].case_id
    host.tell(ended(2))
    late = found(2 + LINGER_S, PORT, listening(40_001), fault=LISTENER)
    assert host.judge(late) == [CLEARED, (CasePhase.OPENED, False)]
    assert host.bodies()[0].case_id == first
    assert host.bodies()[1].case_id != first


def test_a_drill_is_remembered_over_a_restart_of_the_agent(host: Host) -> None:
    """Its case stays marked; where the drill ended meanwhile, it is closed all the same."""
    host.tell(began())
    host.judge(found(1))
    host.restart(2)
    host.tell(began(2))
    assert host.judge(seconds=100) == []
    host.restart(101)
    assert host.judge(seconds=101) == []
    assert host.judge(seconds=101 + LINGER_S) == [CLEARED]


def test_a_note_of_an_agent_that_knew_no_drills_is_read(host: Host) -> None:
    """Its case is real."""
    host.judge(found(1))
    (raw,) = host.book.notes().values()
    note = decode(raw)
    assert note is not None
    assert note.drill == ""
    older = raw.replace(b',"drill":""', b"")
    assert older != raw
    assert decode(older) == note
    assert decode(encode(replace(note, drill=NAME))) == replace(note, drill=NAME)


def test_few_drills_are_remembered(host: Host) -> None:
    """However many there were, and whatever was told of them twice."""
    for number in range(3 * REMEMBERED):
        name = f"nanobot-drill-{number:08x}"
        host.tell(began(number, name=name))
        host.tell(began(number, name=name))
        host.tell(ended(number, name))
        host.tell(ended(number, name))
    host.tell(ended(99, "nanobot-drill-ffffffff"))
    assert repr(host.book.drills).count("nanobot-drill-") == REMEMBERED


_own = st.sampled_from([OWN, Subject(SubjectKind.CGROUP, f"/{NAME}"), PORT])
REALS = (REAL, Subject(SubjectKind.LISTENER, "0.0.0.0:8000/tcp"))
_real = st.sampled_from(REALS)
_step = st.one_of(
    st.tuples(st.just("began")),
    st.tuples(st.just("ended")),
    st.tuples(st.just("seen"), _own | _real),
    st.tuples(st.just("over"), _own | _real),
    st.tuples(st.just("restart")),
    st.tuples(st.just("pause"), st.sampled_from([1, 4, 30])),
)


class _Walk:
    """A host through a random life: every report keeps to the kind that its case was opened with."""

    def __init__(self) -> None:
        self.host, self.now, self.on = Host(), 0.0, False
        self.kinds: dict[str, bool] = {}

    def judge(self, *findings: Finding) -> None:
        self.host.judge(*findings, seconds=self.now)
        for body in self.host.bodies():
            if body.phase is CasePhase.OPENED:
                assert body.case_id not in self.kinds
                self.kinds[body.case_id] = body.drill
                assert not (body.drill and body.subject in REALS)
            assert self.kinds[body.case_id] is body.drill

    def announce(self, *, on: bool) -> None:
        if on or self.on:
            self.host.tell(began(self.now, fault=LISTENER, ports=(40_001,)) if on else ended(self.now))
        self.on = on

    def step(self, kind: str, *of: Any) -> None:
        self.now += 0.5
        match kind, of:
            case "began" | "ended", _:
                self.announce(on=kind == "began")
            case "seen", (subject,):
                port = int(subject.name.rpartition(":")[2][:-4]) if subject.kind is PORT.kind else 1
                self.judge(found(self.now, subject, listening(port), fault=LISTENER))
            case "over", (subject,):
                self.judge(found(self.now, subject, fault=LISTENER, verdict=Verdict.ABSENT))
            case "restart", _:
                self.host.restart(self.now)
                self.announce(on=self.on)
            case _, (seconds,):
                self.now += seconds
                self.judge()


@given(steps=st.lists(_step, max_size=40))
def test_whatever_happens_no_case_changes_its_kind_or_outlives_its_drill(
    steps: list[tuple[Any, ...]],
) -> None:
    """Opened once, a drill or not for all its life; what is real stays real; at the end no drill is left."""
    walk = _Walk()
    for step in steps:
        walk.step(*step)
    walk.announce(on=False)
    walk.judge()
    walk.now += LINGER_S + 1
    walk.judge()
    assert not [note for note in map(decode, walk.host.book.notes().values()) if note and note.drill]


def test_the_judge_tells_the_book_and_no_detector(host: Host) -> None:
    """Drills are no business of detectors, which judge a drill as they would judge the fault."""
    judge = Judge(detectors=(), book=host.book, failed=lambda _, error: pytest.fail(str(error)))
    judge.observe([began()], at(0))
    assert host.book.drills.newest is not None
    judge.observe([ended(1)], at(1))
    assert host.book.drills.newest.ended == at(1)
