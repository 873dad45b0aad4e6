"""Xids: the table is sound, the unknown stays visible, and several tellings are one event."""

from __future__ import annotations

import itertools

from hypothesis import given, strategies as st

from probes.gpu.facts import XidFacts, XidSource
from probes.gpu.xids import WINDOW_S, XIDS, XidJoin, XidScope, XidTier, meaning_of
from probes.observation import GpuXid, Origin, SensorName
from probes.testing import instant

_GB10 = "000f:01:00.0"


def _told(
    at_s: float,
    source: XidSource,
    *,
    number: int = 31,
    pci: str | None = _GB10,
    pid: int | None = None,
    instance: int | None = None,
) -> GpuXid:
    facts = XidFacts(pci=pci, number=number, source=source, gpu_instance=instance)
    return GpuXid(SensorName(f"of.{source}"), instant(at_s), Origin(pid=pid), facts)


def test_the_table_has_each_number_once() -> None:
    """No number has two meanings."""
    numbers = [xid.number for xid in XIDS]
    assert len(numbers) == len(set(numbers))
    assert all(meaning_of(xid.number) is xid and xid.known for xid in XIDS)


def test_the_xids_of_the_catalogue_have_their_scope() -> None:
    """What an application did to itself, and what is wrong with the GPU."""
    assert {meaning_of(n).scope for n in (8, 13, 31, 32, 43, 45, 69, 94)} == {XidScope.APPLICATION}
    device = (46, 48, 62, 64, 79, 95, 109, 119, 120, 140, 143, 154, 158)
    assert {meaning_of(n).scope for n in device} == {XidScope.DEVICE}
    assert meaning_of(74).scope is XidScope.LINK
    assert meaning_of(154).tier is XidTier.ASK_THE_DRIVER
    assert {meaning_of(n).tier for n in (43, 45)} == {XidTier.NOTE}


def test_an_unknown_number_stays_visible() -> None:
    """A newer driver's Xid is a note under its own number."""
    unknown = meaning_of(4242)
    assert (unknown.number, unknown.name, unknown.known) == (4242, "XID_4242", False)
    assert (unknown.scope, unknown.tier) == (XidScope.UNKNOWN, XidTier.NOTE)


def test_three_sources_tell_of_one_event() -> None:
    """Whoever comes first opens it; what only a later one knows is put in."""
    join = XidJoin()
    first = join.take(_told(10.0, XidSource.TRACEPOINT))
    second = join.take(_told(10.2, XidSource.NVML, instance=3))
    third = join.take(_told(11.0, XidSource.LOG, pid=77))
    assert [first.serial, second.serial, third.serial] == [1, 1, 1]
    assert third.sources == set(XidSource)
    assert (third.facts.gpu_instance, third.first.origin.pid) == (3, 77)
    assert (third.first.at, third.last_at) == (instant(10.0), instant(11.0))


def test_a_source_that_repeats_itself_tells_of_another_event() -> None:
    """Seven times from one and five times from another are seven events."""
    join = XidJoin()
    serials = [join.take(_told(i / 10, XidSource.NVML)).serial for i in range(7)]
    serials += [join.take(_told(i / 10, XidSource.LOG)).serial for i in range(5)]
    assert serials == [1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4, 5]


def test_other_gpus_other_numbers_and_other_times_are_other_events() -> None:
    """The identity is the address, the number and the moment."""
    join = XidJoin()
    told = [
        _told(0, XidSource.NVML),
        _told(0, XidSource.LOG, pci="0000:01:00.0"),
        _told(0, XidSource.LOG, number=13),
        _told(WINDOW_S + 1, XidSource.LOG),
    ]
    assert [join.take(t).serial for t in told] == [1, 2, 3, 4]


def test_a_telling_without_an_address_joins_and_learns_it() -> None:
    """A GPU that fell off the bus may not say where it was."""
    join = XidJoin()
    join.take(_told(0, XidSource.NVML, number=79, pci=None))
    event = join.take(_told(1, XidSource.LOG, number=79))
    assert (event.serial, event.facts.pci) == (1, _GB10)


_counts = st.dictionaries(st.sampled_from(XidSource), st.integers(0, 11), max_size=3)


@given(counts=_counts, seed=st.randoms(use_true_random=False))
def test_the_count_is_that_of_the_source_that_told_most(counts: dict[XidSource, int], seed: object) -> None:
    """Whatever the order of tellings within the window."""
    told = [source for source, count in counts.items() for _ in range(count)]
    seed.shuffle(told)  # type: ignore[attr-defined]
    join = XidJoin()
    serials = {join.take(_told(i / 100, source)).serial for i, source in enumerate(told)}
    assert len(serials) == max(counts.values(), default=0)


def test_a_storm_is_remembered_in_bounds() -> None:
    """More events than fit push the oldest out; each is counted."""
    join = XidJoin()
    numbers = itertools.cycle((13, 31, 43))
    last = [join.take(_told(0, XidSource.NVML, number=next(numbers))) for _ in range(1009)][-1]
    assert last.serial == 1009
    assert repr(join) == "XidJoin(events=1009, recent=256)"
