"""The journal, by the real reader on files that systemd wrote."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probes.gpu.facts import XidSource
from probes.host.cgroups import CgroupPaths
from probes.host.identity import Identifier
from probes.logs import journal
from probes.logs.journal import ENTRIES_PER_ROUND, Journal
from probes.logs.pattern import Matcher
from probes.logs.patterns import PATTERNS
from probes.logs.sensor import JOURNAL, LogSensor, journal_sensor
from probes.logs.tally import Tally
from probes.observation import BlindReason, GpuXid, LogLine, Observation, ServerKind
from probes.sensor import SensorBlind
from probes.settings import LogSettings
from probes.testing import instant
from tests.probes.logs.journals import REMOTE, HostJournal, kernel, program

pytestmark = [
    pytest.mark.skipif(not REMOTE.exists(), reason="systemd-journal-remote is not installed"),
]
pytest.importorskip("systemd._reader", reason="systemd-python is not installed")

NOW = instant(100_000)
CONTAINER = "c0ffee" * 10 + "c0ff"


@pytest.fixture
def journal_file(tmp_path: Path) -> HostJournal:
    """Return a journal that has begun."""
    return HostJournal(tmp_path)


@pytest.fixture
def opened(journal_file: HostJournal) -> Iterator[Callable[..., Journal]]:
    """Open readers, and close them at the end."""
    readers: list[Journal] = []

    def make(**settings: tuple[str, ...]) -> Journal:
        reader = _journal(journal_file, **settings)
        reader.open()
        readers.append(reader)
        return reader

    yield make
    for reader in readers:
        reader.close()


def _journal(journal_file: HostJournal, **settings: tuple[str, ...]) -> Journal:
    return Journal(folders=(journal_file.folder,), machine_id=journal_file.machine_id, **settings)


def _harvest(reader: Journal) -> Tally:
    tally = Tally(Matcher(PATTERNS))
    while reader.read(tally, 0):
        pass
    return tally


def _lines(reader: Journal) -> int:
    return sum(told.count for told in _harvest(reader).harvest().lines)


def test_reads_what_is_written_from_now_on(journal_file: HostJournal, opened: Callable[..., Journal]) -> None:
    """History is not read; what follows is, with the unit and the process that wrote it."""
    journal_file.write(program("FATAL:  sorry, too many clients already", name="postgres"))
    reader = opened()
    assert not _harvest(reader)

    journal_file.write(
        program("No available shared memory broadcast block found in 60 seconds."),
        program("No available shared memory broadcast block found in 60 seconds."),
        program("nothing of note"),
    )

    (told,) = _harvest(reader).harvest().lines
    assert (told.pattern.id, told.count) == ("vllm.broadcast_blocked", 2)
    assert told.writer.cgroup_path == "/system.slice/vllm.service"
    assert (told.writer.pid, told.writer.name) == (4194000, "vllm")


def test_only_the_journals_own_word_makes_a_kernel_line(
    journal_file: HostJournal, opened: Callable[..., Journal]
) -> None:
    """A program that calls itself the kernel is a program."""
    reader = opened()
    forged = program("NVRM: Xid (PCI:0000:05:00): 79, GPU has fallen off the bus.")

    journal_file.write(forged | {"SYSLOG_IDENTIFIER": "kernel", "SYSLOG_FACILITY": "0"})

    assert not _harvest(reader)


def test_the_drivers_lines_are_xids_and_patterns(
    journal_file: HostJournal, opened: Callable[..., Journal]
) -> None:
    """An Xid keeps its own form; a mismatch over several lines is a pattern with both versions."""
    reader = opened()

    journal_file.write(
        kernel("NVRM: Xid (PCI:000f:01:00): 31, pid=77, name=python3, Ch 0000000a"),
        kernel(
            "NVRM: API mismatch: the client has the version 595.84, but\n"
            "NVRM: this kernel module has the version 580.95.05.  Please"
        ),
        kernel("NVRM: GPU 0000:65:00.0: GPU has fallen off the bus."),
    )

    harvest = _harvest(reader).harvest()
    assert [(each.line.number, each.line.pci, each.line.pid) for each in harvest.xids] == [
        (31, "000f:01:00.0", 77)
    ]
    mismatch, fallen = harvest.lines
    assert [(each.name, each.number) for each in mismatch.captures] == [("client", 595), ("module", 580)]
    assert fallen.pattern.id == "kernel.nvidia_fell_off_bus"


def test_a_container_is_known_by_its_engines_word_alone(
    journal_file: HostJournal, opened: Callable[..., Journal]
) -> None:
    """Docker's log driver names the container; the same field from anybody else is not believed."""
    reader = opened()
    line = "EngineDeadError: EngineCore encountered an issue."

    journal_file.write(
        program(line, name="dockerd", unit="docker.service") | {"CONTAINER_ID_FULL": CONTAINER},
        program(line, name="vllm") | {"CONTAINER_ID_FULL": CONTAINER},
        program(line, name="dockerd", unit="docker.service") | {"CONTAINER_ID_FULL": "../../etc"},
    )

    first, second, third = _harvest(reader).harvest().lines
    assert (first.writer.container_id, first.writer.pid) == (CONTAINER, None)
    assert (second.writer.container_id, second.writer.name) == (None, "vllm")
    assert third.writer.container_id is None


