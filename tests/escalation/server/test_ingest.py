"""Agents and strangers at the gRPC door, over real mutual TLS."""

from __future__ import annotations

import asyncio
import sqlite3

import grpc
import grpc.aio
import pytest

from escalation.model import CasePhase, Loss, LossKind
from escalation.server.testing import case_report, heartbeat
from escalation.wire import codec, escalation_pb2 as pb
from tests.escalation.server.site import METHOD, Authority, Site, escalate, wired

_OTHER_BOOT = "00000000-0000-4000-8000-000000000002"


def _kept(site: Site) -> list[tuple[str, int]]:
    database = sqlite3.connect(f"file:{site.database}?mode=ro", uri=True)
    try:
        return database.execute(
            "SELECT agent_id, sequence FROM reports JOIN boots ON boots.number = boot ORDER BY id"
        ).fetchall()
    finally:
        database.close()


def _audit(site: Site, verb: str) -> list[tuple[str, str, str]]:
    database = sqlite3.connect(f"file:{site.database}?mode=ro", uri=True)
    try:
        return database.execute(
            "SELECT actor, object_id, detail FROM audit WHERE verb = ?", (verb,)
        ).fetchall()
    finally:
        database.close()


async def test_acknowledges_what_is_committed(orchestrator: Site) -> None:
    """The last acknowledgement names the last report, and all of them are on disk by then."""
    async with orchestrator.channel(orchestrator.authority.agent("spark-1")) as channel:
        batches = [
            codec.join([wired(heartbeat(), 1), wired(case_report(), 2)]),
            codec.join([wired(case_report(CasePhase.UPDATED, count=3), 3)]),
        ]
        acks = await escalate(channel, *batches)
        assert acks[-1].sequence == 3
        assert _kept(orchestrator) == [("spark-1", 1), ("spark-1", 2), ("spark-1", 3)]


async def test_a_second_delivery_is_acknowledged_and_changes_nothing(orchestrator: Site) -> None:
    """Redelivery is harmless: the same reports, the same incident, acknowledged again."""
    batch = codec.join([wired(heartbeat(), 1), wired(case_report(), 2)])
    async with orchestrator.channel(orchestrator.authority.agent("spark-1")) as channel:
        await escalate(channel, batch)
        more = codec.join([wired(heartbeat(), 1), wired(case_report(), 2), wired(case_report(), 4)])
        acks = await escalate(channel, batch, more)
    assert acks[-1].sequence == 4
    assert _kept(orchestrator) == [("spark-1", 1), ("spark-1", 2), ("spark-1", 4)]
    assert len(_audit(orchestrator, "incident.opened")) == 1


async def test_a_stolen_certificate_cannot_report_for_another_host(orchestrator: Site) -> None:
    """A report that names another host ends the stream, keeps nothing, and is audited."""
    batch = codec.join([wired(heartbeat(), 1), wired(case_report(), 2, host="spark-2")])
    async with orchestrator.channel(orchestrator.authority.agent("spark-1")) as channel:
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await escalate(channel, batch)
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert "spark-2" in str(refused.value.details())
    assert _kept(orchestrator) == []
    entries = _audit(orchestrator, "report.refused")
    assert [entry[:2] for entry in entries] == [("agent:spark-1", "spark-1")], "one entry a minute, not three"


async def test_a_foreign_authority_cannot_connect(orchestrator: Site, tmp_path: object) -> None:
    """A certificate that another authority signed ends at the handshake."""
    foreign = Authority(orchestrator.folder / "foreign", "foreign ca")
    for credentials in (foreign.agent("spark-1"), None):
        async with orchestrator.channel(credentials) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await escalate(channel, codec.join([wired(heartbeat(), 1)]))
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert _kept(orchestrator) == []


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("spiffe://nanobot.local/nanobot/orchestrator",),
        ("spiffe://other.domain/nanobot/agent/spark-1",),
        ("spiffe://nanobot.local/nanobot/agent/Spark_1",),
        ("spiffe://nanobot.local/nanobot/agent/",),
        ("spiffe://nanobot.local/nanobot/agent/spark-1", "spiffe://nanobot.local/nanobot/agent/spark-2"),
        ("https://nanobot.local/nanobot/agent/spark-1",),
        ("spiffe://nanobot.local/nanobot/agent/spark-1", "https://nanobot.local/"),
    ],
)
async def test_a_certificate_that_names_no_agent_is_refused_everywhere(
    orchestrator: Site, names: tuple[str, ...]
) -> None:
    """Every method, those that do not exist included, answers UNAUTHENTICATED to a peer without identity."""
    methods = [
        f"/{service.full_name}/{method.name}"
        for service in pb.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]
    assert methods == [METHOD]
    async with orchestrator.channel(orchestrator.authority.leaf(*names)) as channel:
        for method in (*methods, "/nanobot.v1.EscalationService/Command", "/no.such.Service/Method"):
            call = channel.stream_stream(method)()
            await call.done_writing()
            assert await call.code() is grpc.StatusCode.UNAUTHENTICATED, method


