"""host.drills: root's mark is told from its beginning to its end, and nobody else's is believed."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from probes.host.drills import MARK_BYTES, NAME, DrillMark, DrillsSensor, MarkError, parse
from probes.observation import BlindReason, DrillBegan, DrillEnded, Observation
from probes.sensor import SensorBlind
from probes.testing import instant

_OF_A_MINUTE = DrillMark(
    id="nanobot-drill-0a1b2c3d",
    fault_class="memory.cgroup_oom_kill",
    deadline_boot_ns=instant(60).boot_ns,
    units=("nanobot-drill-0a1b2c3d.service",),
    cgroups=("/system.slice/nanobot-drill-0a1b2c3d.service",),
    mounts=("/run/nanobot-drill/nanobot-drill-0a1b2c3d/disk",),
    pids=(4242,),
    ports=(40_001,),
)
_BEGAN = DrillBegan(
    sensor=NAME,
    at=instant(1),
    id=_OF_A_MINUTE.id,
    fault_class=_OF_A_MINUTE.fault_class,
    units=_OF_A_MINUTE.units,
    cgroups=_OF_A_MINUTE.cgroups,
    mounts=_OF_A_MINUTE.mounts,
    pids=_OF_A_MINUTE.pids,
    ports=_OF_A_MINUTE.ports,
)


class _Host:
    """A folder with a mark, and the sensor that looks at it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "mark.json"
        self.sensor = DrillsSensor(mark=self.path, owner=os.geteuid())
        self.sensor.open()

    def mark(self, mark: DrillMark = _OF_A_MINUTE) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(dataclasses.asdict(mark)))
        fresh.chmod(0o644)
        fresh.rename(self.path)

    def read(self, seconds: float) -> list[Observation]:
        return list(self.sensor.read(instant(seconds)))


@pytest.fixture
def host(tmp_path: Path) -> _Host:
    return _Host(tmp_path)


def test_a_drill_is_told_once_from_its_beginning_to_its_end(host: _Host) -> None:
    """With all that belongs to it; while nothing changes there is nothing to say."""
    assert not host.sensor.waiting()
    assert host.read(0) == []
    host.mark()
    assert host.sensor.waiting()
    assert host.read(1) == [_BEGAN]
    assert host.read(2) == []
    host.path.unlink()
    assert host.sensor.waiting()
    assert host.read(3) == [DrillEnded(sensor=NAME, at=instant(3), id=_OF_A_MINUTE.id)]
    assert not host.sensor.waiting()
    assert host.read(4) == []


def test_a_drill_is_over_at_its_deadline_whatever_became_of_its_command(host: _Host) -> None:
    """The mark still lies there, and nobody has to come and take it away."""
    host.mark()
    host.read(1)
    assert host.read(59) == []
    assert host.read(60) == [DrillEnded(sensor=NAME, at=instant(60), id=_OF_A_MINUTE.id)]
    assert host.read(61) == []
    host.sensor.open()
    assert host.read(62) == []


def test_one_drill_after_another_ends_the_first(host: _Host) -> None:
    """Between two looks one mark may take the place of another."""
    host.mark()
    host.read(1)
    host.mark(dataclasses.replace(_OF_A_MINUTE, id="nanobot-drill-00000002"))
    ended, began = host.read(2)
    assert ended == DrillEnded(sensor=NAME, at=instant(2), id=_OF_A_MINUTE.id)
    assert isinstance(began, DrillBegan)
    assert began.id == "nanobot-drill-00000002"


def test_a_successor_is_told_of_a_drill_that_is_on(host: _Host) -> None:
    """An agent that was restarted in the middle learns of it at once."""
    host.mark()
    host.read(1)
    host.sensor.close()
    host.sensor.open()
    assert host.read(1) == [_BEGAN]


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_mark_that_others_could_write_is_refused(host: _Host, mode: int) -> None:
    """It could say of any fault that it is a drill."""
    host.mark()
    host.path.chmod(mode)
    with pytest.raises(SensorBlind, match="somebody else") as caught:
        host.read(1)
    assert caught.value.blind.reason is BlindReason.READ_FAILED


def test_a_mark_of_another_owner_is_refused(tmp_path: Path) -> None:
    """Whoever may write below the folder for whatever reason, only root's word counts."""
    host = _Host(tmp_path)
    host.mark()
    sensor = DrillsSensor(mark=host.path, owner=os.geteuid() + 1)
    sensor.open()
    with pytest.raises(SensorBlind, match="somebody else"):
        sensor.read(instant(1))


def test_what_is_no_plain_file_is_refused(host: _Host, tmp_path: Path) -> None:
    """A link could lead anywhere, and a pipe would be waited for."""
    real = tmp_path / "elsewhere.json"
    real.write_text(json.dumps(dataclasses.asdict(_OF_A_MINUTE)))
    host.path.symlink_to(real)
    with pytest.raises(SensorBlind):
        host.read(1)
    host.path.unlink()
    os.mkfifo(host.path, 0o600)
    with pytest.raises(SensorBlind, match="somebody else"):
        host.read(1)


def test_a_drill_ends_where_its_mark_cannot_be_trusted_any_more(host: _Host) -> None:
    """What is found from then on is real."""
    host.mark()
    host.read(1)
    host.path.write_text("{}" + " " * MARK_BYTES)
    with pytest.raises(SensorBlind, match="too long") as caught:
        host.read(2)
    assert caught.value.last == (DrillEnded(sensor=NAME, at=instant(2), id=_OF_A_MINUTE.id),)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "nanobot-drill-../../etc"},
        {"id": None},
        {"fault_class": "Memory; reboot"},
        {"deadline_boot_ns": True},
        {"deadline_boot_ns": 0},
        {"deadline_boot_ns": 1 << 70},
        {"units": "vllm.service"},
        {"units": ["a\nb"]},
        {"units": ["x"] * 17},
        {"cgroups": [""]},
        {"mounts": [7]},
        {"pids": [0]},
        {"pids": [True]},
        {"ports": [70_000]},
        {"more": 1},
    ],
)
def test_a_mark_says_all_or_nothing(change: dict[str, object]) -> None:
    """Each field within its bounds, none unknown."""
    plain = dataclasses.asdict(_OF_A_MINUTE) | change
    with pytest.raises(MarkError):
        parse(json.dumps(plain).encode())


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(raw=st.binary() | _json.map(lambda plain: json.dumps(plain).encode()))
def test_any_bytes_are_a_mark_or_an_error(raw: bytes) -> None:
    """Nothing else comes of them."""
    with pytest.raises(MarkError):
        parse(raw)


@given(
    fields=st.dictionaries(st.sampled_from(sorted(DrillMark.__dataclass_fields__)), _json),
)
def test_a_mark_with_any_fields_is_in_bounds_or_an_error(fields: dict[str, object]) -> None:
    """What is taken is what the bounds allow."""
    try:
        mark = parse(json.dumps(dataclasses.asdict(_OF_A_MINUTE) | fields).encode())
    except MarkError:
        return
    assert all(len(getattr(mark, name)) <= 16 for name in ("units", "cgroups", "mounts", "pids", "ports"))
    assert all(0 < port <= 65_535 for port in mark.ports)
    assert all(word.isprintable() for word in (*mark.units, *mark.cgroups, *mark.mounts))
