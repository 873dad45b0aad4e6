"""F34: a filesystem without room, and everything that only looks like it."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from agent.detectors.storage_full import Config, StorageFull
from agent.finding import Finding, Verdict
from agent.testing import SURROUNDINGS, at, blind, open_case, origin, present, seeing, tick
from escalation.model import FaultClass, ReasonCode, Severity, StorageEvidence, Subject, SubjectKind
from probes.observation import LogLine, SensorName, Sight, StorageFailure, StorageRole
from tests.agent.detectors.filesystems import ERRORS, GIB, LOOKS, THIS, errors, filesystem, look

FAULT = FaultClass.STORAGE_FULL


@pytest.fixture
def detector() -> StorageFull:
    """A detector whose sensors see."""
    made = StorageFull.build(Config(), SURROUNDINGS)
    for sensor in (LOOKS, ERRORS):
        made.observe(seeing(0, sensor))
    return made


def _codes(found: Finding) -> list[ReasonCode]:
    return [reason.code for reason in found.reasons]


def test_no_space_and_refused_writes_are_high(detector: StorageFull) -> None:
    """Both layers, with what is free and how many writes were refused."""
    (found,) = present(detector, look(0, free_bytes=0), errors(1, StorageFailure.WRITE, count=7))
    assert (found.severity, found.subject, found.count) == (Severity.HIGH, THIS, 7)
    assert _codes(found) == [ReasonCode.SPACE_LOW, ReasonCode.WRITES_REFUSED]
    evidence = found.evidence[0]
    assert isinstance(evidence, StorageEvidence)
    assert (evidence.free_bytes, evidence.refused_writes) == (0, 7)


def test_refusals_before_the_look_count_as_well(detector: StorageFull) -> None:
    """A disk fills between two looks: what was refused meanwhile is judged by the next."""
    (found,) = present(detector, look(0), errors(5, StorageFailure.WRITE), look(15, free_bytes=GIB))
    assert found.severity is Severity.HIGH


def test_no_inodes_look_like_a_full_disk_with_room(detector: StorageFull) -> None:
    """Half of the space is free, and files are refused by that filesystem."""
    (found,) = present(
        detector, look(0, free_inodes=3), errors(1, StorageFailure.INODE, device="8:1", count=4)
    )
    assert (found.severity, _codes(found)) == (
        Severity.HIGH,
        [ReasonCode.INODES_LOW, ReasonCode.WRITES_REFUSED],
    )


def test_a_line_of_postgresql_is_a_second_layer(detector: StorageFull) -> None:
    """On a host where no program sees the refused write."""
    line = LogLine(
        sensor=SensorName("host.logs"), at=at(1), origin=origin(), pattern="postgresql.disk_full", count=2
    )
    (found,) = present(detector, look(0, free_bytes=0), line)
    assert (found.severity, _codes(found)) == (
        Severity.HIGH,
        [ReasonCode.SPACE_LOW, ReasonCode.LOG_LINE_MATCHES],
    )
    assert present(detector, look(2, mount="/", device="8:9"), line) == []


def test_little_space_alone_is_a_note_after_a_while(detector: StorageFull) -> None:
    """One layer: told only when it lasts, and it says that the second is missing."""
    assert present(detector, look(0, free_bytes=GIB), look(45, free_bytes=GIB)) == []
    (found,) = present(detector, look(75, free_bytes=GIB))
    assert (found.severity, _codes(found)) == (
        Severity.NOTE,
        [ReasonCode.SPACE_LOW, ReasonCode.SECOND_LAYER_UNKNOWN],
    )


def test_what_fills_is_told_before_it_is_full(detector: StorageFull) -> None:
    """Falling by 100 GiB an hour with 150 left: a note with the time that is left."""
    found = present(detector, *(look(60 * n, free_bytes=int((150 - n * 100 / 60) * GIB)) for n in range(10)))
    assert found[0].severity is Severity.NOTE
    assert ReasonCode.SPACE_FALLS in _codes(found[0])
    evidence = found[0].evidence[0]
    assert isinstance(evidence, StorageEvidence)
    assert evidence.full_in_s is not None
    assert 4000 < evidence.full_in_s < 5400


def test_a_download_into_an_empty_disk_is_no_trend(detector: StorageFull) -> None:
    """Hundreds of gibibytes are left: that a model is fetched is what the disk is for."""
    assert present(detector, *(look(60 * n, free_bytes=(500 - 10 * n) * GIB) for n in range(20))) == []


def test_a_disk_that_nobody_named_is_medium(detector: StorageFull) -> None:
    """It is full all the same, and matters less."""
    (found,) = present(
        detector, look(0, role=StorageRole.OTHER, free_bytes=0), errors(1, StorageFailure.WRITE)
    )
    assert found.severity is Severity.MEDIUM


@pytest.mark.parametrize(
    "facts",
    [
        {"free_bytes": 0, "read_only": True, "filesystem": "squashfs"},
        {"free_bytes": 0, "free_inodes": 0, "read_only": True},
        {"total_bytes": 0, "free_bytes": 0, "total_inodes": None, "free_inodes": None},
        {"total_inodes": None, "free_inodes": None},
        {"mounted": False, "sight": Sight.HIDDEN, "total_bytes": None, "free_bytes": None},
    ],
)
def test_what_is_full_by_design_stays_quiet(detector: StorageFull, facts: dict[str, object]) -> None:
    """Images, read-only mounts, filesystems without sizes or inodes, and what is not mounted."""
    story = [look(60 * n, **facts) for n in range(5)]
    assert present(detector, *story, errors(301, StorageFailure.WRITE)) == []


@pytest.mark.parametrize(
    "refused",
    [
        errors(1, StorageFailure.WRITE, errno=122),
        errors(1, StorageFailure.SYNC, errno=5),
        errors(1, StorageFailure.FALLOCATE, where=origin()),
        errors(1, StorageFailure.INODE, device="9:9"),
    ],
    ids=["over quota", "I/O error", "shared memory of a container", "another filesystem"],
)
def test_a_refusal_of_another_sort_is_no_second_layer(detector: StorageFull, refused: object) -> None:
    """It does not make low space more than a note."""
    found = present(detector, look(0, free_bytes=GIB), refused, look(120, free_bytes=GIB))
    assert {each.severity for each in found} <= {Severity.NOTE}


def test_a_refused_write_while_there_is_room_stays_quiet(detector: StorageFull) -> None:
    """A tmpfs, /dev/full or a cgroup file refuses too."""
    assert present(detector, look(0), errors(1, StorageFailure.WRITE, count=1000), look(15)) == []


def test_room_again_clears(detector: StorageFull) -> None:
    """Twice the floor is free, and no refusal is fresh; a little room changes nothing."""
    detector.observe(look(0, free_bytes=0))
    detector.observe(errors(1, StorageFailure.WRITE))
    assert list(detector.observe(look(700, free_bytes=15 * GIB))) == []
    (found,) = detector.observe(look(760, free_bytes=30 * GIB))
    assert (found.verdict, found.subject, _codes(found)) == (
        Verdict.ABSENT,
        THIS,
        [ReasonCode.SPACE_FREE_AGAIN],
    )


def test_a_filesystem_that_was_taken_away_is_not_full_for_ever(detector: StorageFull) -> None:
    """An inventory without it, for long enough, ends the case; an inventory that left some out does not."""
    other = filesystem(mount="/", device="8:2")
    case = open_case(FAULT, THIS, last_seen=at(0))
    detector.observe(look(400, other, left_out=3))
    assert list(detector.tick(tick(401, case))) == []
    detector.observe(look(410, other))
    assert list(detector.tick(tick(200, case))) == []
    (found,) = detector.tick(tick(420, case))
    assert (found.verdict, _codes(found)) == (Verdict.ABSENT, [ReasonCode.MOUNT_MISSING])


def test_keeps_open_when_the_source_goes_blind(detector: StorageFull) -> None:
    """A blind sensor, and a filesystem that does not answer, are unknown and not room."""
    case = open_case(FAULT, THIS)
    (found,) = detector.observe(look(0, sight=Sight.NOT_ANSWERING, free_bytes=None, total_bytes=None))
    assert (found.verdict, found.subject) == (Verdict.UNKNOWN, THIS)
    (found,) = detector.observe(blind(1, LOOKS))
    assert found.verdict is Verdict.UNKNOWN
    assert [each.verdict for each in detector.tick(tick(2, case))] == [Verdict.UNKNOWN]


def test_the_worst_names_are_carried(detector: StorageFull) -> None:
    """A mount point that is no text, and longer than the wire carries, makes a subject that can be sent."""
    mount = "/mnt/\udcff" + "x" * 5000
    (found,) = present(detector, look(0, mount=mount, free_bytes=0), errors(1, StorageFailure.WRITE))
    assert found.subject is not None
    assert len(found.subject.name.encode()) <= 1024
    assert found.subject.kind is SubjectKind.MOUNT
    assert found.subject != Subject(SubjectKind.MOUNT, mount)


@given(
    st.lists(
        st.tuples(st.integers(0, 10**15), st.integers(0, 10**15), st.none() | st.integers(0, 10**9)),
        max_size=30,
    )
)
def test_any_sizes_are_judged(sizes: list[tuple[int, int, int | None]]) -> None:
    """Whatever a filesystem says, a verdict or none comes back, and a case never opens and clears at once."""
    detector = StorageFull.build(Config(), SURROUNDINGS)
    detector.observe(seeing(0, LOOKS))
    for number, (total, free, files) in enumerate(sizes):
        found = detector.observe(
            look(15 * number, total_bytes=total, free_bytes=free, total_inodes=files, free_inodes=files)
        )
        assert len(found) <= 1