def test_a_unit_is_read_when_it_is_named(journal_file: HostJournal, opened: Callable[..., Journal]) -> None:
    """Programs under other names are not read, unless the configuration names their unit, a user's or not."""
    line = program("CUDA out of memory. Tried to allocate 2.50 GiB", name="my-server", unit="mine.service")
    stranger, reader = opened(), opened(units=("mine.service",))

    journal_file.write(line)
    journal_file.write(line | {"_SYSTEMD_UNIT": "user@1.service", "_SYSTEMD_USER_UNIT": "mine.service"})

    assert not _harvest(stranger)
    assert _lines(reader) == 2


def test_what_the_manager_says_is_the_units(
    journal_file: HostJournal, opened: Callable[..., Journal]
) -> None:
    """The first process speaks of a unit; that unit is the origin. Nobody else speaks for it."""
    reader = opened()
    line = program("vllm.service: Start request repeated too quickly.", name="systemd", unit="init.scope")

    journal_file.write(
        line | {"_PID": "1", "UNIT": "vllm.service"}, line | {"_PID": "77", "UNIT": "ssh.service"}
    )

    (told,) = _harvest(reader).harvest().lines
    assert told.writer.cgroup_path == "/system.slice/vllm.service"


def test_hostile_entries_do_no_harm(journal_file: HostJournal, opened: Callable[..., Journal]) -> None:
    """No message, bytes that are no text, a line that is far too long, numbers that are none."""
    reader = opened()
    entry = program("x", name="ollama")
    del entry["MESSAGE"]

    journal_file.write(
        entry,
        program("x") | {"MESSAGE": b"\xff\xfe\nFATAL:  sorry, too many clients already"},
        program("y" * 200_000 + "sorry, too many clients already"),
        program("sorry, too many clients already") | {"_PID": "9" * 40, "_SYSTEMD_CGROUP": "no path"},
    )

    told = _harvest(reader).harvest().lines
    assert [each.pattern.id for each in told] == ["postgresql.too_many_clients"] * 2
    assert (told[1].writer.pid, told[1].writer.cgroup_path) == (None, None)


def test_a_reader_that_is_far_behind_says_what_it_lost(
    journal_file: HostJournal, opened: Callable[..., Journal]
) -> None:
    """More lines than one round takes are read on; when they are old, it goes on with the newest."""
    reader = opened()
    journal_file.write(
        *[program("quiet")] * (ENTRIES_PER_ROUND + 5), program("sorry, too many clients already")
    )
    far_behind_ns = (1 << 62) * 1
    tally = Tally(Matcher(PATTERNS))

    assert reader.read(tally, far_behind_ns) is True
    assert reader.read(tally, far_behind_ns) is False

    harvest = tally.harvest()
    assert (harvest.lost, harvest.lines) == (1, ())


def test_waiting_ends_with_the_next_entry_or_with_the_sensor(
    journal_file: HostJournal, tmp_path: Path
) -> None:
    """The thread sleeps in the kernel until something is written; closing the sensor wakes it too."""
    sensor = _sensor(journal_file)
    sensor.open()
    assert not sensor.waiting()

    journal_file.write(program("FATAL:  sorry, too many clients already", name="postgres", unit="pg.service"))

    (line,) = _read_until(sensor)
    assert isinstance(line, LogLine)
    assert (line.sensor, line.pattern, line.count) == (JOURNAL, "postgresql.too_many_clients", 1)
    assert (line.origin.unit, line.origin.server) == ("pg.service", ServerKind.POSTGRESQL)
    assert (line.origin.pid, line.origin.start_ticks) == (4194000, None)
    sensor.close()
    assert "host.logs" not in {thread.name for thread in threading.enumerate()}


def test_an_xid_of_the_log_is_an_xid(journal_file: HostJournal) -> None:
    """The third source of Xids speaks the words of the two others."""
    sensor = _sensor(journal_file)
    sensor.open()

    journal_file.write(kernel("NVRM: Xid (PCI:0000:05:00): 79, pid=4194001, name=python3, GPU has fallen"))

    (told,) = _read_until(sensor)
    sensor.close()
    assert isinstance(told, GpuXid)
    assert (told.facts.number, told.facts.pci, told.facts.source) == (79, "0000:05:00.0", XidSource.LOG)
    assert (told.origin.pid, told.origin.process_name) == (4194001, "python3")


