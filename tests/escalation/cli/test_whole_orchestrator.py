"""nanobotctl with a real orchestrator process: certificates, token, SQLite, and a kill -9 in between."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from escalation.cli.app import run
from escalation.server.testing import case_report, heartbeat
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


def _report(port: int, pki: Path, batch: bytes) -> None:
    """Send a batch as the agent on spark-1, with the certificate that nanobotctl issued."""
    credentials = grpc.ssl_channel_credentials(
        (pki / "ca.crt").read_bytes(), (pki / "spark-1.key").read_bytes(), (pki / "spark-1.crt").read_bytes()
    )
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
        acks = list(channel.stream_stream(METHOD)(iter([batch]), timeout=20))
    assert codec.decode_ack(acks[-1]).sequence == 2


def test_from_nothing_to_a_decision_that_outlives_a_kill(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Certificates and a token from nanobotctl carry a report to an approval, which outlives kill -9."""

    def ctl(*arguments: str) -> str:
        capsys.readouterr()
        assert run(arguments) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    pki, grpc_port, http_port = tmp_path / "pki", free_port(), free_port()
    ctl("pki", "init", "--dir", str(pki))
    ctl("pki", "issue", "orchestrator", "--address", "127.0.0.1", "--dir", str(pki))
    ctl("pki", "issue", "agent", "spark-1", "--dir", str(pki))
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

    with _serving(config):
        _report(grpc_port, pki, codec.join([wired(heartbeat(), 1), wired(case_report(), 2)]))
        (entry,) = json.loads(ctl("queue", "--json"))
        assert (entry["host"], entry["state"]) == ("spark-1", "proposed")
        ctl("approve", entry["id"], "--reason", "nobody is served now", "--digest", entry["digest"])
    with _serving(config):
        shown = json.loads(ctl("show", entry["id"], "--json"))
        assert (shown["state"], shown["decided_by"]) == ("approved", "kim")
        assert json.loads(ctl("done", entry["id"], "--json"))["state"] == "done"
        assert json.loads(ctl("hosts", "--json"))[0]["host"] == "spark-1"
        assert json.loads(ctl("audit", "verify", "--json"))["whole"] is True
        export = tmp_path / "audit.jsonl"
        export.write_text(ctl("audit", "export"))
    assert ctl("audit", "verify", str(export)).startswith("whole: ")
