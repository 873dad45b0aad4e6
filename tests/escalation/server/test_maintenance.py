"""Declared windows: when they are open, told by clocks of any zone, and what cannot be declared."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from escalation.model import FaultClass
from escalation.server.attention.maintenance import Occurrence, Window
from escalation.server.attention.silences import LONGEST_S, Origin
from escalation.server.config import Config
from escalation.settings import SettingsError, load

NS = 10**9
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


def at(text: str, zone: zoneinfo.ZoneInfo = BERLIN) -> int:
    return int(dt.datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()) * NS


def naive(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


def weekly(when: str, zone: str = "Europe/Berlin") -> Window:
    return Window(host="spark-*", comment="backup", weekly=when, zone=zone)


@pytest.mark.parametrize(
    ("now", "starts", "ends"),
    [
        ("2026-03-07T01:00", "2026-03-07T02:00", "2026-03-07T04:00"),  # a Saturday, before it
        ("2026-03-07T03:00", "2026-03-07T02:00", "2026-03-07T04:00"),  # within it
        ("2026-03-07T04:00", "2026-03-08T02:00", "2026-03-08T04:00"),  # its end: Sunday's is next
        ("2026-03-09T00:00", "2026-03-14T02:00", "2026-03-14T04:00"),  # the week after
    ],
)
def test_weekly_window_is_open_now_or_next(now: str, starts: str, ends: str) -> None:
    """Told by the clock of its zone."""
    found = weekly("sat,sun 02:00-04:00").occurrence(at(now))
    assert found == Occurrence(at(starts), at(ends))


def test_window_over_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    """Friday night lasts until Saturday morning."""
    night = weekly("fri 22:00-06:00")
    assert night.occurrence(at("2026-03-07T05:59")) == Occurrence(
        at("2026-03-06T22:00"), at("2026-03-07T06:00")
    )
    after = night.occurrence(at("2026-03-07T06:00"))
    assert after is not None
    assert after.starts_ns == at("2026-03-13T22:00")


@pytest.mark.parametrize(
    ("now", "hours"),
    [("2026-03-29T00:00", 1.0), ("2026-10-25T00:00", 3.0)],  # clocks go forward, and back
)
def test_window_follows_the_clock_on_the_wall_where_it_is_set(now: str, hours: float) -> None:
    """From two to four is what people read there, whether that is one hour or three."""
    found = weekly("sun 02:00-04:00").occurrence(at(now))
    assert found is not None
    assert (found.ends_ns - found.starts_ns) / 3600 / NS == hours


@given(
    now_s=st.integers(1_700_000_000, 1_900_000_000),
    days=st.sets(st.sampled_from(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]), min_size=1),
    begin=st.tuples(st.integers(0, 23), st.integers(0, 59)),
    end=st.tuples(st.integers(0, 23), st.integers(0, 59)),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Apia"]),
)
def test_every_weekly_window_comes_again_and_ends_after_it_begins(
    now_s: int, days: set[str], begin: tuple[int, int], end: tuple[int, int], zone: str
) -> None:
    """Whatever is declared, at whatever time: it has an occurrence that is not over, of at most a day."""
    hours = f"{begin[0]:02}:{begin[1]:02}-{end[0]:02}:{end[1]:02}"
    found = weekly(f"{','.join(sorted(days))} {hours}", zone).occurrence(now_s * NS)
    assert found is not None
    assert now_s * NS < found.ends_ns
    assert 0 < found.ends_ns - found.starts_ns <= 26 * 3600 * NS
    assert found.starts_ns < (now_s + 9 * 86_400) * NS


def test_window_that_is_open_once_is_over_after_it() -> None:
    """A time with its own offset is that time; one without is told in the zone."""
    once = Window(
        host="spark-1",
        comment="move",
        starts=naive("2026-03-07T02:00"),
        ends=dt.datetime(2026, 3, 7, 3, 0, tzinfo=dt.UTC),
        zone="Europe/Berlin",
    )
    found = Occurrence(at("2026-03-07T02:00"), at("2026-03-07T03:00", zoneinfo.ZoneInfo("UTC")))
    assert once.occurrence(at("2026-01-01T00:00")) == found
    assert once.occurrence(found.ends_ns) is None


def test_silence_of_a_window_is_the_same_each_time_it_is_looked_at() -> None:
    """It begins a day ahead, and has one id for one occurrence."""
    window = weekly("sat 02:00-04:00")
    assert window.due(at("2026-03-06T01:59")) is None
    first, again = window.due(at("2026-03-06T02:00")), window.due(at("2026-03-07T03:00"))
    assert first is not None
    assert again is not None
    assert first.id == again.id
    assert first.origin is Origin.DECLARED
    assert str(first.matchers[0]) == "host~spark-*"
    assert weekly("sat 02:00-04:01").id != window.id


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"weekly": "sat 02:00-04:00", "starts": naive("2026-01-01"), "ends": naive("2026-01-02")},
        {"starts": naive("2026-01-01")},
        {"ends": naive("2026-01-01")},
        {"starts": naive("2026-01-02"), "ends": naive("2026-01-01")},
        {"starts": naive("2026-01-01"), "ends": naive("2026-03-01")},
        {"weekly": "sat 2:00-4:00"},
        {"weekly": "saturday 02:00-04:00"},
        {"weekly": "sat 02:00-24:00"},
        {"weekly": "sat 02:00-04:00", "zone": "Berlin"},
        {"weekly": "sat 02:00-04:00", "zone": "../../etc/passwd"},
        {"weekly": "sat 02:00-04:00", "also": (FaultClass.GPU_UVM_LOST,)},
    ],
)
def test_window_that_nobody_can_mean_is_refused(fields: dict[str, Any]) -> None:
    """Before anything runs, and in words."""
    with pytest.raises(ValueError):
        Window(host="spark-1", comment="x", **fields)
    assert LONGEST_S == 30 * 86_400


def test_settings_declare_windows_and_limits(site: Any, tmp_path: Path) -> None:
    """As people write them in orchestrator.toml; a mistake names its key."""
    path = tmp_path / "declared.toml"
    path.write_text(
        site.config_file.read_text()
        + """
[attention]
acknowledge_s = 600
[[maintenance]]
host = "spark-*"
comment = "backup"
weekly = "sat,sun 02:00-04:00"
zone = "Europe/Berlin"
also = ["monitor.blind"]
[[maintenance]]
host = "spark-1"
comment = "move"
starts = 2026-03-01T02:00:00
ends = 2026-03-01T06:00:00
"""
    )
    read = load(path, Config)
    assert read.attention.acknowledge_s == 600
    assert [each.host for each in read.maintenance] == ["spark-*", "spark-1"]
    path.write_text(path.read_text().replace("sat,sun 02:00-04:00", "at night"))
    with pytest.raises(SettingsError, match="weekly is days and hours"):
        load(path, Config)
