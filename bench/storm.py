"""A storm of reports: how long until who watches the queue sees what was sent, and what it costs in memory.

One real orchestrator; agents send reports of about 1 KB, 10 000 a second in all, of 50 faults, over mTLS in
messages that are due each 50 ms. Somebody follows the queue's stream of changes. The clock of a report starts
when its message is written and stops when a row arrives that shows it or a later one of the same fault: what
was sent in between is in that row, and nothing is counted as seen before it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from bench.paired import percentile
from bench.reports import FINGERPRINTS, report_of
from bench.rig import Orchestrator, Unavailable, cpu_s, orchestrator, resident_bytes
from dev import postgres
from escalation.model import AgentId, BootId, CasePhase, Report, Subject, SubjectKind
from escalation.wire import codec, escalation_pb2 as pb

RATE = 10_000
_EACH_S = 0.05
_AGENTS = 5
_SEEN_WITHIN_S = 30.0
_NAMED = re.compile(r'"subject":\{"kind":"unit","name":"storm-(\d+)\.service"\}')
_COUNTED = re.compile(r'"count":(\d+)')


@dataclass(frozen=True, slots=True)
class Row:
    """One storm: how fast it really was, what a watcher saw when, and what it cost."""

    store: str
    reports: int
    rate: float
    rows: int
    figures_ms: tuple[float, ...]
    resident_mb: float
    cpu: float
    lost_streams: int


@dataclass
class Sky:
    """What was sent and what was seen, by fault: times of each count, and arrivals of rows."""

    sent_s: dict[int, list[float]] = field(default_factory=dict)
    seen: list[tuple[float, int, int]] = field(default_factory=list)
    lost_streams: int = 0

    def waits_ms(self) -> Iterator[float]:
        """Yield how long each report waited to be seen; raise Unavailable when one never was."""
        shown = dict.fromkeys(self.sent_s, 0)
        for at_s, fault, count in self.seen:
            times = self.sent_s[fault]
            for number in range(shown[fault], min(count, len(times))):
                yield (at_s - times[number]) * 1000
            shown[fault] = max(shown[fault], count)
        unseen = sum(max(0, len(times) - shown[fault]) for fault, times in self.sent_s.items())
        if unseen:
            raise Unavailable(f"{unseen} reports were not seen within {_SEEN_WITHIN_S:.0f} s of the storm")

    def complete(self) -> bool:
        """Return whether the newest report of every fault was seen."""
        newest: dict[int, int] = {}
        for _, fault, count in list(self.seen):
            newest[fault] = max(count, newest.get(fault, 0))
        return all(newest.get(fault, 0) >= len(times) for fault, times in self.sent_s.items())


def measure(*, seconds: float, store: str = "sqlite") -> list[Row]:
    """Let a storm blow for `seconds` on a fresh database of `store`."""
    if store == "sqlite":
        return [_blown(seconds, store, "")]
    if postgres.programs() is None:
        raise Unavailable("PostgreSQL is not here (dev/setup.sh tests)")
    with postgres.cluster(fsync=True, parent=Path("/var/tmp")) as cluster:
        return [_blown(seconds, store, cluster.create("storm"))]


def table(rows: list[Row]) -> str:
    """Render the rows as Markdown."""
    lines = [
        "| store | sent | reports/s | rows | p50 ms | p99 ms | slowest ms | RSS MB | cores | streams lost |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        p50, p99 = percentile(row.figures_ms, 0.5), percentile(row.figures_ms, 0.99)
        cells = (
            row.store,
            f"{row.reports:,}",
            f"{row.rate:,.0f}",
            row.rows,
            f"{p50:.0f}",
            f"{p99:.0f}",
            f"{max(row.figures_ms):.0f}",
            f"{row.resident_mb:.0f}",
            f"{row.cpu:.2f}",
            row.lost_streams,
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _blown(seconds: float, store: str, database: str) -> Row:
    names = [f"bench-{number}" for number in range(_AGENTS)]
    messages = [_messages(number, AgentId(name), seconds) for number, name in enumerate(names)]
    sky = Sky(sent_s={fault: [] for fault in range(FINGERPRINTS)})
    with ExitStack() as stack:
        server = stack.enter_context(orchestrator(agents=names, postgres=database))
        peak = stack.enter_context(_watched_memory(server))
        stack.enter_context(_followed(server, sky))
        before, started = cpu_s(server.pid), time.monotonic()
        asyncio.run(_send(server, messages, sky))
        wall = time.monotonic() - started
        deadline = time.monotonic() + _SEEN_WITHIN_S
        while not sky.complete() and time.monotonic() < deadline:
            time.sleep(0.05)
        cost = cpu_s(server.pid) - before
        with server.client() as client:
            rows = client.get("/api/v1/queue", params={"limit": 1}).json()["total"]
    reports = sum(map(len, sky.sent_s.values()))
    figures = tuple(sky.waits_ms())
    return Row(store, reports, reports / wall, rows, figures, peak[0] / 1e6, cost / wall, sky.lost_streams)


def _messages(number: int, agent: AgentId, seconds: float) -> list[bytes]:
    """Return what one agent sends each time that it is due: its share of the rate, over its own faults."""
    share = int(RATE * _EACH_S) // _AGENTS
    faults = range(number, FINGERPRINTS, _AGENTS)
    boot = BootId(f"00000000-0000-4000-8000-{number:012d}")
    turn = itertools.cycle(faults)
    counts = dict.fromkeys(faults, 0)
    messages, sequence = [], 0
    for _ in range(int(seconds / _EACH_S)):
        reports = []
        for _ in range(share):
            fault = next(turn)
            counts[fault] += 1
            sequence += 1
            reports.append(codec.encode(_report(agent, boot, sequence, fault, counts[fault])))
        messages.append(codec.join(reports))
    return messages


def _report(agent: AgentId, boot: BootId, sequence: int, fault: int, count: int) -> Report:
    now_ns = time.time_ns()
    unit = Subject(SubjectKind.UNIT, f"storm-{fault}.service")
    return report_of(
        agent=agent,
        boot=boot,
        sequence=sequence,
        created_ns=now_ns,
        fault=fault,
        phase=CasePhase.OPENED if count == 1 else CasePhase.UPDATED,
        count=count,
        first_seen_ns=now_ns,
        subject=unit,
        target=unit,
        devices=8,
    )


async def _send(server: Orchestrator, messages: Sequence[list[bytes]], sky: Sky) -> None:
    start = time.monotonic() + 0.2
    await asyncio.gather(*(_agent(server, number, each, sky, start) for number, each in enumerate(messages)))


async def _agent(server: Orchestrator, number: int, messages: list[bytes], sky: Sky, start: float) -> None:
    folder = Path(server.folder)
    credentials = grpc.ssl_channel_credentials(
        (folder / "ca.crt").read_bytes(),
        (folder / f"bench-{number}.key").read_bytes(),
        (folder / f"bench-{number}.crt").read_bytes(),
    )
    turn = itertools.cycle(range(number, FINGERPRINTS, _AGENTS))
    share = int(RATE * _EACH_S) // _AGENTS

    async def requests() -> AsyncIterator[bytes]:
        for at, message in enumerate(messages):
            await asyncio.sleep(max(0.0, start + at * _EACH_S - time.monotonic()))
            now_s = time.monotonic()
            for _ in range(share):
                sky.sent_s[next(turn)].append(now_s)
            yield message

    last = len(messages) * share
    async with grpc.aio.secure_channel(server.address, credentials) as channel:
        call = channel.stream_stream("/nanobot.v1.EscalationService/Escalate")(requests())
        async for raw in call:
            if pb.Ack.FromString(raw).sequence >= last:
                call.cancel()
                return
        raise RuntimeError("the orchestrator ended the stream")


@contextmanager
def _followed(server: Orchestrator, sky: Sky) -> Iterator[None]:
    """Follow the stream of changes; one that the orchestrator ends is counted, and followed anew."""
    ended, following = threading.Event(), threading.Event()

    def follow() -> None:
        while not ended.is_set():
            with (
                contextlib.suppress(Exception),
                server.client() as client,
                client.stream("GET", "/api/v1/watch", timeout=None) as stream,
            ):
                following.set()
                for line in stream.iter_lines():
                    if line.startswith("data:"):
                        _note(line, time.monotonic(), sky)
                    if ended.is_set():
                        return
            sky.lost_streams += not ended.is_set()

    threading.Thread(target=follow, daemon=True).start()
    if not following.wait(10):
        raise Unavailable("the stream of changes did not begin")
    try:
        yield
    finally:
        ended.set()


def _note(line: str, at_s: float, sky: Sky) -> None:
    named, counted = _NAMED.search(line), _COUNTED.search(line)
    if named and counted:
        sky.seen.append((at_s, int(named[1]), int(counted[1])))


@contextmanager
def _watched_memory(server: Orchestrator) -> Iterator[list[int]]:
    stop, peak = threading.Event(), [0]

    def watch() -> None:
        while not stop.wait(0.05):
            peak[0] = max(peak[0], resident_bytes(server.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()
