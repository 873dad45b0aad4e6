"""The rules of attention and silences, which are pure: clocks, matchers, what ends what."""

from __future__ import annotations

import re
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given, strategies as st

from escalation.model import (
    SEVERITY_ORDER,
    AgentId,
    CaseId,
    FaultClass,
    Incarnation,
    Incident,
    IncidentId,
    Severity,
    Subject,
    SubjectKind,
)
from escalation.server.attention.silences import (
    GUARDED,
    Field,
    Matcher,
    Origin,
    Phase,
    Silence,
    SilenceId,
    Test as Compare,
    checked,
    fits_pattern,
    for_host,
    parse,
)
from escalation.server.attention.values import (
    Acknowledgement,
    Attention,
    AttentionSettings,
    Remark,
    Seen,
    Shelf,
    Snooze,
    Thread,
    ended,
    is_on,
    seen_of,
    with_remark,
)
from escalation.server.clock import SLACK_NS
from escalation.view.attention import attention_view, silence_view
from escalation.wording.moments import moment, read_moment

S = 1_000_000_000
T0 = 1_767_225_600 * S


def incident(**fields: Any) -> Incident:
    standing = Incident(
        id=IncidentId("inc-1"),
        agent_id=AgentId("spark-1"),
        fault_class=FaultClass.GPU_ACCESS_REVOKED,
        fault_number=None,
        subject=Subject(SubjectKind.CONTAINER, "ollama"),
        target=None,
        severity=Severity.HIGH,
        incarnation=Incarnation(kernel_boot_id="kernel-1"),
        case_id=CaseId("case-1"),
        open=True,
        first_seen_ns=T0,
        last_seen_ns=T0,
        cleared_ns=None,
        count=3,
    )
    return replace(standing, **fields)


def silence(*matchers: str, **fields: Any) -> Silence:
    standing = Silence(
        id=SilenceId("sil-1"),
        matchers=checked(parse(each) for each in matchers),
        author="ada",
        comment="we change its fan",
        created_ns=T0,
        starts_ns=T0,
        ends_ns=T0 + 3600 * S,
    )
    return replace(standing, **fields)


SEEN = seen_of(incident(), ())
OWNED = Acknowledgement("ada", T0, T0 + 1800 * S, SEEN)
SNOOZED = Snooze("ada", T0, T0 + 1800 * S, SEEN)


# Patterns and matchers -----------------------------------------------------------------------------------

_alphabet = st.text(st.sampled_from("ab*?.-é"), max_size=12)


@given(pattern=_alphabet, text=st.text(st.sampled_from("ab.-é"), max_size=12))
def test_pattern_fits_what_the_library_says_fits(pattern: str, text: str) -> None:
    """A pattern means what the same pattern means to fnmatch, which has no other letters here."""
    assert fits_pattern(pattern, text) is fnmatchcase(text, pattern)


@given(pattern=st.text(max_size=30), text=st.text(max_size=30))
def test_pattern_of_anything_terminates_and_reads_nothing_but_star_and_mark(pattern: str, text: str) -> None:
    """Brackets, braces and backslashes are letters: there is no other way to write a pattern."""
    by_hand = "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    assert fits_pattern(pattern, text) is (re.fullmatch(by_hand, text, re.DOTALL) is not None)


def test_worst_pattern_takes_no_more_than_the_product_of_the_lengths() -> None:
    """What brings a backtracking matcher to its knees is answered at once."""
    assert not fits_pattern("*a" * 100, "a" * 60 + "b" * 5000)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("host=spark-1", True),
        ("host=spark", False),
        ("host!=spark-1", False),
        ("host~spark-*", True),
        ("host~?park-1", True),
        ("fault_class=gpu.access_revoked", True),
        ("fault_class~gpu.*", True),
        ("fault_class!=gpu.access_revoked", False),
        ("subject_kind=container", True),
        ("subject_name=ollama", True),
        ("subject_name~*=*", False),
        ("severity=high", True),
        ("severity!=critical", True),
    ],
)
def test_matcher_reads_and_fits(text: str, fits: bool) -> None:
    """Each field with each comparison, as people write it."""
    assert str(parse(text)) == text
    assert parse(text).fits(incident()) is fits


@pytest.mark.parametrize(
    "text",
    ["", "host", "host=", "hosts=a", "host>a", "=a", "severity=bad", "fault_class=gpu", "subject_kind=pod",
     "host=" + "a" * 201, "host=a\0b"],
)  # fmt: skip
def test_matcher_that_could_mean_nothing_is_refused(text: str) -> None:
    """A typing mistake is an error, never a silence that covers nothing."""
    with pytest.raises(ValueError):
        parse(text)


@given(st.text(max_size=300))
def test_any_text_is_a_matcher_or_a_value_error(text: str) -> None:
    """What is read is written back as it was; everything else is refused in words."""
    try:
        read = parse(text)
    except ValueError:
        return
    assert str(read) == text


