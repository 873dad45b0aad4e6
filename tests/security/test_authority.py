"""Who may do what: the orchestrator to a host, an agent to another, one person for two."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
import sys
import threading
import time
import tomllib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx2
import psutil
import pytest
from hypothesis import given, settings, strategies as st

from agent.config import Metrics
from escalation.model import AgentId, Subject, SubjectKind
from escalation.outbox import Outbox
from escalation.server.testing import case_report, heartbeat
from escalation.uplink import Uplink, UplinkLimits
from escalation.wire import codec, escalation_pb2 as pb
from escalation.wire.credentials import Files
from tests.escalation.server.site import METHOD, Authority
from tests.security import source
from tests.security.house import House, standing
from tests.security.properties import security_property

_STARTS_PROGRAMS = (
    "asyncio.create_subprocess",
    "os.exec",
    "os.popen",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "pty.spawn",
    "subprocess.",
)
_REVIEWED = {
    "escalation/server/storage/postgres_migration.py": "pg_dump, before a migration that a person asked for",
    "escalation/signing/sshsig.py": "ssh-keygen by its absolute path, to sign and to check",
}
"""Where the orchestrator's and the operator's side may start a program of its own machine, and which."""

_REMOTE = {
    "paramiko",
    "fabric",
    "asyncssh",
    "docker",
    "podman",
    "kubernetes",
    "ansible",
    "pexpect",
    "telnetlib",
}


@security_property("A1", "The orchestrator starts no program but those reviewed here, and calls no host.")
def test_the_orchestrator_has_no_way_to_run_anything_on_a_host(another: House) -> None:
    """No code starts programs or speaks to hosts; the process has connections to its doors only."""
    starting, calling = set(), set()
    for name, module in source.modules("escalation"):
        if any(called.startswith(_STARTS_PROGRAMS) for called, _ in source.calls(module)):
            starting.add(name)
        if any(called.endswith("secure_channel") for called, _ in source.calls(module)):
            calling.add(name)
        assert not _REMOTE & {each.partition(".")[0] for each in source.imported(module)}, name
    assert starting == set(_REVIEWED)
    assert calling == {"escalation/uplink.py"}, "only an agent opens a channel"
    with standing(another) as running:
        another.opened()
        own = psutil.Process(running.pid)
        doors = {each.laddr.port for each in own.net_connections("inet") if each.status == "LISTEN"}
        outward = [each for each in own.net_connections("inet") if each.laddr.port not in doors]
        assert doors == {another.grpc_port, another.http_port}
        assert not [each for each in outward if each.raddr.port not in {another.told_port}]
        assert not own.children(recursive=True)


@security_property(
    "A2", "The agent's one listener on the network is its metrics page, on loopback by default."
)
def test_the_agent_listens_for_metrics_alone() -> None:
    """Of its code only the metrics page and the loader's local socket listen; by default, on loopback."""
    listening = {
        name
        for name, module in source.modules("agent", "probes")
        if not name.startswith("agent/drills/") and name != "agent/testing.py"
        for called, _ in source.calls(module)
        if called.rpartition(".")[2] in {"listen", "create_server", "start_server", "start_http_server"}
    }
    assert listening == {"agent/process/descriptors.py", "agent/process/metrics.py"}
    names = {called for called, _ in source.calls(source.tree(source.ROOT / "agent/process/descriptors.py"))}
    assert "socket.socket" in names
    assert "AF_UNIX" in (source.ROOT / "agent/process/descriptors.py").read_text()
    assert ipaddress.ip_address(Metrics().address).is_loopback


@security_property(
    "A3", "There is nothing that acts: four programs are installed, and the agent's starts no other."
)
def test_no_program_of_ours_acts() -> None:
    """The agent that runs as a service imports neither drills nor what starts programs; no fifth program."""
    project = tomllib.loads((source.ROOT / "pyproject.toml").read_text())["project"]
    programs = {"nanobot-agent", "nanobot-probes", "nanobot-orchestrator", "nanobotctl"}
    assert programs <= set(project["scripts"])
    assert set(project["scripts"]) - programs <= {"nanobot-mcp"}, "a new program: what may it do?"
    reached = source.closure("agent.app")
    assert "agent.judge" in reached, "the walk found the agent"
    assert not [each for each in reached if each.startswith("agent.drills.")]
    for name, module in source.modules("agent", "probes"):
        dotted = name.removesuffix(".py").replace("/", ".")
        if dotted in reached:
            assert not [
                called for called, _ in source.calls(module) if called.startswith(_STARTS_PROGRAMS)
            ], name


