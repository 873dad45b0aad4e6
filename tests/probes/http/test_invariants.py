"""What holds for every conversation: cuts, repeats, disorder change nothing; a loss never makes a fault."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, astuple, replace
from operator import eq

from hypothesis import HealthCheck, given, settings, strategies as st

from probes.http.facts import ExchangeFacts, RouteName
from probes.http.observer import Observer
from probes.http.segment import SYN, Segment
from tests.probes.http.conversations import conversations
from tests.probes.http.wire import S, Seen, Wire, cut_anew, observe, seen, stream_head

_SIZES = st.lists(st.one_of(st.integers(1, 40), st.integers(1, 1500)), min_size=1, max_size=12)
_EXAMPLES = os.environ.get("NANOBOT_EXAMPLES")
_RELAXED = settings(
    max_examples=int(_EXAMPLES or 150),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def essence(facts: ExchangeFacts) -> ExchangeFacts:
    """The facts without those of the request, which may be lost without harm to the answer's."""
    return replace(
        facts,
        name=RouteName(facts.name.port, facts.name.route, None),
        stream_asked=None,
        tools_asked=None,
        max_tokens=None,
        request_bytes=0,
    )


def assert_known(after: Seen, complete: Sequence[ExchangeFacts]) -> None:
    """Each of these facts is among those of the whole conversation; the nearest one is shown if not."""
    for facts in after.exchanges:
        if (known := essence(facts)) not in complete:
            nearest = max(complete, key=lambda one: sum(map(eq, astuple(one), astuple(known))))
            ours, theirs = asdict(known), asdict(nearest)
            differing = {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]}
            assert not differing, differing


def one_after_the_other(pieces: Sequence[Segment]) -> list[Segment]:
    """Give each its own moment, as the kernel does."""
    return [piece._replace(at_ns=piece.at_ns + 1000 * n) for n, piece in enumerate(pieces)]


@given(conversations(), _SIZES)
@_RELAXED
def test_facts_do_not_depend_on_where_segments_are_cut(wire: Wire, sizes: list[int]) -> None:
    """One piece, single bytes, or anything between."""
    assert observe(cut_anew(wire.segments, sizes)) == observe(wire.segments)


@given(conversations(), _SIZES, st.randoms(use_true_random=False))
@_RELAXED
def test_repeats_overlaps_and_disorder_change_nothing(wire: Wire, sizes: list[int], random: object) -> None:
    """Segments of one direction swap places within reach of the parking, come twice, or overlap."""
    pieces = cut_anew(wire.segments, sizes)
    assert observe(disordered(pieces, random)) == observe(wire.segments)


def disordered(pieces: Sequence[Segment], random: object) -> list[Segment]:
    """Swap neighbours of one direction, repeat some, and let some begin earlier than they did."""
    done: list[Segment] = []
    for n, piece in enumerate(pieces):
        done.append(piece)
        before = pieces[n - 1] if n else piece
        same = before.to_server == piece.to_server and not (before.flags | piece.flags) & SYN
        match random.randrange(6):  # type: ignore[attr-defined]
            case 0:
                done.append(piece)
            case 1 if same and len(done) > 1 and done[-2] is before:
                done[-1], done[-2] = done[-2], done[-1]
            case 2 if same and before.data and not before.skipped:
                done[-1] = piece._replace(seq=before.seq, data=before.data + piece.data)
            case _:
                pass
    return done


@given(
    conversations(),
    _SIZES,
    st.lists(st.integers(0, 10_000), min_size=1, max_size=4),
    st.lists(st.integers(0, 10_000), max_size=2),
)
@_RELAXED
def test_a_loss_never_makes_a_fault(wire: Wire, sizes: list[int], lost: list[int], rounds: list[int]) -> None:
    """What is said after a loss was true without it; the rest is unobserved. Losses are told once a round."""
    pieces = one_after_the_other(cut_anew(wire.segments, sizes))
    gone = {n % len(pieces) for n in lost}
    complete = [essence(facts) for facts in observe(pieces).exchanges]
    observer = Observer()
    exchanges = []
    since = 0
    for n, piece in enumerate(pieces):
        if n in gone:
            since += 1
        else:
            observer.feed(piece)
        if n in {one % len(pieces) for one in rounds}:
            observer.lost(since, piece.at_ns)
            exchanges += seen(observer).exchanges
            since = 0
    observer.lost(since, wire.at_ns)
    observer.advance(wire.at_ns + 5 * S)
    exchanges += seen(observer).exchanges
    assert_known(Seen(exchanges, {}), complete)


@given(conversations(), _SIZES, st.lists(st.integers(0, 10_000), min_size=1, max_size=4))
@_RELAXED
def test_a_known_hole_never_makes_a_fault(wire: Wire, sizes: list[int], holes: list[int]) -> None:
    """The same for bytes that the capture skipped: of some pieces only the beginning is there."""
    pieces = one_after_the_other(cut_anew(wire.segments, sizes))
    complete = [essence(facts) for facts in observe(pieces).exchanges]
    for hole in holes:
        n = hole % len(pieces)
        data = pieces[n].data
        kept = hole % (len(data) + 1)
        pieces[n] = pieces[n]._replace(data=data[:kept], skipped=pieces[n].skipped + len(data) - kept)
    assert_known(observe(pieces), complete)


@given(
    st.lists(
        st.builds(
            Segment,
            connection=st.integers(1, 3),
            at_ns=st.integers(0, 100 * S),
            port=st.just(8000),
            to_server=st.booleans(),
            seq=st.integers(0, 200),
            data=st.one_of(
                st.binary(max_size=60),
                st.sampled_from(
                    [
                        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 9\r\n\r\n",
                        b"GET / HTTP/1.1\r\n\r\n",
                        stream_head(),
                        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 50\r\n\r\n",
                        b"8\r\ndata: {}\r\n",
                        b"0\r\n\r\n",
                        b'{"choices":[{"delta":{"content":"\\ud800"}}],"usage":[]}\n\n',
                        b'{"error":{"code":"\xff"}}',
                        b"\x16\x03\x01",
                    ]
                ),
            ),
            skipped=st.sampled_from([0, 0, 0, 5, 70_000]),
            flags=st.sampled_from([0, 0, 0, 0, 1, 2, 4, 7]),
            cgroup_id=st.just(0),
        ),
        max_size=60,
    )
)
@settings(_RELAXED, max_examples=int(_EXAMPLES or 400))
def test_hostile_segments_raise_nothing(segments: list[Segment]) -> None:
    """Whatever comes: no exception, bounded memory, and every accessor answers."""
    observer = Observer()
    for n, segment in enumerate(segments):
        observer.feed(segment)
        if n % 7 == 6:
            observer.lost(1, segment.at_ns)
        observer.in_flight(segment.at_ns)
    assert observer.held_bytes <= sum(len(segment.data) for segment in segments) * 2 + 100
    observer.advance(10_000 * S)
    observer.take()
    assert observer.held == 0