def test_silence_of_everything_is_refused() -> None:
    """Nobody hides the whole fleet with one star, nor with what it is not."""
    for matchers in (
        [],
        ["host~*"],
        ["host~*", "fault_class~**"],
        ["host~?*"],
        ["severity!=note"],
        ["host!=spark-9", "subject_name~*"],
    ):
        with pytest.raises(ValueError):
            checked(parse(each) for each in matchers)
    assert checked([parse("host~*"), parse("severity=note")])
    assert checked([parse("host!=spark-1"), parse("fault_class~gpu.*")])


def test_order_and_repetition_of_matchers_do_not_matter() -> None:
    """Two silences that mean the same are written the same."""
    one, two = parse("host=a"), parse("severity=note")
    assert checked([one, two, one]) == checked([two, one])


def test_every_matcher_has_to_fit() -> None:
    """Matchers narrow; they never widen."""
    assert silence("host=spark-1", "severity=high").covers(incident())
    assert not silence("host=spark-1", "severity=note").covers(incident())


@pytest.mark.parametrize("fault_class", sorted(GUARDED))
def test_exposure_and_blindness_are_silenced_only_by_name(fault_class: FaultClass) -> None:
    """A host, a pattern, even every other class: none of it covers a guarded class, its own name does."""
    exposed = incident(fault_class=fault_class)
    others = ("host=spark-1", "fault_class!=gpu.access_revoked")
    for matchers in (("host=spark-1",), (f"fault_class~{fault_class}*",), others):
        assert not silence(*matchers).covers(exposed)
    assert silence("host=spark-1", f"fault_class={fault_class}").covers(exposed)
    assert silence("host=spark-1", also=(fault_class,)).covers(exposed)
    assert not silence("host=spark-2", also=(fault_class,)).covers(exposed)


def test_host_of_maintenance_is_a_name_or_a_pattern() -> None:
    """Both read as one argument."""
    assert for_host("spark-1") == Matcher(Field.HOST, Compare.IS, "spark-1")
    assert for_host("spark-*") == Matcher(Field.HOST, Compare.FITS, "spark-*")


# Clocks --------------------------------------------------------------------------------------------------

_offsets = st.integers(-2 * 86_400, 2 * 86_400)


@given(offset_s=_offsets, length_s=st.integers(60, 86_400), starts_s=st.integers(0, 86_400))
def test_silence_is_active_only_between_its_ends(offset_s: int, length_s: int, starts_s: int) -> None:
    """No reading of the clock, early or late, makes it active outside of what its author said."""
    planned = silence("host=a", starts_ns=T0 + starts_s * S, ends_ns=T0 + (starts_s + length_s) * S)
    phase = planned.phase(T0 + offset_s * S)
    assert (phase is Phase.ACTIVE) is (starts_s <= offset_s < starts_s + length_s and offset_s >= -60)
    if offset_s * S < -SLACK_NS:
        assert phase is Phase.OVER


@given(offset_s=_offsets, at_s=st.integers(0, 7200))
def test_silence_that_was_ended_stays_over_and_shows_when(offset_s: int, at_s: int) -> None:
    """Ended early, it is never longer than it was, and over from then on."""
    done = silence("host=a").ended(person="grace", now_ns=T0 + at_s * S)
    assert done.ended_by == "grace"
    assert done.created_ns <= done.ends_ns <= T0 + 3600 * S
    if offset_s >= at_s:
        assert done.phase(T0 + offset_s * S) is Phase.OVER


@given(offset_s=_offsets, kept=st.sampled_from([OWNED, SNOOZED]))
def test_time_ends_what_was_put_off_in_both_directions(offset_s: int, kept: Acknowledgement | Snooze) -> None:
    """A clock that jumps forward ends it too soon, one that jumps back ends it too: nothing is prolonged."""
    in_force = ended(kept, SEEN, now_ns=T0 + offset_s * S) is None
    assert in_force is (-60 <= offset_s < 1800)


# What breaks -----------------------------------------------------------------------------------------------

_seen = st.builds(
    Seen,
    severity=st.sampled_from(SEVERITY_ORDER),
    count=st.integers(1, 10**6),
    parts=st.lists(
        st.tuples(st.sampled_from(["spark-1", "spark-2"]), st.just("unit"), st.sampled_from("ab")),
        min_size=1,
        unique=True,
    ).map(lambda parts: tuple(sorted(parts))),
)


@given(before=_seen, now=_seen)
def test_whatever_breaks_an_acknowledgement_breaks_a_snooze(before: Seen, now: Seen) -> None:
    """A snooze is the weaker of both: nobody looks."""
    owned = ended(Acknowledgement("ada", T0, T0 + S, before), now, now_ns=T0)
    snoozed = ended(Snooze("ada", T0, T0 + S, before), now, now_ns=T0)
    if owned is not None:
        assert snoozed is not None


