"""nanobotctl with a real orchestrator process: certificates, token, SQLite, and a kill -9 in between."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from escalation.cli.app import run
from escalation.model import (
    CasePhase,
    CaseReport,
    FaultClass,
    FlightEvidence,
    Reason,
    ReasonCode,
    RouteId,
    RouteKind,
    ServerKind,
    Subject,
    SubjectKind,
)
from escalation.server.testing import CONTAINER, case_report, heartbeat
from escalation.wire import codec
from tests.escalation.server.site import METHOD, free_port, wired


@contextlib.contextmanager
def _serving(config: Path) -> Iterator[subprocess.Popen[str]]:
    """Run an orchestrator from `config` until the block ends, and wait until it says that it is ready."""
    program = [sys.executable, "-m", "escalation.server", "serve", "--config", str(config)]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "orchestrator_ready" in line:
                break
        assert process.poll() is None, "the orchestrator ended before it was ready"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=20)


def _report(site: _Site, batch: bytes, *, host: str = "spark-1") -> None:
    """Send a batch as the agent on `host`, with the certificate that nanobotctl issued."""
    pki = site.pki
    credentials = grpc.ssl_channel_credentials(
        (pki / "ca.crt").read_bytes(), (pki / f"{host}.key").read_bytes(), (pki / f"{host}.crt").read_bytes()
    )
    with grpc.secure_channel(f"127.0.0.1:{site.grpc_port}", credentials) as channel:
        acks = list(channel.stream_stream(METHOD)(iter([batch]), timeout=20))
    newest = codec.peek(codec.split(batch)[-1])
    assert codec.decode_ack(acks[-1]).sequence == newest.sequence


@dataclass(frozen=True)
class _Site:
    """What an operator has after the first five minutes: certificates, settings, a token."""

    ctl: Callable[..., str]
    pki: Path
    grpc_port: int
    config: Path


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> _Site:
    """Certificates for the orchestrator and two hosts, and settings for both ends."""

    def ctl(*arguments: str) -> str:
        capsys.readouterr()
        assert run(arguments) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    pki, grpc_port, http_port = tmp_path / "pki", free_port(), free_port()
    ctl("pki", "init", "--dir", str(pki))
    ctl("pki", "issue", "orchestrator", "--address", "127.0.0.1", "--dir", str(pki))
    for host in ("spark-1", "spark-2"):
        ctl("pki", "issue", "agent", host, "--dir", str(pki))
    person = ctl("token", str(tmp_path / "token"), "--name", "kim")
    config = tmp_path / "orchestrator.toml"
    config.write_text(
        f'[grpc]\nlisten = "127.0.0.1:{grpc_port}"\nclients_ca = "{pki}/ca.crt"\n'
        f'certificate = "{pki}/orchestrator.crt"\nkey = "{pki}/orchestrator.key"\n'
        f'[http]\nlisten = "127.0.0.1:{http_port}"\n[store]\npath = "{tmp_path}/state.db"\n{person}'
    )
    settings = tmp_path / "ctl.toml"
    settings.write_text(f'url = "http://127.0.0.1:{http_port}"\ntoken_file = "token"\n')
    monkeypatch.setenv("NANOBOT_CTL_CONFIG", str(settings))
    return _Site(ctl, pki, grpc_port, config)


def test_from_nothing_to_a_decision_that_outlives_a_kill(site: _Site, tmp_path: Path) -> None:
    """Certificates and a token from nanobotctl carry a report to an approval, which outlives kill -9."""
    ctl = site.ctl
    with _serving(site.config):
        _report(site, codec.join([wired(heartbeat(), 1), wired(case_report(), 2)]))
        (entry,) = json.loads(ctl("queue", "--json"))
        assert (entry["host"], entry["state"]) == ("spark-1", "proposed")
        ctl("approve", entry["id"], "--reason", "nobody is served now", "--digest", entry["digest"])
    with _serving(site.config):
        shown = json.loads(ctl("show", entry["id"], "--json"))
        assert (shown["state"], shown["decided_by"]) == ("approved", "kim")
        assert json.loads(ctl("done", entry["id"], "--json"))["state"] == "done"
        assert json.loads(ctl("hosts", "--json"))[0]["host"] == "spark-1"
        assert json.loads(ctl("audit", "verify", "--json"))["whole"] is True
        export = tmp_path / "audit.jsonl"
        export.write_text(ctl("audit", "export"))
    assert ctl("audit", "verify", str(export)).startswith("whole: ")


def _stall(phase: CasePhase = CasePhase.OPENED) -> CaseReport:
    flight = FlightEvidence(
        id=RouteId(8000, RouteKind.CHAT_COMPLETIONS, "qwen3-32b", ServerKind.VLLM),
        requests=3,
        waiting=3,
        oldest_s=400.0,
        silent_s=300.0,
        patience_s=180.0,
        largest_request_bytes=300_000,
    )
    return case_report(
        phase,
        fault_class=FaultClass.ROUTE_ENGINE_STALLED,
        subject=Subject(SubjectKind.ROUTE, "8000/chat_completions qwen3-32b"),
        target=Subject(SubjectKind.CONTAINER, CONTAINER),
        reasons=(Reason(ReasonCode.NO_BYTES_WHILE_IN_FLIGHT, 3, 180.0, 300.0),),
        evidence=(flight,),
    )


def test_two_hosts_that_stall_together_are_one_decision(site: _Site) -> None:
    """Over the wire, through the database and a kill -9, to one entry that names both hosts."""
    ctl = site.ctl
    with _serving(site.config):
        for host in ("spark-1", "spark-2"):
            batch = [wired(heartbeat(), 1, host=host), wired(_stall(), 2, host=host)]
            _report(site, codec.join(batch), host=host)
    with _serving(site.config):
        (entry,) = json.loads(ctl("queue", "--json"))
        assert (entry["fault_class"], entry["subject"]["name"]) == ("distributed.rank_stall", "qwen3-32b")
        assert entry["action"]["command_line"] == f"docker restart {CONTAINER}"
        shown = ctl("show", entry["id"])
        assert "Explains    spark-1  route 8000/chat_completions qwen3-32b  route.engine_stalled" in shown
        assert "spark-2  route 8000/chat_completions qwen3-32b  route.engine_stalled" in shown
        found = json.loads(ctl("incidents", "--json"))
        standing = {each["host"]: each for each in found if each["fault_class"] == "route.engine_stalled"}
        assert {each["explained_by"] for each in standing.values()} == {entry["incident_id"]}
        assert f"nanobotctl show {entry['incident_id']}" in ctl("show", standing["spark-1"]["id"])
        assert json.loads(ctl("show", standing["spark-2"]["id"], "--json"))["id"] == entry["id"]
        _report(site, codec.join([wired(_stall(CasePhase.CLEARED), 3)]))
        (left,) = json.loads(ctl("queue", "--json"))
        assert (left["host"], left["fault_class"]) == ("spark-2", "route.engine_stalled")