def test_rotation_loses_nothing(journal_file: HostJournal, opened: Callable[..., Journal]) -> None:
    """The file that journald renamed is read to its end, then its successor from the beginning."""
    reader = opened()
    line = program("sorry, too many clients already", name="postgres")
    journal_file.write(line)
    assert _lines(reader) == 1
    journal_file.write(line, line)
    journal_file.rotate()
    assert _lines(reader) == 2
    assert _lines(reader) == 0
    journal_file.write(line, line, line)
    assert _lines(reader) == 3


def test_what_a_regular_account_writes_is_read(
    journal_file: HostJournal, opened: Callable[..., Journal]
) -> None:
    """journald keeps it apart: from now on where the file was there, whole where it comes later."""
    line = program("sorry, too many clients already", name="postgres")
    journal_file.write(line, user=1000)
    reader = opened()
    assert _lines(reader) == 0
    assert not reader.changed
    journal_file.write(line, line, user=1000)
    assert reader.changed
    assert _lines(reader) == 2

    journal_file.write(line, user=1001)
    assert _lines(reader) == 1
    journal_file.of_user(1000).rename(journal_file.file.with_name("user-1000@0.journal"))
    assert _lines(reader) == 0
    journal_file.write(line, line, line, user=1000)
    assert _lines(reader) == 3
    assert reader.left_out == ""


def test_of_many_users_the_last_are_read_and_the_rest_is_told(
    journal_file: HostJournal, opened: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each one costs memory. What is no journal is left out as well, and the others are read on."""
    monkeypatch.setattr(journal, "USERS_MAX", 2)
    line = program("sorry, too many clients already", name="postgres")
    for uid in (1000, 1001):
        journal_file.write(line, user=uid)
    journal_file.of_user(1002).write_bytes(b"no journal" * 1000)
    for uid, seconds in ((1000, 1), (1001, 3), (1002, 2)):
        os.utime(journal_file.of_user(uid), (seconds, seconds))
    reader = opened()
    assert reader.left_out == "2 journals of users are not read"
    journal_file.write(line, user=1001)
    assert _lines(reader) == 1


def test_many_entries_are_read_and_not_kept_mapped(
    journal_file: HostJournal, opened: Callable[..., Journal]
) -> None:
    """The file is opened anew while it is read, and no entry is read twice or passed over."""
    reader = opened()
    line, quiet = program("sorry, too many clients already", name="postgres"), program("quiet")
    journal_file.write(*([quiet] * 700 + [line]) * 13)
    assert _lines(reader) == 13
    journal_file.write(line)
    assert _lines(reader) == 1


def test_blind_without_a_readable_journal(tmp_path: Path) -> None:
    """A host without a journal, and one whose journal is not for us, are two reasons."""
    (tmp_path / "machine-id").write_text("m\n")
    none = Journal(folders=(tmp_path / "run", tmp_path / "var"), machine_id=tmp_path / "machine-id")
    with pytest.raises(SensorBlind, match="keeps no journal") as no_journal:
        none.open()
    assert no_journal.value.blind.reason is BlindReason.UNSUPPORTED_PLATFORM

    (tmp_path / "var").mkdir()
    with pytest.raises(SensorBlind, match="systemd-journal") as refused:
        none.open()
    assert refused.value.blind.reason is BlindReason.NO_PRIVILEGE


def test_blind_where_the_file_is_none(tmp_path: Path) -> None:
    """What is no journal is refused by the library, and the sensor says so."""
    (tmp_path / "machine-id").write_text("m\n")
    (tmp_path / "m").mkdir()
    (tmp_path / "m/system.journal").write_bytes(b"not a journal" * 1000)
    with pytest.raises(SensorBlind) as blind:
        Journal(folders=(tmp_path,), machine_id=tmp_path / "machine-id").open()
    assert blind.value.blind.reason is BlindReason.READ_FAILED


def test_a_switched_off_journal_is_a_decision() -> None:
    """What the configuration turns off is disabled, not broken."""
    sensor = journal_sensor(identifier=_identifier(), settings=LogSettings(journal=False))
    with pytest.raises(SensorBlind) as blind:
        sensor.open()
    assert blind.value.blind.reason is BlindReason.DISABLED


def _identifier() -> Identifier:
    return Identifier(cgroups=CgroupPaths(root=None, monotonic=lambda: 0.0))


def _sensor(journal_file: HostJournal) -> LogSensor:
    return LogSensor(name=JOURNAL, identifier=_identifier(), source=lambda: _journal(journal_file))


def _read_until(sensor: LogSensor) -> list[Observation]:
    pause = threading.Event()
    for _ in range(600):
        if sensor.waiting():
            return list(sensor.read(NOW))
        pause.wait(0.05)
    raise AssertionError("nothing came in half a minute")
