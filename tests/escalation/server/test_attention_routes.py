"""Attention over HTTP, as tools use it: what is asked, answered and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from escalation.model import Severity
from tests.escalation.server.web_house import HOSTILE, House, built

QUEUE = "/api/v1/queue"


async def _entry(house: House) -> str:
    return (await house.desk.opened()).recommendation.id


async def test_owner_is_in_the_answer_and_in_the_queue(house: House) -> None:
    """Who acknowledges is whoever the credentials name, and nobody else."""
    entry_id = await _entry(house)
    owned = (await house.post(f"{QUEUE}/{entry_id}/acknowledge", {"for_s": 3600})).json()["attention"]
    assert owned["owner"] == "operator"
    assert owned["acknowledged_until"] == "2026-01-01T01:00:00.000Z"
    (row,) = (await house.get(f"{QUEUE}?state=acknowledged")).json()["entries"]
    assert row["attention"]["owner"] == "operator"


async def test_snoozed_is_counted_in_the_queue_and_shown_by_name(house: House) -> None:
    """An end may be a time with its zone."""
    entry_id = await _entry(house)
    answer = await house.post(f"{QUEUE}/{entry_id}/snooze", {"until": "2026-01-01T03:00:00+01:00"})
    assert answer.json()["attention"]["snoozed_until"] == "2026-01-01T02:00:00.000Z"
    queue = (await house.get(QUEUE)).json()
    assert (queue["entries"], queue["total"], queue["snoozed"], queue["silenced"]) == ([], 0, 1, 0)
    assert (await house.get(f"{QUEUE}?state=snoozed")).json()["total"] == 1
    page = (await house.get("/")).text
    assert "1 snoozed" in page
    released = await house.post(f"{QUEUE}/{entry_id}/release", {})
    assert released.json()["attention"]["snoozed_until"] is None


@pytest.mark.parametrize(
    ("verb", "body", "status"),
    [
        ("snooze", {"until": "tomorrow"}, 400),
        ("snooze", {"until": "2026-01-01T03:00:00"}, 400),
        ("snooze", {"until": "2026-01-01T03:00:00Z", "for_s": 60}, 400),
        ("snooze", {"until": "2025-12-31T03:00:00Z"}, 409),
        ("snooze", {"until": "9999-12-31T23:59:59.999999Z"}, 409),
        ("snooze", {"for_s": 1}, 400),
        ("acknowledge", {"for_s": 1e9}, 400),
        ("acknowledge", {"for": 60}, 400),
        ("ask", {"text": " "}, 400),
        ("ask", {"text": "x" * 2001}, 400),
        ("ask", {"text": "x", "to": ["<b>"]}, 400),
        ("answer", {"text": "x", "question": 0}, 400),
        ("answer", {"text": "x", "question": 7}, 404),
    ],
)
async def test_what_cannot_be_meant_is_refused(
    house: House, verb: str, body: dict[str, object], status: int
) -> None:
    """With a status that says whose mistake it is."""
    entry_id = await _entry(house)
    assert (await house.post(f"{QUEUE}/{entry_id}/{verb}", body)).status_code == status


async def test_thread_is_inert_wherever_it_is_shown(house: House) -> None:
    """What a person writes can act nowhere either."""
    entry_id = await _entry(house)
    await house.post(f"{QUEUE}/{entry_id}/ask", {"text": HOSTILE, "to": ["ada"]})
    entry = (await house.get(f"{QUEUE}/{entry_id}")).json()
    (remark,) = entry["attention"]["thread"]
    assert remark["text"].startswith("<script>alert(1)</script>\\x1b[31m\\u202e")
    assert entry["attention"]["asked_of"] == ["ada"]
    answer = await house.post(f"{QUEUE}/{entry_id}/answer", {"text": "it was me"})
    assert answer.json()["attention"]["asked"] is False


async def test_silence_is_previewed_created_listed_and_expired(house: House) -> None:
    """Its whole life, with what it covered."""
    await _entry(house)
    await house.desk.opened(case_id="case-2", severity=Severity.NOTE, host="spark-2")
    preview = await house.get("/api/v1/silences/preview?match=host=spark-1&match=severity!=note")
    assert preview.json()["matchers"] == ["host=spark-1", "severity!=note"]
    assert [each["host"] for each in preview.json()["incidents"]] == ["spark-1"]
    begun = await house.post(
        "/api/v1/silences", {"matchers": ["host=spark-1"], "comment": HOSTILE, "for_s": 3600}
    )
    assert (begun.json()["author"], begun.json()["state"]) == ("operator", "active")
    assert begun.json()["incidents"] == 1
    queue = (await house.get(QUEUE)).json()
    assert (queue["total"], queue["silenced"]) == (1, 1)
    (row,) = (await house.get(f"{QUEUE}?state=silenced")).json()["entries"]
    assert row["attention"]["silenced_by"][0]["comment"].count("\\x1b") == 1
    assert "1 silenced" in (await house.get("/")).text
    silence_id = begun.json()["id"]
    assert (await house.post(f"/api/v1/silences/{silence_id}/expire", {})).json()["state"] == "over"
    again = await house.post(f"/api/v1/silences/{silence_id}/expire", {})
    assert (again.status_code, again.json()["error"]["code"]) == (410, "expired")
    (listed,) = (await house.get("/api/v1/silences")).json()["silences"]
    assert (listed["ended_by"], listed["state"]) == ("operator", "over")


async def test_maintenance_is_listed_apart_from_silences(house: House) -> None:
    """Each has its own list and its own end."""
    body = {"host": "spark-*", "comment": "a fan", "for_s": 3600, "also": ["monitor.blind"]}
    begun = (await house.post("/api/v1/maintenance", body)).json()
    assert (begun["origin"], begun["also"], begun["matchers"]) == (
        "maintenance", ["monitor.blind"], ["host~spark-*"]
    )  # fmt: skip
    assert (await house.get("/api/v1/silences")).json() == {"silences": []}
    assert len((await house.get("/api/v1/maintenance")).json()["silences"]) == 1
    assert (await house.post(f"/api/v1/silences/{begun['id']}/expire", {})).status_code == 404
    assert (await house.post(f"/api/v1/maintenance/{begun['id']}/end", {})).json()["state"] == "over"


@pytest.mark.parametrize(
    "body",
    [
        {"matchers": [], "comment": "x", "for_s": 60},
        {"matchers": ["host=a"], "comment": " ", "for_s": 60},
        {"matchers": ["host>a"], "comment": "x", "for_s": 60},
        {"matchers": ["host=a"] * 11, "comment": "x", "for_s": 60},
        {"matchers": ["fault_class=gpu"], "comment": "x", "for_s": 60},
        {"matchers": ["host=a"], "comment": "x", "for_s": 31 * 86_400},
    ],
)
async def test_silence_that_cannot_be_meant_is_refused(house: House, body: dict[str, object]) -> None:
    """Nothing of it is kept."""
    assert (await house.post("/api/v1/silences", body)).status_code == 400
    assert (await house.get("/api/v1/silences")).json() == {"silences": []}


@given(
    body=st.dictionaries(
        st.sampled_from(["matchers", "comment", "for_s", "until", "starts"]),
        st.one_of(st.none(), st.text(max_size=20), st.floats(), st.lists(st.text(max_size=20), max_size=3)),
    )
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_body_is_answered_in_words(body: dict[str, object]) -> None:
    """No body makes the orchestrator fail."""
    async with built() as house:
        text = json.dumps(body)
        answer = await house.client.post(
            "/api/v1/silences",
            content=text,
            headers={"Authorization": "Bearer token-of-operator", "Content-Type": "application/json"},
        )
        assert answer.status_code in {200, 400, 409}


def test_how_to_names_every_event_that_can_be_told() -> None:
    """The table of what is told is whole."""
    from escalation.server.notify.notices import Event  # noqa: PLC0415 - only this test reads it

    page = (Path(__file__).parents[3] / "docs/how-to/notify.md").read_text()
    assert [each for each in Event if each is not Event.TEST and f"`{each.value}`" not in page] == []