class _Hostile:
    """An orchestrator that has been taken over: it answers every batch with what it likes."""

    def __init__(self, answers: list[bytes]) -> None:
        self._answers = answers
        self.heard = 0
        self.thrice = asyncio.Event()

    async def escalate(self, batches: AsyncIterator[bytes], context: Any) -> None:
        async for _ in batches:
            self.heard += 1
            if self.heard == 3:
                self.thrice.set()
            for answer in self._answers:
                await context.write(answer)


class _Direct:
    """The outbox on the loop's own thread."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    async def pending(self, *, after_row: int, limit: int, max_bytes: int) -> Any:
        return self._outbox.pending(after_row=after_row, limit=limit, max_bytes=max_bytes)

    async def acknowledge(self, boot_id: Any, sequence: int) -> int:
        return self._outbox.acknowledge(boot_id, sequence)

    async def set_aside(self, row: int, *, now_ns: int) -> None:
        self._outbox.set_aside(row, now_ns=now_ns)


_EXECUTES = (
    "ctypes.dlopen",
    "os.exec",
    "os.fork",
    "os.kill",
    "os.posix_spawn",
    "os.putenv",
    "os.remove",
    "os.rename",
    "os.spawn",
    "os.system",
    "pty.spawn",
    "shutil.",
    "subprocess.Popen",
)


@contextlib.contextmanager
def _watched() -> Iterator[list[str]]:
    """Collect what this thread executes, as the interpreter's own audit events tell it."""
    events: list[str] = []
    listening = [True]
    thread = threading.get_ident()

    def hook(event: str, _arguments: tuple[object, ...]) -> None:
        if listening[0] and threading.get_ident() == thread and event.startswith(_EXECUTES):
            events.append(event)

    sys.addaudithook(hook)
    try:
        yield events
    finally:
        listening[0] = False


@security_property(
    "A6", "Whatever a compromised orchestrator answers, an agent runs, loads and removes nothing."
)
@settings(max_examples=15)
@given(st.lists(st.binary(max_size=60), max_size=4), st.integers(0, 2**64 - 1), st.text(max_size=40))
def test_a_compromised_orchestrator_executes_nothing(garbage: list[bytes], sequence: int, boot: str) -> None:
    """An acknowledgement is a boot id and a number: garbage, a command as text, any number start nothing."""
    assert [(field.name, field.type) for field in pb.Ack.DESCRIPTOR.fields] == [
        ("boot_id", 9),
        ("sequence", 4),
    ]
    forged = pb.Ack(boot_id=boot, sequence=sequence).SerializeToString()
    command = pb.Ack(boot_id="$(touch /tmp/owned)", sequence=1).SerializeToString()
    with _watched() as events:
        for answer in (*garbage, forged, command):
            with contextlib.suppress(Exception):
                codec.decode_ack(answer)
    assert events == []


