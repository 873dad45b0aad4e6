"""host.manager: a reload is told once, from the mark that the service manager leaves."""

from __future__ import annotations

import os
from pathlib import Path

from probes.host.manager import NAME, ManagerSensor
from probes.observation import Instant, ManagerReloaded


def moment(path: Path, *, after_s: float = 1.0) -> Instant:
    """Return the moment `after_s` after the last change of `path`."""
    return Instant(boot_ns=50_000_000_000, unix_ns=path.stat().st_ctime_ns + int(after_s * 1e9))


def touch(path: Path) -> None:
    """Change a file's times, until the file system's clock has moved on."""
    before = path.stat().st_ctime_ns
    while path.stat().st_ctime_ns == before:
        os.utime(path)


def test_a_reload_is_told_once_with_its_own_moment(tmp_path: Path) -> None:
    """The moment is when the file changed, not when it was looked at."""
    mark = tmp_path / "systemd-units-load"
    mark.touch()
    sensor = ManagerSensor(folder=tmp_path)
    sensor.open()
    assert not sensor.waiting()
    touch(mark)
    assert sensor.waiting()
    (told,) = sensor.read(moment(mark))
    assert told == ManagerReloaded(NAME, Instant(49_000_000_000, mark.stat().st_ctime_ns))
    assert not sensor.waiting()
    assert list(sensor.read(moment(mark))) == []


def test_a_clock_that_was_set_does_not_date_a_reload(tmp_path: Path) -> None:
    """A change in the future, or long ago, is dated by the look."""
    mark = tmp_path / "systemd-units-load"
    mark.touch()
    for after_s in (-5.0, 3600.0):
        sensor = ManagerSensor(folder=tmp_path)
        sensor.open()
        touch(mark)
        now = moment(mark, after_s=after_s)
        assert list(sensor.read(now)) == [ManagerReloaded(NAME, now)]


def test_an_older_manager_makes_its_generator_folder_anew(tmp_path: Path) -> None:
    """The folder is gone for a moment in the middle of a reload, which is not its end."""
    folder = tmp_path / "generator"
    folder.mkdir()
    sensor = ManagerSensor(folder=tmp_path)
    sensor.open()
    folder.rename(tmp_path / "old")
    assert not sensor.waiting()
    folder.mkdir()
    assert [type(seen) for seen in sensor.read(moment(folder))] == [ManagerReloaded]


def test_a_host_without_systemd_has_nothing_to_tell(tmp_path: Path) -> None:
    """It opens and stays quiet: no manager, no reload."""
    sensor = ManagerSensor(folder=tmp_path / "none")
    sensor.open()
    assert not sensor.waiting()
    assert list(sensor.read(Instant(1, 1))) == []