@given(seen=_seen)
def test_what_stays_as_it_was_or_gets_better_breaks_nothing(seen: Seen) -> None:
    """The same again, or less of it, is what was put off."""
    better = Seen(SEVERITY_ORDER[0], 1, seen.parts[:1])
    for now in (seen, better):
        assert ended(Snooze("ada", T0, T0 + S, seen), now, now_ns=T0) is None


@pytest.mark.parametrize(
    ("now", "acknowledged", "snoozed"),
    [
        (incident(severity=Severity.CRITICAL), "it got worse: high became critical", None),
        (incident(severity=Severity.NOTE), None, None),
        (incident(count=29), None, None),
        (incident(count=30), None, "it was seen 30 times, after 3"),
    ],
)
def test_severity_breaks_both_and_count_the_snooze(
    now: Incident, acknowledged: str | None, snoozed: str | None
) -> None:
    """Each reason is in words, and counts only where it should."""
    seen = seen_of(now, ())
    assert ended(OWNED, seen, now_ns=T0) == acknowledged
    assert ended(SNOOZED, seen, now_ns=T0) == (snoozed or acknowledged)


def test_another_host_breaks_both_and_another_subject_the_snooze() -> None:
    """What joins is what the incident explains."""
    elsewhere = incident(id=IncidentId("inc-2"), agent_id=AgentId("spark-2"))
    beside = incident(id=IncidentId("inc-3"), subject=Subject(SubjectKind.ROUTE, "llama"))
    assert ended(OWNED, seen_of(incident(), [elsewhere]), now_ns=T0) == "another host joined"
    assert ended(OWNED, seen_of(incident(), [beside]), now_ns=T0) is None
    assert ended(SNOOZED, seen_of(incident(), [beside]), now_ns=T0) == "another subject joined"


# Threads ---------------------------------------------------------------------------------------------------


def _remark(number: int, *, answers: int | None = None, to: tuple[str, ...] = ()) -> Remark:
    return Remark(number=number, person="ada", at_ns=T0, text="why?", to=to, answers=answers)


def test_question_waits_until_it_is_answered() -> None:
    """Who was named is asked until the last question has its answer."""
    asked = with_remark(with_remark(Thread(), _remark(1, to=("grace",))), _remark(2, to=("ada",)))
    assert asked == Thread(2, (1, 2), ("grace", "ada"))
    half = with_remark(asked, _remark(3, answers=1))
    assert half == Thread(3, (2,), ("grace", "ada"))
    assert with_remark(half, _remark(4, answers=2)) == Thread(4, (), ())


def test_shelves_hold_what_their_names_say() -> None:
    """Each part of the queue has what is in force, and an entry may be in several."""
    attention = Attention(acknowledged=OWNED, thread=Thread(1, (1,)), silenced_by=(silence("host=a"),))
    assert {each for each in Shelf if is_on(each, attention)} == {
        Shelf.ACKNOWLEDGED, Shelf.ASKED, Shelf.SILENCED
    }  # fmt: skip
    assert attention.put_aside
    assert not Attention(acknowledged=OWNED).put_aside
    assert not attention.in_maintenance
    assert Attention(silenced_by=(silence("host=a", origin=Origin.DECLARED),)).in_maintenance


# What is shown ---------------------------------------------------------------------------------------------

HOSTILE = "<b>\x1b[31m\u202e\n"


def test_views_hold_nothing_that_acts() -> None:
    """What people and hosts wrote is shown escaped, in a thread, a comment and a matcher."""
    thread = _remark(1)
    attention = Attention(
        acknowledged=replace(OWNED, person=HOSTILE),
        remarks=(replace(thread, text=HOSTILE, to=(HOSTILE,)),),
        silenced_by=(silence("subject_name=" + HOSTILE, comment=HOSTILE),),
    )
    said = f"{attention_view(attention)}{silence_view(attention.silenced_by[0], now_ns=T0)}"
    assert "\\\\x1b" in said
    assert not set("\x1b\u202e\n") & set(said)


def test_settings_refuse_a_default_beyond_their_own_limit() -> None:
    """What nobody could ask for is not given by default either."""
    with pytest.raises(ValueError, match="longer"):
        AttentionSettings(acknowledge_s=7200.0, acknowledge_at_most_s=3600.0)


def test_moments_are_read_back_and_want_their_zone() -> None:
    """A time is of no use without its zone."""
    assert read_moment(moment(T0 + 5_000_000)) == T0 + 5_000_000
    assert read_moment("2026-01-01T02:00:00+02:00") == T0
    for text in ("2026-01-01T00:00:00", "tomorrow", ""):
        with pytest.raises(ValueError):
            read_moment(text)
