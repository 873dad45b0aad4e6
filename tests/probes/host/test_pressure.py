"""host.memory: what the kernel's files say, what is worth telling, and files that are missing or broken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from probes.host.clock import now
from probes.host.pressure import SAMPLE_S, TELL_S, MemorySensor
from probes.observation import Blind, BlindReason, MemoryState
from probes.sensor import SensorBlind
from probes.testing import instant

GIB = 1 << 30


class Host:
    """A made-up /proc and a clock that a test moves; counters rise as they do in the kernel."""

    def __init__(self, proc: Path) -> None:
        self.proc = proc
        self.at_s = 100.0
        (proc / "pressure").mkdir()
        self.memory(available=64 * GIB)
        self.counters()
        self.stalled()
        self.sensor = MemorySensor(proc=proc, monotonic=lambda: self.at_s)

    def memory(self, *, available: int, free: int = 2 * GIB, total: int = 128 * GIB) -> None:
        (self.proc / "meminfo").write_text(
            f"MemTotal: {total // 1024:>15} kB\nMemFree: {free // 1024:>10} kB\n"
            f"MemAvailable: {available // 1024:>8} kB\nCached: {GIB // 1024} kB\nSwapCached: 7 kB\n"
            f"SwapTotal: {8 * GIB // 1024} kB\nSwapFree: {4 * GIB // 1024} kB\nHugePages_Total:       0\n"
        )

    def counters(self, *, stalls: int = 0, swapped_in: int = 0, kills: int = 0) -> None:
        (self.proc / "vmstat").write_text(
            f"nr_free_pages 5\nallocstall_dma {stalls}\nallocstall_normal {stalls}\nallocstall_movable 1\n"
            f"pswpin {swapped_in}\npgmajfault 3\noom_kill {kills}\n"
        )

    def stalled(self, *, full: float = 0.0, total_us: int = 0) -> None:
        (self.proc / "pressure/memory").write_text(
            f"some avg10={full + 1:.2f} avg60=0.00 avg300=0.00 total={total_us + 9}\n"
            f"full avg10={full:.2f} avg60=0.00 avg300=0.00 total={total_us}\n"
        )

    def looks(self, after_s: float) -> list[MemoryState]:
        """Let time pass and read once."""
        self.at_s += after_s
        said = self.sensor.read(instant(self.at_s)) if self.sensor.waiting() else ()
        return [seen for seen in said if isinstance(seen, MemoryState)]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host at rest whose first look is told."""
    made = Host(tmp_path)
    made.sensor.open()
    (first,) = made.looks(0)
    assert (first.window_s, first.allocation_stalls) == (0.0, 0)
    yield made
    made.sensor.close()


def test_tells_sizes_and_what_happened_since_it_last_told(host: Host) -> None:
    """Sizes in bytes, the stalls of all zones added up, and time stalled in seconds."""
    host.memory(available=3 * GIB, free=GIB)
    host.counters(stalls=5, swapped_in=11, kills=2)
    host.stalled(full=12.5, total_us=1_500_000)
    (state,) = host.looks(SAMPLE_S)
    assert (state.total_bytes, state.available_bytes, state.free_bytes) == (128 * GIB, 3 * GIB, GIB)
    assert (state.swap_total_bytes, state.swap_free_bytes) == (8 * GIB, 4 * GIB)
    assert (state.some_avg10, state.full_avg10, state.full_stalled_s) == (13.5, 12.5, 1.5)
    assert (state.allocation_stalls, state.swapped_in_pages, state.oom_kills) == (10, 11, 2)
    assert state.window_s == SAMPLE_S


def test_a_host_at_rest_is_told_of_seldom(host: Host) -> None:
    """Nothing moved: one look in `TELL_S` is told, and it spans all of that time."""
    told = [state for _ in range(10) for state in host.looks(SAMPLE_S)]
    assert [state.window_s for state in told] == [TELL_S, TELL_S]


@pytest.mark.parametrize("change", ["memory", "stalls", "pressure", "kills"])
def test_what_moves_is_told_at_the_next_look(host: Host, change: str) -> None:
    """Available memory by half a percent, a stall, a share of time, a kill: each is worth telling alone."""
    match change:
        case "memory":
            host.memory(available=64 * GIB - 128 * GIB // 200)
        case "stalls":
            host.counters(stalls=1)
        case "pressure":
            host.stalled(full=0.5, total_us=10)
        case "kills":
            host.counters(kills=1)
    assert len(host.looks(SAMPLE_S)) == 1


def test_a_host_that_is_short_is_told_of_at_every_look(host: Host) -> None:
    """With little left, how fast it goes has to be known from many looks."""
    host.memory(available=15 * GIB)
    assert [len(host.looks(SAMPLE_S)) for _ in range(4)] == [1, 1, 1, 1]


def test_looks_no_more_often_than_it_should(host: Host) -> None:
    """However often it is asked, memory is looked at each `SAMPLE_S`."""
    host.memory(available=GIB)
    assert [len(host.looks(0.25)) for _ in range(8)] == [0] * 7 + [1]


def test_a_kernel_without_pressure_accounting_says_so(tmp_path: Path) -> None:
    """No share of time is None, not zero; the counters are told all the same."""
    made = Host(tmp_path)
    (tmp_path / "pressure/memory").unlink()
    made.sensor.open()
    (state,) = made.looks(0)
    assert (state.some_avg10, state.full_avg10) == (None, None)
    made.sensor.close()


def test_a_host_without_meminfo_cannot_be_seen(tmp_path: Path) -> None:
    """macOS has no such file."""
    with pytest.raises(SensorBlind) as caught:
        MemorySensor(proc=tmp_path).open()
    assert caught.value.blind.reason is BlindReason.UNSUPPORTED_PLATFORM


@pytest.mark.parametrize("text", ["", "\0" * 5000, "MemTotal: x kB\n", "MemTotal: 99999999999999999999 kB\n"])
def test_a_broken_file_blinds_the_read_and_not_the_glance(host: Host, text: str) -> None:
    """`waiting` never raises, because it is asked where nothing may; the read tells what is missing."""
    (host.proc / "meminfo").write_text(text)
    host.at_s += SAMPLE_S
    assert host.sensor.waiting()
    with pytest.raises(SensorBlind) as caught:
        host.sensor.read(instant(host.at_s))
    assert caught.value.blind == Blind(BlindReason.READ_FAILED, "/proc/meminfo has no MemAvailable")


def test_reads_files_longer_than_a_page(host: Host) -> None:
    """The kernel hands a long vmstat out in pieces; what stands in the last one counts."""
    padding = "".join(f"nr_padding_{number} 1\n" for number in range(1500))
    (host.proc / "vmstat").write_text(padding + "oom_kill 41\n")
    (state,) = host.looks(SAMPLE_S)
    assert state.oom_kills == 41


def test_sees_this_machine() -> None:
    """On the real files: available is part of all, and free is not more than all."""
    sensor = MemorySensor()
    try:
        sensor.open()
    except SensorBlind as blind:
        pytest.skip(str(blind))
    (state,) = sensor.read(now())
    assert isinstance(state, MemoryState)
    assert 0 < state.available_bytes <= state.total_bytes
    assert 0 < state.free_bytes <= state.total_bytes
    sensor.close()
    sensor.close()
