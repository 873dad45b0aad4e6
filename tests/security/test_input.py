"""What comes from hosts and strangers: names that want to act, sizes that hurt, bytes that mean nothing."""

from __future__ import annotations

import ast
import contextlib
import html.parser
import json
import re
import sqlite3
import threading
from collections.abc import Iterator

import grpc
import msgspec
import pytest
from hypothesis import given, settings, strategies as st
from prometheus_client.parser import text_string_to_metric_families

from escalation.cli.text import change_line, entry_text
from escalation.inert import guarded, harmless, shown
from escalation.model import AgentId, OomEvidence, OomScope, Subject, SubjectKind
from escalation.server.testing import case_report, heartbeat
from escalation.server.web.handlers import MAX_BODY_BYTES
from escalation.view.entry import EntryView
from escalation.wire import codec, escalation_pb2 as pb
from escalation.wire.delivery import read_batch
from escalation.wire.fields import WireError
from escalation.wire.limits import REPORT_BYTES
from tests.escalation.server.site import METHOD, wired
from tests.security import source
from tests.security.house import House
from tests.security.properties import security_property

_SHELLS = {
    "asyncio.create_subprocess_shell",
    "os.popen",
    "os.system",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
}
_OURS = re.compile(r"data:,|(/(?!/)|[?#]).*|", re.DOTALL)
"""A link to this server, to this page, or to nothing."""

_EVALUATES = {"eval", "exec", "pickle.loads", "pickle.load", "marshal.loads", "yaml.load", "shelve.open"}

CORPUS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "{{7*7}}{% include '/etc/passwd' %}",
    "\x1b]0;owned\x07\x1b[2J\x1b[31m",
    "\x9b31m\x90tmux\x9c",
    "line\r\nSet-Cookie: owned=1\r\n\r\n",
    "data: {}\n\nevent: queue\ndata: {}",
    "\u202egnp.exe\u202c\u2066\u2069",
    "zero\u200bwidth\u2060\ufeffjoiner\u200d",
    "a\u0301\u0489\u20dd" * 5,
    "\U000e0041\U000e0042\ufff9\ue000",
    "שלום עולם",
    "'; DROP TABLE incidents; --",
    '"} 1\nnanobot_orchestrator_up{x="',
    "$(reboot)`reboot`${IFS}; reboot | sh && sh",
    "../../../../etc/shadow%00.png",
    "[red]markup[/red] :skull: [link=http://evil.example]x[/link]",
    "=cmd|' /C calc'!A1",
    "x" * 200,
)


@security_property(
    "I17", "No code of ours gives text to a shell or evaluates it; programs get lists of arguments."
)
def test_there_is_no_shell_anywhere() -> None:
    """No shell=True, no os.system, no eval, no unpickling, no command line put together as text."""
    for name, module in source.modules():
        for called, call in source.calls(module):
            where = f"{name}:{call.lineno}"
            assert called not in _SHELLS | _EVALUATES, where
            for keyword in call.keywords:
                assert not (keyword.arg == "shell" and ast.unparse(keyword.value) != "False"), where
            if called.startswith("subprocess.") and call.args:
                made = call.args[0]
                assert not isinstance(made, ast.JoinedStr | ast.Constant | ast.BinOp), where


class _Page(html.parser.HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str | None] = []
        self.handlers: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given_ = dict(attrs)
        if tag == "script":
            self.scripts.append(given_.get("src"))
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name == "style"]
        self.links += [
            value or "" for name, value in attrs if name in {"href", "src", "action", "formaction"}
        ]


@security_property("I18", "A name that a host chose is inert text on every way that it takes to a person.")
def test_hostile_text_is_inert_everywhere(house: House) -> None:
    """Twenty hostile names, through the wire into the database, pages, API, terminal, metrics and notices."""
    hosts = {}
    for text in CORPUS:
        host = hosts[text] = house.host()
        with contextlib.suppress(grpc.RpcError):  # what the wire itself refuses has come nowhere
            house.send(host, heartbeat(agent_version=text))
        house.send(
            host,
            case_report(
                subject=Subject(SubjectKind.PROCESS, text),
                evidence=(OomEvidence(OomScope.CGROUP, text, 1, None, None, None),),
            ),
        )
    for text, host in hosts.items():
        entry = house.entry(host)
        assert house.rows(f"SELECT 1 FROM hosts WHERE agent_id = '{host}'")
        assert entry["subject"]["name"] == shown(text)
        _is_inert_on_screen(house, entry["id"], text)
        message = house.told.about(host)
        assert text not in json.dumps(message, ensure_ascii=False)
        assert all(harmless(value) for value in message.values() if isinstance(value, str))
    with house.client("prometheus") as client:
        metrics = client.get("/metrics").text
    labels = {
        value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        for value in sample.labels.values()
    }
    assert not labels & {*CORPUS, *map(shown, CORPUS), *hosts.values()}
    with contextlib.closing(sqlite3.connect(f"file:{house.database}?mode=ro", uri=True)) as database:
        assert database.execute("SELECT count(*) FROM incidents").fetchone()[0] >= len(CORPUS)


