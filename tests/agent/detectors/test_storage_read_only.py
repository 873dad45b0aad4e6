"""F35: a filesystem that can no longer be written, fails or has gone, and what only looks like it."""

from __future__ import annotations

import pytest

from agent.detectors.storage_read_only import Config, StorageReadOnly
from agent.finding import Finding, Verdict
from agent.testing import SURROUNDINGS, at, blind, open_case, origin, present, seeing, slept, tick
from escalation.model import BlockEvidence, FaultClass, ReasonCode, Severity, StorageEvidence
from probes.observation import LogLine, SensorName, Sight, StorageFailure, StorageRole
from tests.agent.detectors.filesystems import ERRORS, LOOKS, THIS, activity, errors, filesystem, look

FAULT = FaultClass.STORAGE_READ_ONLY
GONE = {"role": StorageRole.EXTERNAL, "mounted": False, "sight": Sight.HIDDEN, "device": "", "disk": ""}


@pytest.fixture
def detector() -> StorageReadOnly:
    """A detector whose sensors see."""
    made = StorageReadOnly.build(Config(), SURROUNDINGS)
    for sensor in (LOOKS, ERRORS):
        made.observe(seeing(0, sensor))
    return made


def _codes(found: Finding) -> list[ReasonCode]:
    return [reason.code for reason in found.reasons]


def _own(seconds: float, count: int = 1) -> object:
    return errors(seconds, StorageFailure.FILESYSTEM, device="8:1", errno=0, count=count)


def _disk(seconds: float, count: int = 1, device: str = "sda") -> object:
    return errors(seconds, StorageFailure.BLOCK_READ, device=device, errno=5, count=count)


def test_read_only_with_an_error_is_critical(detector: StorageReadOnly) -> None:
    """The mount table and the filesystem agree."""
    found = present(detector, look(0), _own(5), look(15, read_only=True, forced=True))[-1]
    assert (found.severity, found.subject) == (Severity.CRITICAL, THIS)
    assert _codes(found) == [ReasonCode.MOUNT_READ_ONLY, ReasonCode.FILESYSTEM_ERRORS]


def test_the_count_that_ext4_keeps_is_a_witness_where_no_program_sees(detector: StorageReadOnly) -> None:
    """Without kernel programs the superblock's own account tells of the error."""
    (found,) = present(detector, look(0, error_count=2), look(15, error_count=3, read_only=True, forced=True))
    assert (found.severity, _codes(found)) == (
        Severity.CRITICAL,
        [ReasonCode.MOUNT_READ_ONLY, ReasonCode.FILESYSTEM_ERRORS],
    )


def test_the_kernels_log_is_a_witness_too(detector: StorageReadOnly) -> None:
    """It names no mount, so it speaks only for the one that turned; alone it says nothing here."""
    line = LogLine(
        sensor=SensorName("host.logs"), at=at(5), origin=origin(), pattern="kernel.remounted_read_only"
    )
    (found,) = present(detector, look(0), line, look(10), look(15, read_only=True, forced=True))
    assert (found.severity, _codes(found)) == (
        Severity.CRITICAL,
        [ReasonCode.MOUNT_READ_ONLY, ReasonCode.LOG_LINE_MATCHES],
    )


def test_read_only_without_an_error_is_a_note(detector: StorageReadOnly) -> None:
    """Somebody may have wanted it."""
    (found,) = present(detector, look(0), look(15, read_only=True))
    assert (found.severity, _codes(found)) == (
        Severity.NOTE,
        [ReasonCode.MOUNT_READ_ONLY, ReasonCode.SECOND_LAYER_UNKNOWN],
    )


@pytest.mark.parametrize(
    "facts",
    [
        {"read_only": True},
        {"read_only": True, "filesystem": "squashfs"},
        {"error_count": 41},
        {"read_only": True, "error_count": 41},
    ],
    ids=["mounted read-only", "an image", "old errors", "old errors of a disk kept for reading"],
)
def test_what_was_so_from_the_beginning_stays_quiet(
    detector: StorageReadOnly, facts: dict[str, object]
) -> None:
    """It was never seen to be otherwise."""
    assert present(detector, *(look(15 * n, **facts) for n in range(5))) == []


