"""What a model is asked about an entry, and what of its answer is believed."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, strategies as st

from escalation.inert import harmless
from escalation.known_causes import KNOWN_CAUSES, UNKNOWN, causes_of
from escalation.model import FaultClass
from escalation.model_text import (
    MAX_NOTES,
    ModelTextError,
    digest_of,
    facts_of,
    lines,
    plain,
    read,
    request_of,
)
from escalation.server.testing import FakeDesk
from escalation.view.entry import EntryView, entry_view


async def an_entry() -> EntryView:
    desk = FakeDesk()
    opened = await desk.opened()
    decided = await desk.approve(
        opened.recommendation.id,
        person="kim-the-operator",
        reason="the customer acme is away",
        digest=opened.recommendation.digest,
    )
    return entry_view(decided)


def completion(content: object) -> bytes:
    text = content if isinstance(content, str) else json.dumps(content)
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


GOOD = {"likely_cause": "daemon_reload", "notes": "It was refused after it had worked.", "follow_up": [0]}


async def test_the_model_hears_what_was_found_and_nothing_of_people() -> None:
    """The request holds the facts that the entry shows, and no name, reason, command, id or host."""
    entry = await an_entry()
    request = json.loads(request_of(entry, model="m"))
    said = request["messages"][1]["content"]
    assert json.loads(said)["facts"] == [each["fact"] for each in entry.evidence]
    for secret in (
        "kim-the-operator",
        "acme",
        entry.id,
        entry.incident_id,
        entry.digest,
        entry.host,
        entry.action.command[0],
    ):
        assert secret not in said
    shape = request["response_format"]["json_schema"]["schema"]
    assert shape["additionalProperties"] is False
    assert shape["properties"]["likely_cause"]["enum"] == [each.code for each in causes_of(entry.fault_class)]


async def test_an_answer_of_the_asked_shape_is_shown_in_our_words() -> None:
    """The cause is said in a sentence of ours, the fact by its place, and the origin comes first."""
    entry = await an_entry()
    text = read(completion(GOOD), entry, model="qwen3")
    assert lines(text) == (
        "Written by a model (qwen3) from the evidence above; not checked, and decides nothing.",
        "Likely cause: a daemon-reload of systemd, which wrote the container's device rules anew.",
        "It was refused after it had worked.",
        "Look again at evidence 1.",
    )
    nothing = read(
        completion(GOOD | {"likely_cause": "unknown", "notes": "", "follow_up": []}), entry, model="m"
    )
    assert lines(nothing)[1:] == ("It names no known cause.",)


@pytest.mark.parametrize(
    "content",
    [
        GOOD | {"likely_cause": "an invention"},
        GOOD | {"follow_up": [1]},
        GOOD | {"follow_up": [-1]},
        GOOD | {"follow_up": [0] * 9},
        GOOD | {"notes": "x" * (MAX_NOTES + 1)},
        GOOD | {"severity": "note"},
        GOOD | {"action": {"command": ["true"]}},
        {"likely_cause": "unknown"},
        [GOOD],
        "a plain sentence",
        "```json\n{}\n```",
        "",
        "{" * 100_000,
    ],
    ids=str,
)
async def test_an_answer_of_another_shape_is_none(content: object) -> None:
    """More fields, fewer, other types, another cause or place: nothing of such an answer is used."""
    with pytest.raises(ModelTextError):
        read(completion(content), await an_entry(), model="m")


@given(st.binary(max_size=400) | st.text(max_size=200).map(completion) | st.just(b'{"choices": []}'))
async def test_no_bytes_make_reading_fail_in_another_way(body: bytes) -> None:
    """Whatever a server sends, it is a text or a named refusal."""
    entry = await an_entry()
    try:
        text = read(body, entry, model="m")
    except ModelTextError:
        return
    assert text.likely_cause in {each.code for each in causes_of(entry.fault_class)}


@given(st.text(max_size=MAX_NOTES))
@example("<script>alert(1)</script>see [here](https://evil.example/x) `rm` \x1b[2J\u202e\u200b &lt;b&gt;")
@example("JAVASCRIPT:alert(1) data:text/html;base64,xx www.evil.example mailto:a@b" * 5)
@example("<<script>script>ht<b>tps://evil.example")
def test_what_a_model_writes_becomes_plain_text(text: str) -> None:
    """No markup, link, control or reordering character is left, and it never grows beyond its bound."""
    left = plain(text)
    assert len(left) <= MAX_NOTES
    assert harmless(left)
    assert not set(left) & set("<>[]{}`*#|~\\^$&")
    assert "://" not in left
    assert "javascript:" not in left.lower()


async def test_the_same_evidence_is_one_question() -> None:
    """What changes beside the facts (when, how often, who decided) makes no new question; a fact does."""
    desk = FakeDesk()
    opened = await desk.opened()
    first = entry_view(opened)
    await desk.advance(60)
    rejected = await desk.reject(opened.recommendation.id, person="kim", reason="x")
    assert digest_of(entry_view(rejected)) == digest_of(first)
    other = entry_view(await desk.opened(host="spark-2", case_id="case-2", reasons=(), evidence=()))
    assert digest_of(other) != digest_of(first)
    assert facts_of(other)["facts"] == []


def test_every_fault_class_has_its_known_causes() -> None:
    """A fault class that is added without a row fails here; names are unique in a row, and not `unknown`."""
    assert set(KNOWN_CAUSES) == set(FaultClass)
    for fault_class in FaultClass:
        codes = [cause.code for cause in causes_of(fault_class.value)]
        assert len(codes) == len(set(codes))
        assert codes[-1] == UNKNOWN.code
        assert len(codes) > 1 or fault_class is FaultClass.UNKNOWN
    assert causes_of("unknown:77") == causes_of("of.a.newer.agent") == (UNKNOWN,)