def _is_inert_on_screen(house: House, entry_id: str, text: str) -> None:
    with house.client("vera") as client:
        raw = client.get(f"/api/v1/queue/{entry_id}")
        assert raw.content.isascii()
        assert not set(raw.content) & {*range(9), *range(11, 32), 127}
        for path in (f"/q/{entry_id}", *(("/", "/hosts") if text == CORPUS[-1] else ())):
            answer = client.get(path)
            page = _Page()
            page.feed(answer.text)
            assert not page.handlers
            assert all(src is not None and src.startswith("/static/") for src in page.scripts)
            assert not [link for link in page.links if _OURS.fullmatch(link) is None]
            assert not page.tags & {"img", "iframe", "object", "embed", "base"}
            assert "owned" not in str(answer.headers)
            assert all(harmless(line) or line.isspace() for line in answer.text.split("\n"))
    view = msgspec.json.decode(raw.content, type=EntryView)
    for line in (*entry_text(view).splitlines(), change_line(view)):
        assert harmless(line), line
        assert guarded(line) == line
    assert text != view.subject.name or harmless(text)


@security_property("I19", "A message, a batch, a body, streams and open incidents each have an upper bound.")
def test_what_one_sender_can_send_is_limited(house: House) -> None:
    """Above each limit the sender hears which one it was, and the orchestrator serves the next request."""
    host = house.host()
    padded = pb.Report.FromString(wired(case_report(), 1, host=host))
    padded.case_report.evidence.extend([padded.case_report.evidence[0]] * 200)
    too_many = codec.join([wired(heartbeat(), number, host=host) for number in range(1, 1002)])
    for batch, named in (
        (too_many, "1001 entries"),
        (b"\x0a" + b"\xff" * 3 + b"\x01" + b"x" * (REPORT_BYTES + 1), ""),
        (codec.join([padded.SerializeToString()]), "evidence"),
        (b"x" * (5 * 1024 * 1024), ""),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            house.send_bytes(host, batch)
        code = refused.value.code()
        assert code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert named in str(refused.value.details())
    with house.channel(house.authority.agent(host)) as channel:
        held = []
        for number in range(1, 5):
            call = channel.stream_stream(METHOD)(
                _held_open(wired(heartbeat(), number, host=host)), timeout=20
            )
            next(iter(call))
            held.append(call)
        with pytest.raises(grpc.RpcError) as fifth:
            list(channel.stream_stream(METHOD)(iter([too_many]), timeout=20))
        assert fifth.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for call in held:
            call.cancel()
    entry = house.opened()
    with house.client("ada") as client:
        path = f"/api/v1/queue/{entry['id']}/reject"
        headers = {"content-type": "application/json"}
        big = b'{"reason": "' + b"x" * MAX_BODY_BYTES + b'"}'
        assert client.post(path, content=big, headers=headers).status_code == 413
        deep = b"[" * 30_000 + b"]" * 30_000
        assert client.post(path, content=deep, headers=headers).status_code == 400
        assert client.get("/api/v1/queue", params={"limit": 10**9}).status_code == 400
    assert house.state(entry) == "proposed"


def _held_open(report: bytes) -> Iterator[bytes]:
    """Yield one batch, and nothing more as long as the call lives."""
    yield codec.join([report])
    threading.Event().wait(20)


_GOOD = codec.join([wired(heartbeat(), 1), wired(case_report(), 2), wired(case_report(count=2), 3)])


@security_property(
    "I20", "Any bytes are read as a batch or refused by name; no other error leaves the reader."
)
@settings(max_examples=400)
@given(st.data())
def test_no_bytes_crash_a_reader(data: st.DataObject) -> None:
    """Random bytes, and a good batch with bytes changed, cut or put in, on both ends of the wire."""
    if data.draw(st.booleans()):
        raw = data.draw(st.binary(max_size=300))
    else:
        changed = bytearray(_GOOD)
        for _ in range(data.draw(st.integers(1, 6))):
            at = data.draw(st.integers(0, len(changed) - 1))
            changed[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=4))
            if not changed:
                break
        raw = bytes(changed)
    with contextlib.suppress(WireError):
        read_batch(raw, sender=AgentId("spark-1"))
    with contextlib.suppress(WireError):
        codec.decode_ack(raw)
