"""Followed files: from now on, through every way in which a log is rotated."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from probes.logs import files
from probes.logs.files import FileRefused, Files, FollowedFile
from probes.logs.pattern import LINE_MAX, Matcher
from probes.logs.patterns import PATTERNS
from probes.logs.sensor import FILES, file_sensor
from probes.logs.tally import Tally
from probes.observation import BlindReason
from probes.sensor import SensorBlind
from probes.settings import LogSettings
from tests.probes.logs.test_reading import IDENTIFIER

LINE = "FATAL:  sorry, too many clients already\n"
DEAD = "mistakenly been marked as dead by the GCS: GCS failed to check the health of this node for 5 times\n"


def _count(file: FollowedFile | Files) -> int:
    tally = Tally(Matcher(PATTERNS))
    while file.read(tally, 0):
        pass
    return sum(told.count for told in tally.harvest().lines)


def _append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return a log with history."""
    path = tmp_path / "postgresql.log"
    path.write_text(LINE * 3)
    return path


@pytest.fixture
def followed(log: Path) -> FollowedFile:
    """Return the log, followed from its end."""
    file = FollowedFile(str(log))
    file.begin()
    return file


def test_history_is_not_read(log: Path, followed: FollowedFile) -> None:
    """Only what is added counts, once."""
    assert _count(followed) == 0
    _append(log, LINE * 7)
    assert _count(followed) == 7
    assert _count(followed) == 0


def test_half_a_line_waits_for_its_end(log: Path, followed: FollowedFile) -> None:
    """A line that is written in two parts is one line."""
    _append(log, LINE[:20])
    assert _count(followed) == 0
    _append(log, LINE[20:])
    assert _count(followed) == 1


def test_rotation_by_renaming_loses_nothing(log: Path, followed: FollowedFile) -> None:
    """The old file is read to its end, the new one from its beginning."""
    _append(log, LINE)
    log.rename(log.with_suffix(".1"))
    _append(log.with_suffix(".1"), LINE)
    log.write_text(LINE * 2)
    assert _count(followed) == 4


def test_a_file_between_two_names_is_still_followed(log: Path, followed: FollowedFile) -> None:
    """While the successor is not there yet, the old file may still be written to."""
    log.rename(log.with_suffix(".1"))
    assert _count(followed) == 0
    _append(log.with_suffix(".1"), LINE)
    assert _count(followed) == 1
    log.write_text(LINE)
    assert _count(followed) == 1


def test_truncation_begins_anew(log: Path, followed: FollowedFile) -> None:
    """`copytruncate` leaves a shorter file under the same name."""
    log.write_text(LINE)
    assert _count(followed) == 1


def test_a_file_that_appears_later_is_read_from_its_beginning(tmp_path: Path) -> None:
    """It is new since we watch, so nothing of it is history."""
    path = tmp_path / "later.log"
    file = FollowedFile(str(path))
    file.begin()
    assert _count(file) == 0
    path.write_text(LINE * 2)
    assert _count(file) == 2


def test_the_latest_session_is_followed_through_its_link(tmp_path: Path) -> None:
    """A program that writes to a new folder at each start is followed by the link to the latest."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "raylet.out").write_text("")
    (tmp_path / "latest").symlink_to("one")
    file = FollowedFile(str(tmp_path / "latest/raylet.out"))
    file.begin()
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").symlink_to("two")
    _append(tmp_path / "two/raylet.out", DEAD)
    assert _count(file) == 1


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_regular_file_is_refused(tmp_path: Path, kind: str) -> None:
    """A pipe would hold the reader up, a device could be anything."""
    path = tmp_path / "x"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(FileRefused, match="not a regular file"):
        FollowedFile(str(path)).begin()
    with pytest.raises(SensorBlind) as blind:
        Files([str(path)]).open()
    assert blind.value.blind.reason is BlindReason.NO_PRIVILEGE


def test_one_refused_file_does_not_hold_up_the_others(tmp_path: Path, log: Path) -> None:
    """The others are read on, and what is not read is named."""
    os.mkfifo(tmp_path / "pipe")
    three = Files([str(tmp_path / "pipe"), str(log), str(tmp_path / "typo")])
    three.open()
    _append(log, LINE)
    assert _count(three) == 1
    assert three.left_out == (f"follow {tmp_path}/pipe: not a regular file; {tmp_path}/typo is not there")
    (tmp_path / "pipe").unlink()
    for name in ("pipe", "typo"):
        _append(tmp_path / name, LINE)
    assert _count(three) == 2
    assert three.left_out == ""
    three.close()


def test_a_sensor_whose_last_file_is_refused_later_is_blind(tmp_path: Path, log: Path) -> None:
    """A rotated file that is no longer for us is no silence of its program."""
    file = Files([str(log)])
    file.open()
    log.unlink()
    os.mkfifo(log)
    with pytest.raises(SensorBlind, match="not a regular file") as blind:
        _count(file)
    assert blind.value.blind.reason is BlindReason.NO_PRIVILEGE
    file.close()


def test_what_is_left_out_is_told_by_the_sensor(tmp_path: Path, log: Path) -> None:
    """So that the doctor can say it."""
    sensor = file_sensor(identifier=IDENTIFIER, settings=LogSettings(files=(str(log), f"{tmp_path}/typo")))
    sensor.open()
    assert sensor.left_out == f"{tmp_path}/typo is not there"
    sensor.close()
    assert sensor.left_out == ""


def test_a_line_without_end_is_looked_at_once(log: Path, followed: FollowedFile) -> None:
    """Its beginning counts; what follows is passed over up to the next line, and is never kept."""
    _append(log, LINE.rstrip() + "x" * (10 * LINE_MAX))
    assert _count(followed) == 1
    assert len(followed._rest) == 0
    _append(log, LINE + LINE)
    assert _count(followed) == 1


def test_a_flood_is_skipped_and_told(log: Path, followed: FollowedFile) -> None:
    """A file that grew by more than can be read goes on near its end, with a loss that is counted."""
    with log.open("r+b") as file:
        file.truncate(files.BEHIND_BYTES * 2)
    _append(log, "\n" + LINE)
    tally = Tally(Matcher(PATTERNS))
    while followed.read(tally, 0):
        pass
    harvest = tally.harvest()
    assert harvest.lost == 1
    assert sum(told.count for told in harvest.lines) == 1


@settings(max_examples=60)
@given(parts=st.lists(st.one_of(st.binary(max_size=300), st.just(LINE.encode())), max_size=12))
def test_any_bytes_in_any_pieces(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]) -> None:
    """However bytes arrive, the same lines are found as in the whole."""
    path = tmp_path_factory.mktemp("bytes") / "log"
    path.write_bytes(b"")
    file = FollowedFile(str(path))
    file.begin()
    found = 0
    for part in parts:
        with path.open("ab") as out:
            out.write(part)
        found += _count(file)
    whole = FollowedFile(str(path))
    assert found == _count(whole)
    for each in (file, whole):
        each.close()


def test_no_files_named_is_a_decision() -> None:
    """Without files there is nothing to be blind to."""
    sensor = file_sensor(identifier=IDENTIFIER, settings=LogSettings())
    with pytest.raises(SensorBlind) as blind:
        sensor.open()
    assert (sensor.name, blind.value.blind.reason) == (FILES, BlindReason.DISABLED)
