"""The stream of changes, read over a real socket."""

from __future__ import annotations

import json
from typing import Any

import httpx2

from escalation.model import Subject, SubjectKind


def _client(served: Any) -> httpx2.Client:
    headers = {"Authorization": f"Bearer {served.tokens['viewer']}"}
    return httpx2.Client(base_url=served.url, headers=headers, trust_env=False)


def test_a_watcher_hears_each_change_once(served: Any) -> None:
    """After the opening comment every change arrives as one `queue` event with the whole entry."""
    with _client(served) as client, client.stream("GET", "/api/v1/watch") as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.iter_lines()
        assert next(lines) == ": watching"
        entry = served.call(served.desk.opened(subject=Subject(SubjectKind.PROCESS, "a\nevent: x\n\nb")))
        served.call(served.desk.reject(entry.recommendation.id, person="kim", reason="no"))
        events = [line for _ in range(6) if (line := next(lines))]
    assert events[0::2] == ["event: queue", "event: queue"]
    entries = [json.loads(line.removeprefix("data: ")) for line in events[1::2]]
    assert [(each["id"], each["state"]) for each in entries] == [
        (entry.recommendation.id, "proposed"),
        (entry.recommendation.id, "rejected"),
    ]


def test_the_stream_wants_a_viewer(served: Any) -> None:
    """Without credentials, or with a scraper's, there is no stream."""
    assert httpx2.get(f"{served.url}/api/v1/watch", trust_env=False).status_code == 401
    scraper = {"Authorization": f"Bearer {served.tokens['scraper']}"}
    assert httpx2.get(f"{served.url}/api/v1/watch", headers=scraper, trust_env=False).status_code == 403


def test_a_watcher_that_leaves_is_forgotten(served: Any) -> None:
    """The gauge of open streams falls back to none when the watcher hangs up."""
    with _client(served) as client:
        with client.stream("GET", "/api/v1/watch") as response:
            lines = response.iter_lines()
            assert next(lines) == ": watching"
            assert "nanobot_orchestrator_watchers 1.0" in client.get("/metrics").text
        for _ in range(100):
            text = client.get("/metrics").text
            if "nanobot_orchestrator_watchers 0.0" in text:
                break
        assert "nanobot_orchestrator_watchers 0.0" in text