@security_property(
    "A6", "A real agent's uplink, held by a hostile orchestrator, keeps its reports and goes on."
)
async def test_a_hostile_orchestrator_gets_reports_and_nothing_else(
    tmp_path: Path, authority: Authority
) -> None:
    """Over real mutual TLS nothing is executed, and what was not acknowledged is still in the spool."""
    host = AgentId("spark-1")
    hostile = _Hostile([b"\xff\xff", pb.Ack(boot_id="; reboot", sequence=1).SerializeToString()])
    (key, certificate), (agent_key, agent_certificate) = authority.leaf(server=True), authority.agent(host)
    (tmp_path / "agent.key").write_bytes(agent_key)
    (tmp_path / "agent.key").chmod(0o600)
    (tmp_path / "agent.crt").write_bytes(agent_certificate)
    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(hostile.escalate)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(METHOD.split("/")[1], {"Escalate": handler}),)
    )
    ca = authority.ca.read_bytes()
    port = server.add_secure_port(
        "127.0.0.1:0", grpc.ssl_server_credentials(((key, certificate),), ca, require_client_auth=True)
    )
    await server.start()
    outbox = Outbox.open(
        tmp_path / "spool.db", agent_id=host, kernel_boot_id="k", max_bytes=1 << 20, now_ns=1
    )
    outbox.append([heartbeat(), case_report()], now_ns=2)
    uplink = Uplink(
        outbox=_Direct(outbox),
        target=f"localhost:{port}",
        files=Files(authority.ca, tmp_path / "agent.crt", tmp_path / "agent.key"),
        now_ns=time.time_ns,
        dice=random.Random(7),
        pause=asyncio.sleep,
        limits=UplinkLimits(first_pause_s=0.01, longest_pause_s=0.02),
    )
    with _watched() as events:
        running = asyncio.create_task(uplink.run())
        async with asyncio.timeout(20):
            await hostile.thrice.wait()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    await server.stop(0)
    assert events == []
    assert outbox.depth().reports == 2
    outbox.close()


@security_property(
    "A7", "The name in the certificate is who reports; another host's report is refused and audited."
)
def test_a_stolen_agent_certificate_acts_for_nobody_else(house: House) -> None:
    """It cannot report for another host, and at the people's door it is nobody."""
    thief, victim = house.host(), house.host()
    house.send(thief, heartbeat())
    with pytest.raises(grpc.RpcError) as refused:
        house.send(victim, case_report(), certificate_of=thief)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert [link["verb"] for link in house.audit(thief)][-1] == "report.refused"
    assert not house.rows(f"SELECT 1 FROM hosts WHERE agent_id = '{victim}'")
    with house.client(None) as client, contextlib.suppress(httpx2.TransportError):
        assert client.get("/api/v1/queue").status_code == 401
    with house.channel(house.authority.agent(thief)) as channel:
        for method in ("Queue", "Approve", "Reject", "Subscribe"):
            call = channel.stream_stream(f"/nanobot.v1.EscalationService/{method}")(iter([b""]), timeout=20)
            with pytest.raises(grpc.RpcError) as unknown:
                next(iter(call))
            assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED


@security_property("A8", "Two persons are two names: one person twice stays one, and the second one decides.")
def test_two_persons_are_two_distinct_persons(house: House) -> None:
    """Where two are wanted, one person's first approval decides nothing, and neither does the second."""
    unit = Subject(SubjectKind.UNIT, "ollama.service")
    entry = house.opened(subject=unit, target=unit)
    assert entry["action"]["kind"] == "restart_unit"
    first = house.decide(entry, "approve").json()
    assert (first["state"], first["approvers"]) == ("proposed", ["ada"])
    again = house.decide(entry, "approve")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "refused")
    assert house.decide(entry, "done").status_code == 409
    second = house.decide(entry, "approve", by="grace").json()
    assert (second["state"], second["approvers"]) == ("approved", ["ada", "grace"])


@security_property("A9", "Only the playbook proposes: no person can ask for what they then approve.")
def test_nobody_can_propose_what_they_approve(house: House) -> None:
    """No route makes an entry or edits its action; whoever approved first is refused as the second."""
    entry = house.opened()
    with house.client("root") as client:
        for method, path in (
            ("POST", "/api/v1/queue"),
            ("PUT", f"/api/v1/queue/{entry['id']}"),
            ("PATCH", f"/api/v1/queue/{entry['id']}"),
            ("POST", "/api/v1/incidents"),
            ("POST", f"/api/v1/queue/{entry['id']}/action"),
        ):
            answer = client.request(method, path, json={"action": {"command": ["reboot"]}})
            assert answer.status_code in {404, 405}, (method, path)
    assert house.entry(entry["host"])["action"] == entry["action"]
    proposed = [link for link in house.audit(entry["id"]) if link["verb"] == "recommendation.proposed"]
    assert [link["actor"] for link in proposed] == [f"agent:{entry['host']}"]