def test_errors_of_filesystem_and_disk_are_high(detector: StorageReadOnly) -> None:
    """Two layers, with what the disk did meanwhile."""
    found = present(detector, look(0), activity(10), _disk(11, 3), _own(12))[-1]
    assert (found.severity, _codes(found)) == (
        Severity.HIGH,
        [ReasonCode.FILESYSTEM_ERRORS, ReasonCode.BLOCK_ERRORS],
    )
    evidence = found.evidence[1]
    assert isinstance(evidence, BlockEvidence)
    assert (evidence.device, evidence.errors, evidence.filesystem_errors, evidence.reads) == (
        "sda",
        3,
        1,
        1000,
    )


def test_lost_writes_and_failed_requests_are_high(detector: StorageReadOnly) -> None:
    """What was accepted and never arrived is the filesystem's word as well."""
    lost = errors(11, StorageFailure.WRITEBACK, device="8:1", errno=0)
    found = present(detector, look(0), lost, _disk(12))[-1]
    assert (found.severity, _codes(found)) == (Severity.HIGH, [ReasonCode.BLOCK_ERRORS])


def test_lost_writes_alone_stay_quiet(detector: StorageReadOnly) -> None:
    """A full filesystem loses what was written late; that is another fault."""
    lost = errors(11, StorageFailure.WRITEBACK, device="8:1", errno=0)
    assert present(detector, look(0), lost, look(15)) == []


@pytest.mark.parametrize("failed", [_disk(5), _own(5)], ids=["disk", "filesystem"])
def test_one_layer_alone_is_a_note_and_is_told_once(detector: StorageReadOnly, failed: object) -> None:
    """A single bad block; later looks say nothing new."""
    found = present(detector, look(0), failed, look(15), look(30), look(3000))
    assert [(each.severity, each.reasons[-1].code) for each in found] == [
        (Severity.NOTE, ReasonCode.SECOND_LAYER_UNKNOWN)
    ]


def test_another_disk_is_another_matter(detector: StorageReadOnly) -> None:
    """Failed requests of a disk that nothing here lies on."""
    assert present(detector, look(0), _disk(5, device="sdz"), look(15)) == []


def test_a_declared_disk_that_is_away_is_high_after_a_while(detector: StorageReadOnly) -> None:
    """It was declared, and it is not mounted."""
    assert present(detector, look(0, role=StorageRole.EXTERNAL), look(15, **GONE), look(30, **GONE)) == []
    (found,) = present(detector, look(60, **GONE))
    assert (found.severity, found.subject) == (Severity.HIGH, THIS)
    assert _codes(found) == [ReasonCode.MOUNT_MISSING, ReasonCode.PLACEMENT_DECLARED]
    evidence = found.evidence[0]
    assert isinstance(evidence, StorageEvidence)
    assert not evidence.mounted


def test_a_disk_that_nobody_declared_may_go(detector: StorageReadOnly) -> None:
    """Whoever unmounts it means it."""
    root = filesystem(mount="/", device="8:2")
    assert present(detector, look(0, root, filesystem()), *(look(15 * n, root) for n in range(1, 20))) == []


def test_a_disk_that_was_pulled_while_mounted_is_high(detector: StorageReadOnly) -> None:
    """The mount stands, its device is gone."""
    (found,) = present(detector, look(0), look(15, device_gone=True))
    assert (found.severity, _codes(found)) == (Severity.HIGH, [ReasonCode.MOUNT_MISSING])


@pytest.mark.parametrize("role", [StorageRole.EXTERNAL, StorageRole.DECLARED])
def test_a_declared_mount_that_answers_nothing_is_high_until_it_does(
    detector: StorageReadOnly, role: StorageRole
) -> None:
    """A store whose server is away: it stays in the mount table, and whoever reads from it waits."""
    silent = {"role": role, "sight": Sight.NOT_ANSWERING, "free_bytes": None, "total_bytes": None}
    assert present(detector, look(0, role=role), *(look(15 * n, **silent) for n in range(1, 5))) == []
    (found,) = present(detector, look(75, **silent))
    assert (found.severity, found.subject) == (Severity.HIGH, THIS)
    assert _codes(found) == [ReasonCode.MOUNT_SILENT, ReasonCode.PLACEMENT_DECLARED]
    case = open_case(FAULT, THIS, last_seen=at(75), evidence=found.evidence)
    assert detector.tick(tick(80, case)) == []
    assert present(detector, look(90, role=role)) == []
    assert [over.verdict for over in detector.tick(tick(91, case))] == [Verdict.ABSENT]


