"""A model that is asked about entries: real servers on loopback, most of them hostile; nothing changes."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import msgspec
import pytest

from escalation.server.app import StartError
from escalation.server.desk import Entry
from escalation.server.model_writer import TriageTextSettings
from escalation.server.testing import FakeDesk, case_report, heartbeat
from escalation.view.entry import entry_view
from escalation.wire import codec
from tests.escalation.server.conftest import running
from tests.escalation.server.model_server import (
    GOOD,
    completion,
    counted,
    endless,
    listening,
    response,
    says,
    silent,
    writing,
)
from tests.escalation.server.site import TOKEN as OPERATOR, Site, escalate, wired
from tests.security.properties import security_property


async def test_an_entry_is_asked_about_once_and_shown_apart(tmp_path: Path) -> None:
    """The text is there once it is written, is asked for once, and carries the key of a file."""
    key = tmp_path / "key"
    key.write_text("sk-local")
    key.chmod(0o600)
    desk = FakeDesk()
    view = entry_view(await desk.opened())
    async with (
        listening(says(response(completion(GOOD)))) as server,
        writing(desk, server.port, api_key_file=key) as (writer, metrics),
    ):
        assert writer.of(view) is None
        assert writer.of(view) is None
        await writer.settled()
        text = writer.of(view)
        assert text is not None
        assert (text.model, text.notes, text.follow_up) == ("qwen3", "It stopped at once.", (0,))
        assert "sk-local" not in repr(writer)
        assert counted(metrics, "written") == 1
        (asked,) = server.asked
        assert asked.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
        assert b"Bearer sk-local" in asked


HUGE = b'{"choices": [{"message": {"content": "' + b"x" * 1_000_000 + b'"}}]}'
HOSTILE = {
    "closes at once": (says(b""), "unreachable"),
    "no HTTP": (says(b"\x00\xff" * 400), "unreachable"),
    "endless headers": (endless(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 100), "unreachable"),
    "cut off": (says(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"), "unreachable"),
    "silent": (silent, "slow"),
    "an error": (says(response(b"{}", status="500 No")), "not_believed"),
    "a redirect": (
        says(response(b"", status="307 Go", headers="Location: http://127.0.0.1:1/\r\n")),
        "not_believed",
    ),
    "huge": (says(response(HUGE)), "not_believed"),
    "endless": (
        endless(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"data: {}\n\n" * 1000),
        "not_believed",
    ),
    "packed": (
        says(response(gzip.compress(b" " * 50_000_000), headers="Content-Encoding: gzip\r\n")),
        "not_believed",
    ),
    "no JSON": (says(response(b"<html>hello")), "not_believed"),
    "no UTF-8": (says(response(b'{"choices": "\xff"}')), "not_believed"),
    "nested": (says(response(b"[" * 60_000)), "not_believed"),
    "no choices": (says(response(b'{"choices": []}')), "not_believed"),
    "another shape": (says(response(completion({"approve": True}))), "not_believed"),
    "one field more": (says(response(completion(GOOD | {"severity": "note"}))), "not_believed"),
    "a cause of its own": (says(response(completion(GOOD | {"likely_cause": "solar wind"}))), "not_believed"),
    "a fact that is not there": (says(response(completion(GOOD | {"follow_up": [7]}))), "not_believed"),
    "a long note": (says(response(completion(GOOD | {"notes": "x" * 601}))), "not_believed"),
}


@security_property(
    "I22",
    "Nineteen hostile model servers cost an entry its text; the entry is as it was, and the next is asked.",
)
@pytest.mark.parametrize("kind", HOSTILE)
async def test_a_hostile_server_costs_the_text_and_nothing_else(kind: str) -> None:
    """Whatever the server does, the entry stays as it is, it is counted, and later it is asked again."""
    answers, outcome = HOSTILE[kind]
    desk = FakeDesk()
    before = entry_view(await desk.entry((await desk.opened()).recommendation.id))
    async with (
        listening(answers) as server,
        writing(desk, server.port, timeout_s=0.3 if outcome == "slow" else 20.0) as (writer, metrics),
    ):
        assert writer.of(before) is None
        await writer.settled()
        assert writer.of(before) is None
        assert entry_view(await desk.entry(before.id)) == before
        assert {each: counted(metrics, each) for each in ("written", "failed", outcome)} == {
            "written": 0,
            "failed": 0,
            outcome: 1,
        }
        assert server.connections == 1
        server.answers = says(response(completion(GOOD)))
        desk.clock.advance(301)
        assert writer.of(before) is None
        await writer.settled()
        assert writer.of(before) is not None


async def test_nobody_at_the_address_is_counted() -> None:
    """A server that is not there changes nothing either; it is not tried again at each look."""
    async with listening(silent) as server:
        port = server.port
    desk = FakeDesk()
    view = entry_view(await desk.opened())
    async with writing(desk, port) as (writer, metrics):
        for _ in range(3):
            assert writer.of(view) is None
            await writer.settled()
        assert counted(metrics, "unreachable") == 1


async def test_one_request_is_in_flight_and_the_queue_has_an_end() -> None:
    """Of a hundred entries at once, one is asked about at a time, 33 at most, and the others are counted."""
    desk = FakeDesk()
    gate = asyncio.Event()

    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await says(response(completion(GOOD)))(reader, writer)

    view = entry_view(await desk.opened())
    views = [dataclasses.replace(view, reasons=(f"reason {number}",)) for number in range(100)]
    async with listening(waits) as server, writing(desk, server.port) as (writer, metrics):
        for each in views:
            assert writer.of(each) is None
        gate.set()
        await writer.settled()
        assert server.most_at_once == 1
        written = sum(writer.of(each) is not None for each in views)
        await writer.settled()
    assert 32 <= written <= 33
    assert counted(metrics, "not_asked") >= 67


async def test_what_is_proposed_is_asked_about_before_anybody_looks() -> None:
    """A new recommendation is asked about by itself; what is finished is not."""
    desk = FakeDesk()
    watched = asyncio.Event()

    def changes() -> AsyncIterator[Entry]:
        watched.set()
        return desk.changes()

    async with (
        listening(says(response(completion(GOOD)))) as server,
        writing(desk, server.port, changes=changes) as (writer, _),
    ):
        await watched.wait()
        opened = await desk.opened()
        await server.met.wait()
        await writer.settled()
        assert writer.of(entry_view(opened)) is not None
        done = dataclasses.replace(entry_view(opened), state="verified", reasons=())
        assert writer.of(done) is None
        await writer.settled()
        assert server.connections == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000/v1",
        "http://localhost:8000/v1",
        "http://[::1]:8000/v1",
        "https://100.64.3.4/v1",
        "http://[fd7a:115c:a1e0::7]:8000/v1",
    ],
)
def test_the_model_may_be_here_or_on_the_mesh(url: str) -> None:
    """Loopback and mesh addresses are taken."""
    assert TriageTextSettings(url=url, model="m").url == url


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com/v1",
        "http://192.168.1.4:8000/v1",
        "http://10.0.0.1/v1",
        "http://8.8.8.8/v1",
        "http://127.0.0.1.evil.example/v1",
        "http://localhost.evil.example/v1",
        "http://[::ffff:8.8.8.8]/v1",
        "http://user:password@127.0.0.1/v1",
        "http://127.0.0.1/v1?to=x",
        "http://127.0.0.1:99999/v1",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "127.0.0.1:8000",
        "http://[::1",
        "",
    ],
)
def test_facts_go_nowhere_else(url: str) -> None:
    """A name, a private network, a public address and what is no address are refused by the settings."""
    with pytest.raises(msgspec.ValidationError, match="url"):
        msgspec.convert({"url": url, "model": "m"}, TriageTextSettings)


async def test_a_real_orchestrator_shows_what_the_model_wrote(site: Site) -> None:
    """With the table in its settings, an entry has its text over real sockets; the queue has none."""
    async with listening(says(response(completion(GOOD)))) as server:
        table = f'[triage_text]\nurl = "http://127.0.0.1:{server.port}/v1"\nmodel = "qwen3"\n'
        site.config_file.write_text(site.config_file.read_text() + table)
        async with (
            running(site),
            httpx2.AsyncClient(base_url=site.url, headers={"Authorization": f"Bearer {OPERATOR}"}) as client,
        ):
            async with site.channel(site.authority.agent("spark-1")) as channel:
                await escalate(channel, codec.join([wired(heartbeat(), 1), wired(case_report(), 2)]))
            (entry,) = (await client.get("/api/v1/queue")).json()["entries"]
            await server.met.wait()
            for _ in range(500):
                shown = (await client.get(f"/api/v1/queue/{entry['id']}")).json()
                if shown["model_text"]:
                    break
            assert shown["model_text"]["notes"] == "It stopped at once."
            assert entry["model_text"] is None
            assert 'outcome="written"} 1.0' in (await client.get("/metrics")).text
    assert server.connections == 1


async def test_a_key_that_others_may_read_stops_the_start(site: Site) -> None:
    """Settings that cannot be used are said at the start, by the name of the file."""
    key = site.folder / "key"
    key.write_text("sk-local")
    key.chmod(0o644)
    table = f'[triage_text]\nurl = "http://127.0.0.1:9/v1"\nmodel = "m"\napi_key_file = "{key}"\n'
    site.config_file.write_text(site.config_file.read_text() + table)
    with pytest.raises(StartError, match=r"triage_text: .*key: others may read it"):
        async with running(site):
            pass
