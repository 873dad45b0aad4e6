"""The outbox: nothing accepted is lost, or sent again once acknowledged, and every refusal is counted."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from escalation.model import AgentId, Body, BootId, CasePhase, CaseReport, Heartbeat, Loss, LossKind
from escalation.outbox import Outbox, OutboxError, OutboxFull, OutboxUnwritable
from tests.escalation.spools import BEAT, BOOT_A, BOOT_B, case, drained, killed, opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@pytest.fixture
def outbox(path: Path) -> Iterator[Outbox]:
    box = opened(path)
    yield box
    box.close()


class Replay(RuleBasedStateMachine):
    """Appends, reads, acknowledgements, kills and reboots in any order, against a list."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.number = 0
        self.path = self.folder / "0.db"
        self.boot = BOOT_A
        self.now_ns = 1000
        self.outbox = opened(self.path)
        self.expected: list[tuple[BootId, int, Body]] = []
        self.notes: dict[str, bytes] = {}
        self.given: set[tuple[BootId, int]] = set()

    @rule(
        kinds=st.lists(
            st.tuples(st.sampled_from(("opened", "updated", "cleared", "beat", "loss")), st.integers(0, 2)),
            max_size=5,
        ),
        step_ns=st.integers(-(10**15), 10**9),
        note=st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.binary(max_size=5))),
    )
    def append(self, kinds: list[tuple[str, int]], step_ns: int, note: tuple[str, bytes | None]) -> None:
        self.now_ns = max(0, self.now_ns + step_ns)
        bodies = [self._body(kind, which) for kind, which in kinds]
        reports = self.outbox.append(bodies, now_ns=self.now_ns, notes=dict([note]))
        if note[1] is None:
            self.notes.pop(note[0], None)
        else:
            self.notes[note[0]] = note[1]
        assert [report.body for report in reports] == bodies
        for report, body in zip(reports, bodies, strict=True):
            key = (report.boot_id, report.sequence)
            assert key not in self.given
            self.given.add(key)
            self.expected = [each for each in self.expected if not _superseded(each[2], body)]
            self.expected.append((*key, body))

    def _body(self, kind: str, which: int) -> Body:
        match kind:
            case "beat":
                return dataclasses.replace(BEAT, open_cases=len(self.given))
            case "loss":
                return Loss(LossKind.RING_FULL, "s", which, exact=True)
            case _:
                return case(str(which), CasePhase(kind), count=len(self.given))

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        boot_id, sequence, _ = data.draw(st.sampled_from(self.expected))
        gone = [each for each in self.expected if each[0] == boot_id and each[1] <= sequence]
        assert self.outbox.acknowledge(boot_id, sequence) == len(gone)
        self.expected = [each for each in self.expected if each not in gone]

    @rule()
    def acknowledge_a_stranger(self) -> None:
        assert self.outbox.acknowledge(BootId("0b5e9c1e-8f43-5a53-9d2e-6f0a86f0e4a1"), 9) == 0

    @rule(reboot=st.booleans(), clean=st.booleans())
    def reopen(self, reboot: bool, clean: bool) -> None:
        before = self.outbox.boot_id
        if reboot:
            self.boot = BOOT_B if self.boot == BOOT_A else BOOT_A
        if clean:
            self.outbox.close()
        else:
            self.number += 1
            to = self.folder / f"{self.number}.db"
            killed(self.outbox, self.path, to)
            self.path = to
        self.outbox = opened(self.path, boot=self.boot, now_ns=self.now_ns)
        assert (self.outbox.boot_id != before) == reboot

    @invariant()
    def everything_waits_in_order_and_nothing_else(self) -> None:
        waiting = drained(self.outbox, limit=3)
        assert [(each.boot_id, each.sequence, each.body) for each in waiting] == self.expected
        assert self.outbox.depth().reports == len(self.expected)
        assert self.outbox.notes("") == self.notes

    def teardown(self) -> None:
        self.outbox.close()
        shutil.rmtree(self.folder)


def _superseded(old: Body, new: Body) -> bool:
    match old, new:
        case Heartbeat(), Heartbeat():
            return True
        case CaseReport(phase=CasePhase.UPDATED), CaseReport(phase=CasePhase.UPDATED):
            return old.case_id == new.case_id
        case _:
            return False


Replay.TestCase.settings = settings(
    max_examples=30, stateful_step_count=25, suppress_health_check=list(HealthCheck)
)
TestReplay = Replay.TestCase


def test_reads_at_most_what_is_asked_for_and_at_least_one(outbox: Outbox) -> None:
    """Limits on number and bytes are kept, but a report that is larger alone still comes."""
    outbox.append([case(str(n)) for n in range(5)], now_ns=1)
    assert len(outbox.pending(after_row=0, limit=2, max_bytes=1 << 20)) == 2
    (first,) = outbox.pending(after_row=0, limit=5, max_bytes=1)
    assert first.sequence == 1
    assert outbox.pending(after_row=first.row, limit=5, max_bytes=1)[0].sequence == 2


def test_a_batch_is_of_one_boot_and_the_older_boot_goes_first(path: Path) -> None:
    """Reports of the boot before keep their boot id and are not mixed with the new ones."""
    before = opened(path)
    before.append([case("a")], now_ns=1)
    old = before.boot_id
    before.close()
    outbox = opened(path, boot=BOOT_B)
    outbox.append([case("b")], now_ns=1)
    (first,) = outbox.pending(after_row=0, limit=10, max_bytes=1 << 20)
    (second,) = outbox.pending(after_row=first.row, limit=10, max_bytes=1 << 20)
    assert (first.boot_id, second.boot_id, second.sequence) == (old, outbox.boot_id, 1)
    outbox.close()