@pytest.mark.parametrize(
    "told",
    [
        [look(15 * n, sight=Sight.NOT_ANSWERING) for n in range(20)],  # nobody declared it
        [
            look(15 * n, role=StorageRole.EXTERNAL, sight=Sight.NOT_ANSWERING if n % 4 else Sight.SEEN)
            for n in range(20)
        ],
        [
            look(0, role=StorageRole.EXTERNAL, sight=Sight.NOT_ANSWERING),
            slept(8 * 3600, 8 * 3600),
            look(8 * 3600, role=StorageRole.EXTERNAL, sight=Sight.NOT_ANSWERING),
        ],
    ],
)
def test_a_mount_that_is_slow_for_moments_stays_quiet(detector: StorageReadOnly, told: list[object]) -> None:
    """What answers in between, what slept meanwhile, and what matters to nobody."""
    assert present(detector, *told) == []


def test_writable_and_quiet_clears(detector: StorageReadOnly) -> None:
    """Mounted for writing again, it clears only when nothing failed for as long as errors count."""
    for seen in (look(0), _own(5), look(15, read_only=True, forced=True), look(60)):
        detector.observe(seen)  # type: ignore[arg-type]  # a story
    case = open_case(FAULT, THIS, last_seen=at(15))
    assert list(detector.tick(tick(100, case))) == []
    (found,) = detector.tick(tick(3700, case))
    assert (found.verdict, _codes(found)) == (Verdict.ABSENT, [ReasonCode.WRITABLE_AGAIN])


def test_a_disk_that_is_back_clears(detector: StorageReadOnly) -> None:
    """The same point is mounted again."""
    gone = [look(0, **GONE), look(60, **GONE)]
    (found,) = present(detector, *gone)
    case = open_case(FAULT, THIS, last_seen=at(60), evidence=found.evidence)
    assert list(detector.tick(tick(61, case))) == []
    detector.observe(look(75, role=StorageRole.EXTERNAL))
    (found,) = detector.tick(tick(76, case))
    assert (found.verdict, _codes(found)) == (Verdict.ABSENT, [ReasonCode.MOUNT_BACK])


def test_a_restarted_agent_does_not_clear_what_still_stands(detector: StorageReadOnly) -> None:
    """It knows nothing of before: read-only is no recovery, whatever it was."""
    detector.observe(look(100, read_only=True))
    assert list(detector.tick(tick(9999, open_case(FAULT, THIS, last_seen=at(0))))) == []


def test_a_restarted_agent_waits_as_long_as_the_one_before(detector: StorageReadOnly) -> None:
    """Errors that only the case remembers must be as long ago as any."""
    found = present(detector, look(0), _own(5), look(15, read_only=True, forced=True))[-1]
    case = open_case(FAULT, THIS, last_seen=at(15), evidence=found.evidence)
    other = StorageReadOnly.build(Config(), SURROUNDINGS)
    for seen in (seeing(100, LOOKS), seeing(100, ERRORS), look(100)):
        other.observe(seen)
    assert list(other.tick(tick(3000, case))) == []
    other.observe(look(3700))
    assert [each.verdict for each in other.tick(tick(3701, case))] == [Verdict.ABSENT]


def test_keeps_open_when_the_source_goes_blind(detector: StorageReadOnly) -> None:
    """Neither a blind sensor nor one that was never heard says that all is well."""
    detector.observe(look(0))
    (found,) = detector.observe(blind(1, LOOKS))
    assert found.verdict is Verdict.UNKNOWN
    case = open_case(FAULT, THIS, last_seen=at(0))
    assert [each.verdict for each in detector.tick(tick(9999, case))] == [Verdict.UNKNOWN]


def test_errors_that_could_not_be_seen_are_no_quiet(detector: StorageReadOnly) -> None:
    """While the programs are blind, time without errors does not count."""
    detector.observe(look(0))
    detector.observe(_own(5))  # type: ignore[arg-type]  # an observation
    detector.observe(blind(6, ERRORS))
    detector.observe(look(3600))
    case = open_case(FAULT, THIS, last_seen=at(5))
    assert list(detector.tick(tick(3604, case))) == []
