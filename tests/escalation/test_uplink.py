"""The uplink, against a real server with mutual TLS: all arrives once and in order, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import random
import shutil
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest

from escalation.model import AgentId, BootId, Loss, LossKind
from escalation.outbox import Outbox, OutboxUnwritable, Stored
from escalation.pki import create_authority, issue_agent, issue_orchestrator, renew
from escalation.uplink import Uplink, UplinkLimits, UplinkState
from escalation.wire.credentials import Files
from escalation.wire.testing import RecordingOrchestrator

AGENT = AgentId("spark-a")
FAST = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200))
LIMITS = UplinkLimits(first_pause_s=0.01, longest_pause_s=0.05, look_every_s=0.05)


class Direct:
    """The outbox on the loop's own thread; can be made to fail."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.broken = False
        self.largest = 0

    async def pending(self, *, after_row: int, limit: int, max_bytes: int) -> tuple[Stored, ...]:
        if self.broken:
            raise OutboxUnwritable("spool x: disk I/O error")
        stored = self.outbox.pending(after_row=after_row, limit=limit, max_bytes=max_bytes)
        self.largest = max(self.largest, len(stored))
        return stored

    async def acknowledge(self, boot_id: BootId, sequence: int) -> int:
        return self.outbox.acknowledge(boot_id, sequence)

    async def set_aside(self, row: int, *, now_ns: int) -> None:
        self.outbox.set_aside(row, now_ns=now_ns)


class Host:
    """One host under test: its certificates, its outbox, its uplink and the orchestrator."""

    def __init__(self, folder: Path) -> None:
        self.pki = folder / "pki"
        now = dt.datetime.now(tz=dt.UTC)
        create_authority(self.pki, now=now)
        issue_orchestrator(self.pki, names=["localhost"], addresses=["127.0.0.1"], now=now)
        issue_agent(self.pki, host=AGENT, now=now)
        self.server = RecordingOrchestrator(self._files("orchestrator"))
        self.outbox = Outbox.open(
            folder / "spool.db", agent_id=AGENT, kernel_boot_id="k", max_bytes=64 << 20, now_ns=1
        )
        self.calls = Direct(self.outbox)
        self.files = self._files(AGENT)
        self.pauses: list[float] = []

    def _files(self, name: str) -> Files:
        return Files(self.pki / "ca.crt", self.pki / f"{name}.crt", self.pki / f"{name}.key")

    def uplink(self, limits: UplinkLimits = LIMITS) -> Uplink:
        async def pause(seconds: float) -> None:
            self.pauses.append(seconds)
            await asyncio.sleep(seconds)

        return Uplink(
            outbox=self.calls,
            target=f"127.0.0.1:{self.server.port}",
            files=self.files,
            now_ns=lambda: 5,
            dice=random.Random(7),
            pause=pause,
            limits=limits,
            options=FAST,
        )

    def append(self, count: int, start: int = 0) -> None:
        for at in range(start, start + count, 1000):
            numbers = range(at, min(at + 1000, start + count))
            self.outbox.append([Loss(LossKind.RING_FULL, "s", n, exact=True) for n in numbers], now_ns=1)

    def arrived(self, kind: LossKind = LossKind.RING_FULL) -> list[int]:
        bodies = [report.body for report in self.server.reports.values()]
        return [body.count for body in bodies if isinstance(body, Loss) and body.kind is kind]


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    host = Host(tmp_path)
    async with host.server:
        yield host
    host.outbox.close()


@contextlib.asynccontextmanager
async def running(uplink: Uplink) -> AsyncIterator[Uplink]:
    task = asyncio.create_task(uplink.run())
    try:
        yield uplink
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait for what another task brings about; fail when it does not come."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        await asyncio.sleep(0.005)