def test_a_refused_report_is_set_aside_and_counted(outbox: Outbox) -> None:
    """What the other side calls invalid leaves the queue as a Loss of one; a second time changes nothing."""
    outbox.append([case("a"), case("b")], now_ns=1)
    row = outbox.pending(after_row=0, limit=1, max_bytes=1 << 20)[0].row
    outbox.set_aside(row, now_ns=9)
    outbox.set_aside(row, now_ns=9)
    assert [report.body for report in drained(outbox)] == [
        case("b"),
        Loss(LossKind.REPORT_REFUSED, "", 1, exact=True),
    ]
    assert outbox.depth().reports == 2


def test_a_renamed_host_sends_what_waits_under_its_new_name(path: Path) -> None:
    """Reports under a name that the certificate no longer has would wait for ever."""
    outbox = opened(path)
    outbox.append([case("a")], now_ns=1)
    outbox.close()
    renamed = AgentId("spark-b")
    outbox = Outbox.open(path, agent_id=renamed, kernel_boot_id=BOOT_A, max_bytes=1 << 20, now_ns=1)
    (waiting,) = drained(outbox)
    assert (waiting.agent_id, waiting.sequence, waiting.body) == (renamed, 1, case("a"))
    outbox.close()


def test_a_clock_that_jumps_back_changes_no_order(outbox: Outbox) -> None:
    """Order is the numbering's; the time is carried as it was given."""
    outbox.append([case("late")], now_ns=10**18)
    outbox.append([case("early")], now_ns=7)
    assert [(each.sequence, each.created_ns) for each in drained(outbox)] == [(1, 10**18), (2, 7)]
    assert outbox.depth().oldest_created_ns == 10**18


def test_room_is_kept_for_what_matters_more(path: Path) -> None:
    """When UPDATED no longer fits, OPENED and CLEARED do; when they do not, a Loss and the heartbeat do."""
    outbox = opened(path, max_bytes=64 * 1024)
    outbox.append([BEAT], now_ns=1)
    number = 0

    def fill(phase: CasePhase) -> int:
        nonlocal number
        kept = 0
        while True:
            number += 1
            before = outbox.depth()
            try:
                outbox.append([case(f"{number}", phase)], now_ns=1)
            except OutboxFull:
                assert outbox.depth() == before
                return kept
            kept += 1

    assert fill(CasePhase.UPDATED) > 100
    assert fill(CasePhase.OPENED) > 30
    assert fill(CasePhase.CLEARED) == 0
    with pytest.raises(OutboxFull, match=r"spool\.db: holds \d+ of 65536 bytes"):
        outbox.append([Loss(LossKind.RING_FULL, "s", 1, exact=True), case("x")], now_ns=1)
    outbox.append([dataclasses.replace(BEAT, open_cases=9)], now_ns=1)
    outbox.append([Loss(LossKind.SPOOL_FULL, "", 17, exact=True)], now_ns=1)
    assert outbox.depth().bytes <= 64 * 1024
    outbox.acknowledge(outbox.boot_id, 40)
    outbox.append([case("fits again")], now_ns=1)
    outbox.close()


def test_space_is_given_back_when_all_is_acknowledged(path: Path) -> None:
    """A spool that grew in an outage shrinks after it."""
    outbox = opened(path, max_bytes=8 << 20)
    reports = outbox.append([case(str(n)) for n in range(10_000)], now_ns=1)
    assert outbox.acknowledge(outbox.boot_id, reports[-1].sequence) == 10_000
    outbox.close()
    assert path.stat().st_size < 100_000


def test_the_spool_is_private(path: Path, outbox: Outbox) -> None:
    """Nobody else may read what was seen on a host."""
    outbox.append([case("a")], now_ns=1)
    files = list(path.parent.iterdir())
    assert {each.name for each in files} >= {"spool.db", "spool.db-wal", "spool.db.mark"}
    assert all(each.stat().st_mode & 0o077 == 0 for each in files)


def test_two_agents_cannot_share_a_spool(path: Path, outbox: Outbox) -> None:
    """The second one is told who has it, and nothing is harmed."""
    with pytest.raises(OutboxUnwritable, match=r"spool\.db: in use by another process"):
        opened(path)
    outbox.append([case("a")], now_ns=1)


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    """The error names the path and the reason; a limit that is too small is refused too."""
    with pytest.raises(OutboxUnwritable, match=r"open spool .*/no/s\.db: No such file or directory"):
        opened(tmp_path / "no" / "s.db")
    with pytest.raises(OutboxUnwritable, match=r"Is a directory"):
        opened(tmp_path)
    with pytest.raises(OutboxError, match="a limit of 5 bytes is under 65536"):
        opened(tmp_path / "s.db", max_bytes=5)


def test_a_defect_of_the_caller_moves_no_spool_aside(path: Path, outbox: Outbox) -> None:
    """The wrong thread, or a closed outbox, is an error; the file and what waits in it stay."""
    outbox.append([case("a")], now_ns=1)
    with ThreadPoolExecutor(1) as other, pytest.raises(sqlite3.ProgrammingError, match="thread"):
        other.submit(outbox.append, [case("b")], now_ns=1).result()
    outbox.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        outbox.append([case("b")], now_ns=1)
    again = opened(path)
    assert [each.body for each in drained(again)] == [case("a")]
    again.close()