async def test_an_unknown_method_is_unimplemented_for_an_agent(orchestrator: Site) -> None:
    """There is one method; no other exists for anybody."""
    async with orchestrator.channel(orchestrator.authority.agent("spark-1")) as channel:
        call = channel.stream_stream("/nanobot.v1.EscalationService/Command")()
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("batch", "named"),
    [
        (b"\xff\xff\xff\xff", "ReportBatch: is not a protobuf message"),
        (codec.join([wired(heartbeat(), 1)])[:-3], "ReportBatch: is not a protobuf message"),
        (codec.join([wired(heartbeat(), 1)[:-3]]), "Report: is not a protobuf message"),
        (b"", "ReportBatch.reports: is empty"),
        (codec.join([wired(heartbeat(), 2), wired(heartbeat(), 1)]), "Report.sequence: 1 after 2"),
        (codec.join([wired(heartbeat(), 2), wired(heartbeat(), 2)]), "Report.sequence: 2 after 2"),
        (
            codec.join([wired(heartbeat(), 1), wired(heartbeat(), 2, boot=_OTHER_BOOT)]),
            "two numberings",
        ),
        (codec.join([wired(heartbeat(), 1)] * 1001), "ReportBatch.reports: 1001 entries"),
        (
            pb.ReportBatch(
                reports=[pb.Report(agent_id="spark-1", boot_id="nope", sequence=1)]
            ).SerializeToString(),
            "Report.boot_id",
        ),
        (b"\x0a\x80\x80\x40" + b"x" * 1024 * 1024, "at most 1048576"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_malformed_batch_is_refused_whole_and_by_name(
    orchestrator: Site, batch: bytes, named: str
) -> None:
    """INVALID_ARGUMENT says what is wrong; what came before is kept, nothing of the batch is."""
    good = codec.join([wired(case_report(), 1)])
    async with orchestrator.channel(orchestrator.authority.agent("spark-1")) as channel:
        call = channel.stream_stream(METHOD)()
        await call.write(good)
        await call.write(batch)
        ack = codec.decode_ack(await call.read())
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert named in str(await call.details())
    assert ack.sequence == 1
    assert _kept(orchestrator) == [("spark-1", 1)]


async def test_an_agent_may_hold_only_so_many_streams(orchestrator: Site) -> None:
    """The fifth stream of one agent is told to come back later; another agent is served."""
    async with orchestrator.channel(orchestrator.authority.agent("spark-1")) as channel:
        held = [channel.stream_stream(METHOD)() for _ in range(4)]
        for number, call in enumerate(held, start=1):
            await call.write(codec.join([wired(heartbeat(), number)]))
            await call.read()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await escalate(channel, codec.join([wired(heartbeat(), 9)]))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        async with orchestrator.channel(orchestrator.authority.agent("spark-2")) as other:
            assert await escalate(other, codec.join([wired(heartbeat(), 1, host="spark-2")]))
        for call in held:
            call.cancel()


async def test_a_stream_that_breaks_off_frees_its_place(orchestrator: Site) -> None:
    """Ten streams one after the other, each cancelled in the middle: the eleventh is served."""
    async with orchestrator.channel(orchestrator.authority.agent("spark-1")) as channel:
        for number in range(1, 11):
            call = channel.stream_stream(METHOD)()
            await call.write(codec.join([wired(heartbeat(), number)]))
            await call.read()
            call.cancel()
            await asyncio.sleep(0)
        for _ in range(50):
            try:
                acks = await escalate(channel, codec.join([wired(heartbeat(), 11)]))
                break
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)
        assert acks[-1].sequence == 11


async def test_skipped_numbers_and_losses_stand_on_the_host(orchestrator: Site) -> None:
    """What an agent says it lost, and the numbers it skipped, are kept with the host."""
    lost = Loss(LossKind.RING_FULL, "kernel.device_open", 7, exact=True)
    async with orchestrator.channel(orchestrator.authority.agent("spark-1")) as channel:
        await escalate(
            channel, codec.join([wired(heartbeat(), 3), wired(lost, 7)]), codec.join([wired(lost, 8)])
        )
    database = sqlite3.connect(f"file:{orchestrator.database}?mode=ro", uri=True)
    value = database.execute("SELECT value FROM hosts").fetchone()[0]
    database.close()
    assert '"missing_reports":5' in value
    assert '"count":14' in value