async def test_ten_thousand_reports_that_queued_up_arrive_once_and_in_order(host: Host) -> None:
    """The orchestrator was down; when it comes back everything arrives, and the outbox is empty."""
    await host.server.stop()
    host.append(10_000)
    async with running(host.uplink()) as uplink:
        await until(lambda: uplink.status.state is UplinkState.UNREACHABLE)
        assert "failed to connect" in uplink.status.detail.lower()
        await host.server.start()
        await until(lambda: host.outbox.depth().reports == 0)
    assert host.arrived() == list(range(10_000))
    assert host.server.redelivered == 0
    assert host.calls.largest == 500
    assert uplink.status.acked_reports == 10_000


async def test_a_lone_report_leaves_at_once(host: Host) -> None:
    """With the stream open, a report is on the wire within milliseconds of `wake`."""
    async with running(host.uplink()) as uplink:
        host.append(1)
        uplink.wake()
        await until(lambda: host.outbox.depth().reports == 0)
        taken = []
        for n in range(1, 20):
            host.append(1, start=n)
            host.server.arrived.clear()
            started = time.perf_counter()
            uplink.wake()
            await host.server.arrived.wait()
            taken.append(time.perf_counter() - started)
        assert sorted(taken)[len(taken) // 2] < 0.02
        await until(lambda: host.outbox.depth().reports == 0)
    assert host.arrived() == list(range(20))


async def test_a_slow_orchestrator_does_not_fill_the_memory(host: Host) -> None:
    """At most the window is in memory; what waits longer waits on disk."""
    host.append(20_000)
    host.server.ack_pause_s = 0.02
    host.server.keep = False
    tracemalloc.start()
    async with running(host.uplink()) as uplink:
        await until(lambda: host.server.batches >= 4)
        before = tracemalloc.get_traced_memory()[0]
        most = 0
        while host.outbox.depth().reports:
            assert uplink.status.unacked_batches <= 4
            most = max(most, tracemalloc.get_traced_memory()[0])
            await asyncio.sleep(0.005)
    tracemalloc.stop()
    assert host.server.count == 20_000
    assert most - before < 1_500_000


async def test_a_stream_cut_in_the_middle_loses_and_doubles_nothing(host: Host) -> None:
    """What was not acknowledged is sent again under the same ids, and taken once."""
    host.append(5_000)
    host.server.break_after = 1_700
    async with running(host.uplink()) as uplink:
        await until(lambda: host.outbox.depth().reports == 0)
        assert uplink.status.streams >= 2
    assert host.arrived() == list(range(5_000))


async def test_an_orchestrator_that_dies_under_way_gets_the_rest_later(host: Host) -> None:
    """Stopped and started again while reports flow: all arrive, redelivered ones are the same."""
    host.append(5_000)
    host.server.ack_pause_s = 0.005
    async with running(host.uplink()):
        await until(lambda: len(host.server.reports) >= 1_000)
        await host.server.stop()
        host.append(500, start=5_000)
        await host.server.start()
        await until(lambda: host.outbox.depth().reports == 0)
    assert host.arrived() == list(range(5_500))


async def test_reports_whose_acknowledgement_was_lost_come_again_as_the_same(host: Host) -> None:
    """Taken but not acknowledged: the same reports come again under the same ids, and count once."""
    host.append(1_500)
    host.server.silent = True
    async with running(host.uplink()):
        await until(lambda: len(host.server.reports) == 1_500)
        await host.server.stop()
        host.server.silent = False
        await host.server.start()
        await until(lambda: host.outbox.depth().reports == 0)
    assert host.arrived() == list(range(1_500))
    assert host.server.redelivered == 1_500
    assert host.server.complaints == []


async def test_an_acknowledgement_beyond_what_was_sent_forgets_nothing_more(host: Host) -> None:
    """A confused orchestrator that acknowledges the future loses no report of ours."""
    host.server.ack_beyond = 10**6
    host.append(3)
    async with running(host.uplink()) as uplink:
        await until(lambda: host.outbox.depth().reports == 0)
        host.append(2, start=3)
        assert host.outbox.depth().reports == 2
        uplink.wake()
        await until(lambda: host.outbox.depth().reports == 0)
    assert host.arrived() == [0, 1, 2, 3, 4]


async def test_only_the_reports_that_are_refused_are_set_aside(host: Host) -> None:
    """Two invalid reports among 1 200 are found by halves and counted as lost; all others arrive in order."""
    bad = {333, 901}
    host.append(1_200)
    host.server.is_invalid = lambda report: isinstance(report.body, Loss) and report.body.count in bad
    async with running(host.uplink()) as uplink:
        await until(lambda: host.outbox.depth().reports == 0)
        assert uplink.status.set_aside_reports == 2
        assert uplink.status.streams < 40
        host.append(600, start=2_000)
        uplink.wake()
        await until(lambda: host.outbox.depth().reports == 0)
    assert host.arrived() == [n for n in range(1_200) if n not in bad] + list(range(2_000, 2_600))
    assert host.arrived(LossKind.REPORT_REFUSED) == [1, 1]


async def test_an_orchestrator_that_refuses_everything_costs_few_reports(host: Host) -> None:
    """Each report set aside with nothing acknowledged in between lengthens the pause."""
    host.append(50)
    host.server.is_invalid = lambda _: True
    limits = UplinkLimits(first_pause_s=0.01, longest_pause_s=30.0, look_every_s=1.0)
    async with running(host.uplink(limits)) as uplink:
        await until(lambda: uplink.status.set_aside_reports >= 3)
        await asyncio.sleep(0.2)
        assert uplink.status.set_aside_reports < 8
    assert host.pauses == sorted(host.pauses)


@pytest.mark.parametrize("status", [grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED])
async def test_a_host_that_is_not_accepted_says_so_and_keeps_its_reports(
    host: Host, status: grpc.StatusCode
) -> None:
    """The status names it; nothing is lost; when it is accepted again everything arrives."""
    host.server.status = status
    host.append(3)
    async with running(host.uplink()) as uplink:
        await until(lambda: uplink.status.state is UplinkState.NOT_ACCEPTED)
        assert uplink.status.detail == f"{status.name}: as the test asked"
        await until(lambda: len(host.pauses) >= 5)
        assert all(0.005 <= pause <= 0.05 for pause in host.pauses)
        host.server.status = None
        await until(lambda: host.outbox.depth().reports == 0)
    assert host.arrived() == [0, 1, 2]


async def test_an_orchestrator_that_falls_silent_is_left(host: Host) -> None:
    """When nothing is acknowledged for too long, a new stream is tried."""
    host.server.silent = True
    host.append(1)
    limits = UplinkLimits(first_pause_s=0.01, longest_pause_s=0.02, look_every_s=0.02, ack_within_s=0.1)
    async with running(host.uplink(limits)) as uplink:
        await until(lambda: uplink.status.state is UplinkState.PAUSED or uplink.status.streams > 2)
        await until(lambda: host.server.streams >= 2)
        host.server.silent = False
        await until(lambda: host.outbox.depth().reports == 0)
    assert host.arrived() == [0]


async def test_a_stranger_orchestrator_gets_nothing(host: Host, tmp_path: Path) -> None:
    """A server of another authority is not spoken to, and the status names its certificate."""
    other = Host(tmp_path / "other")
    other.outbox.close()
    host.files = Files(other.pki / "ca.crt", host.files.certificate, host.files.key)
    host.append(1)
    async with running(host.uplink()) as uplink:
        await until(lambda: uplink.status.state is UplinkState.UNREACHABLE)
        assert "certificate" in uplink.status.detail.lower()
    assert host.server.streams == 0


async def test_a_stranger_agent_is_not_heard(host: Host, tmp_path: Path) -> None:
    """A client certificate of another authority does not pass the handshake; none at all neither."""
    other = Host(tmp_path / "other")
    other.outbox.close()
    host.files = Files(host.files.authority, other.files.certificate, other.files.key)
    host.append(1)
    async with running(host.uplink()) as uplink:
        await until(lambda: uplink.status.state in (UplinkState.UNREACHABLE, UplinkState.PAUSED))
    root = host.files.authority.read_bytes()
    async with grpc.aio.secure_channel(
        f"127.0.0.1:{host.server.port}", grpc.ssl_channel_credentials(root_certificates=root)
    ) as channel:
        with pytest.raises((grpc.aio.AioRpcError, TimeoutError)):
            await asyncio.wait_for(channel.stream_stream("/x/y")(timeout=2.0).read(), 3.0)
    assert host.server.streams == 0


async def test_renewed_certificates_are_used_without_a_restart(host: Host) -> None:
    """Both ends take up new files while they run, and a half-written one changes nothing."""
    async with running(host.uplink()) as uplink:
        host.append(1)
        uplink.wake()
        await until(lambda: host.outbox.depth().reports == 0)
        streams = uplink.status.streams
        good = host.files.certificate.read_bytes()
        host.files.certificate.write_bytes(b"half writ")
        await asyncio.sleep(0.2)
        assert uplink.status.streams == streams
        host.files.certificate.write_bytes(good)
        now = dt.datetime.now(tz=dt.UTC)
        for name in ("orchestrator", AGENT):
            assert renew(host.pki / f"{name}.crt", authority=host.pki, now=now, force=True) is not None
        await until(lambda: uplink.status.streams > streams)
        host.append(2, start=1)
        uplink.wake()
        await until(lambda: host.outbox.depth().reports == 0)
    assert host.arrived() == [0, 1, 2]


async def test_the_server_shows_its_renewed_certificate(host: Host) -> None:
    """The next handshake after a renewal shows it, in TLS 1.3; a broken file changes nothing."""

    async def shown() -> tuple[str, str]:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{host.server.port}", "-alpn", "h2"]
        files = ["-cert", host.files.certificate, "-key", host.files.key, "-CAfile", host.files.authority]
        process = await asyncio.create_subprocess_exec(
            *command,
            *files,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        output = (await process.communicate())[0].decode(errors="replace")
        begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
        return output[output.index(begin) : output.index(end)], output

    path = host.pki / "orchestrator.crt"
    first, output = await shown()
    assert first in path.read_text()
    assert "TLSv1.3" in output
    broken = path.read_bytes()
    path.write_bytes(b"-----BEGIN CERTIFICATE-----\nnonsense")
    assert (await shown())[0] == first
    assert (await shown())[0] == first
    assert len(host.server.complaints) == 1
    assert "orchestrator.crt" in host.server.complaints[0]
    path.write_bytes(broken)
    renew(path, authority=host.pki, now=dt.datetime.now(tz=dt.UTC), force=True)
    second, _ = await shown()
    assert second != first
    assert second in path.read_text()
    assert host.server.complaints[1:] == [""]


async def test_missing_certificates_are_named_and_waited_for(host: Host) -> None:
    """Without certificates it says which file is missing, and goes on when they come."""
    key = host.files.key
    away = key.with_name("away")
    shutil.move(key, away)
    host.append(1)
    async with running(host.uplink()) as uplink:
        await until(lambda: uplink.status.state is UplinkState.NO_CREDENTIALS)
        assert "spark-a" in uplink.status.detail
        shutil.move(away, key)
        await until(lambda: host.outbox.depth().reports == 0)


async def test_an_outbox_that_fails_is_tried_again(host: Host) -> None:
    """A failing disk ends no uplink; it says so and goes on when the outbox does."""
    host.calls.broken = True
    host.append(1)
    async with running(host.uplink()) as uplink:
        await until(lambda: uplink.status.state is UplinkState.NO_OUTBOX)
        assert uplink.status.detail == "spool x: disk I/O error"
        host.calls.broken = False
        await until(lambda: host.outbox.depth().reports == 0)
