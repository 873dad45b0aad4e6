"""What is remembered of routes: windows of counts, bounded tables, shares that chance does not explain."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, strategies as st

from agent.routes.names import port_of, route_id_of, subject_of_route
from agent.routes.window import CountWindow, RouteTable, share_at_least, share_at_most
from agent.testing import origin
from escalation.model import RouteKind, ServerKind, Subject, SubjectKind
from escalation.wire.limits import TEXT_BYTES
from probes.http.facts import Route, RouteName

SECOND = 1_000_000_000


@dataclass
class State:
    """The least that a table keeps."""

    name: RouteName
    subject: Subject
    used_ns: int = 0


def named(model: str | None, port: int = 8000) -> RouteName:
    """Return a chat route."""
    return RouteName(port, Route.CHAT_COMPLETIONS, model)


@pytest.mark.parametrize(
    ("affected", "total", "bound"), [(5, 5, 0.6488), (5, 20, 0.1269), (0, 10, 0.0), (10, 100, 0.0608)]
)
def test_share_is_known_only_as_well_as_it_was_seen(affected: int, total: int, bound: float) -> None:
    """Five of five say more than five of twenty, and ten of a hundred less than ten per cent."""
    assert share_at_least(affected, total) == pytest.approx(bound, abs=5e-4)
    assert share_at_most(total - affected, total) == pytest.approx(1 - bound, abs=5e-4)


def test_share_of_nothing_is_unknown() -> None:
    """Without exchanges the share is between none and all."""
    assert (share_at_least(0, 0), share_at_most(0, 0)) == (0.0, 1.0)


def test_window_forgets_what_is_older_than_itself() -> None:
    """A count leaves with its bucket."""
    window = CountWindow(2, window_s=60, buckets=6)
    window.add(0, 5 * SECOND)
    window.add(1, 30 * SECOND)
    assert window.at(59 * SECOND) == [1, 1]
    assert window.at(61 * SECOND) == [0, 1]
    assert window.at(1000 * SECOND) == [0, 0]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 400)), max_size=60))
def test_window_counts_like_a_list(events: list[tuple[int, int]]) -> None:
    """In any order of times, the counts are those of the last six buckets."""
    window = CountWindow(3, window_s=60, buckets=6)
    kept: list[tuple[int, int]] = []
    newest = 0
    for index, second in events:
        newest = max(newest, second // 10)
        window.add(index, second * SECOND)
        kept.append((index, newest))
    live = [index for index, bucket in kept if bucket > newest - 6]
    assert window.totals == [live.count(index) for index in range(3)]


def test_table_forgets_the_route_that_is_unused_for_the_longest() -> None:
    """A route that was idle for an hour makes room, in the table of subjects too."""
    table: RouteTable[State] = RouteTable(State, limit=2)
    table.of(named("a"), 0)
    table.of(named("b"), SECOND)
    table.of(named("c"), 3601 * SECOND)
    assert [state.name.model for state in table] == ["b", "c"]
    assert table.about(subject_of_route(named("a"))) is None


def test_table_folds_new_names_while_every_route_is_in_use() -> None:
    """A client that makes up models pushes no real one out."""
    table: RouteTable[State] = RouteTable(State, limit=2)
    table.of(named("a"), 0)
    table.of(named("b"), 0)
    for n in range(1000):
        table.of(named("a"), n)
        assert table.of(named(f"made-up-{n}"), n).name.model is None
    assert len(table) == 2
    assert table.known(named("a")) is not None


@given(st.lists(st.tuples(st.text(max_size=8), st.integers(0, 10_000)), max_size=80))
def test_table_never_grows_beyond_its_limit(uses: list[tuple[str, int]]) -> None:
    """Whatever names come, and whenever."""
    table: RouteTable[State] = RouteTable(State, limit=5)
    for model, second in uses:
        state = table.of(named(model or None), second * SECOND)
        assert table.about(state.subject) is state
    assert len(table) <= 5


def test_subject_and_id_name_port_route_and_model() -> None:
    """People read the one, programs the other."""
    name = named("qwen3-32b")
    assert subject_of_route(name) == Subject(SubjectKind.ROUTE, "8000/chat_completions qwen3-32b")
    assert subject_of_route(named(None)).name == "8000/chat_completions"
    found = route_id_of(name, origin())
    assert (found.port, found.route, found.server) == (8000, RouteKind.CHAT_COMPLETIONS, ServerKind.VLLM)
    assert port_of(subject_of_route(name)) == 8000


@given(st.text(alphabet=st.characters(), max_size=300) | st.just("\udcff\x00" * 200))
def test_hostile_names_fit_the_wire(model: str) -> None:
    """Whatever a client calls a model, subject and id can be sent, and the port is found again."""
    name = named(model)
    subject = subject_of_route(name)
    assert len(subject.name.encode()) <= TEXT_BYTES["Subject.name"]
    assert len(route_id_of(name, origin()).model.encode()) <= TEXT_BYTES["RouteId.model"]
    assert port_of(subject) == 8000


@pytest.mark.parametrize("text", ["", "/", "x/chat", "²/chat", "-1/chat", "8000"])
def test_port_of_what_is_no_route_is_none(text: str) -> None:
    """A subject that is not of ours names no port."""
    assert port_of(Subject(SubjectKind.ROUTE, text)) is None
