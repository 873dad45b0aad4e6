"""When a fault was seen how often: counted in few numbers, kept with its incident, drawn with its words."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given, strategies as st

from escalation.model import CasePhase, Sightings
from escalation.model.sightings import STEPS_AT_MOST
from escalation.server.storage import rows
from escalation.server.testing import START_NS, FakeDesk, case_report
from escalation.server.web.charts import strip_of

_MINUTE_NS = 60_000_000_000


@given(
    st.lists(
        st.tuples(st.integers(0, 2**62), st.integers(0, 50)) | st.tuples(st.integers(0, 10**13), st.just(1)),
        max_size=60,
    ),
    st.integers(0, 2**62),
)
def test_whatever_is_seen_is_counted_once_in_few_steps(seen: list[tuple[int, int]], start_ns: int) -> None:
    """The steps never are more than there is room for, add up to what was seen, and reach its last time."""
    kept = Sightings(start_ns)
    for at_ns, count in seen:
        kept = kept.with_more(count, at_ns=at_ns)
    assert len(kept.counts) <= STEPS_AT_MOST
    assert sum(kept.counts) == sum(count for _, count in seen)
    assert all(at_ns < kept.end_ns for at_ns, count in seen if count)
    assert kept.start_ns == start_ns


def test_two_steps_become_one_when_time_runs_out_of_them() -> None:
    """What was seen stands where it was seen, to the length of a step."""
    kept = Sightings(START_NS)
    for minute, count in ((0, 1), (3, 4), (23, 2)):
        kept = kept.with_more(count, at_ns=START_NS + minute * _MINUTE_NS)
    assert (kept.step_s, kept.counts[0], kept.counts[3], kept.counts[23]) == (60, 1, 4, 2)
    later = kept.with_more(5, at_ns=START_NS + 40 * _MINUTE_NS)
    assert later.step_s == 120
    assert {place: count for place, count in enumerate(later.counts) if count} == {0: 1, 1: 4, 11: 2, 20: 5}
    assert later.with_more(1, at_ns=0).counts[0] == 2


async def _seen(desk: FakeDesk, count: int, minute: int, phase: CasePhase = CasePhase.UPDATED) -> None:
    seen_ns = START_NS + minute * _MINUTE_NS
    await desk.report(case_report(phase, first_seen_ns=START_NS, last_seen_ns=seen_ns, count=count))


async def test_an_incident_counts_what_each_report_adds_at_its_time() -> None:
    """Repeats and reports that come late add what is new, and the database gives back the same."""
    desk = FakeDesk()
    await desk.opened()
    for count, minute in ((4, 2), (4, 3), (9, 5), (8, 4)):
        await _seen(desk, count, minute)
    (incident,) = await desk.incidents()
    assert incident.sightings.counts == (1, 0, 3, 0, 0, 5)
    assert incident.count == 9
    assert rows.load_incident(rows.dump_incident(incident)) == incident


async def test_what_was_opened_before_sightings_were_counted_is_counted_from_then_on() -> None:
    """An incident of an older database has none, and no drawing until there is something to draw."""
    desk = FakeDesk()
    await desk.opened()
    (incident,) = await desk.incidents()
    kept = json.loads(rows.dump_incident(incident))
    del kept["sightings"]
    older = rows.load_incident(json.dumps(kept))
    assert older.sightings.counts == ()
    assert strip_of(older, now_ns=desk.clock.wall_ns()) is None
    desk.store.ledger.put_incident(older)
    await _seen(desk, 4, 90)
    (incident,) = await desk.incidents()
    assert (incident.sightings.start_ns, incident.sightings.counts) == (START_NS + 90 * _MINUTE_NS, (3,))


async def test_a_drawing_says_the_same_in_words_and_shows_that_nothing_came_any_more() -> None:
    """Of an open incident it goes on to now; of one that is over it ends with the last sight."""
    desk = FakeDesk()
    await desk.opened()
    await _seen(desk, 2, 2)
    (incident,) = await desk.incidents()
    assert strip_of(incident, now_ns=START_NS + 9 * _MINUTE_NS) is None, "twice needs no drawing"
    await _seen(desk, 6, 4)
    (incident,) = await desk.incidents()
    strip = strip_of(incident, now_ns=START_NS + 9 * _MINUTE_NS)
    assert strip is not None
    assert strip.heights == (0.25, 0, 0.25, 0, 1, 0, 0, 0, 0, 0)
    assert strip.words == (
        "From 2026-01-01T00:00:00.000Z in steps of 1 min: 6 sightings, at most 4 in one step, "
        "none for the last 4 min."
    )
    over = strip_of(replace(incident, open=False), now_ns=START_NS + 9 * _MINUTE_NS)
    assert over is not None
    assert len(over.heights) == 5
    assert "none for" not in over.words
