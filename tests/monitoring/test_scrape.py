"""A real Prometheus scrapes a real agent and a real orchestrator, by the files that are shipped."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from escalation import pki
from tests.escalation.server.site import free_port
from tests.monitoring.programs import ROOT, found
from tests.monitoring.test_dashboard import QUERIES

PROMETHEUS, PROMTOOL = found("prometheus"), found("promtool")
TOKEN = "token-of-the-scraper"
DEADLINE_S = 40.0

pytestmark = pytest.mark.skipif(
    PROMETHEUS is None or PROMTOOL is None,
    reason="needs prometheus and promtool (package prometheus; dev/setup.sh tests unpacks it)",
)


@dataclass(frozen=True)
class Scraped:
    """What runs: where Prometheus answers, where the two pages are, and the agent to stop."""

    prometheus: str
    agent_page: str
    orchestrator_page: str
    agent: subprocess.Popen[bytes]

    def ask(self, path: str, **parameters: str) -> Any:
        url = f"{self.prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        answer = json.loads(get(url))
        assert answer["status"] == "success"
        return answer["data"]

    def up(self) -> dict[str, str]:
        result = self.ask("query", query="up")["result"]
        return {each["metric"]["job"]: each["value"][1] for each in result}

    def firing(self) -> set[str]:
        alerts = self.ask("alerts")["alerts"]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}


def get(url: str, *, token: str = "") -> bytes:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    with urllib.request.urlopen(request, timeout=10) as answer:
        body: bytes = answer.read()
    return body


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for something that other processes bring about; the deadline is there for failures alone."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        with contextlib.suppress(OSError):
            if holds():
                return
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@contextlib.contextmanager
def process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        started = subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT)
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait(20)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that an account without privilege may pass, which pytest's own does not allow."""
    made = Path(tempfile.mkdtemp(prefix="nanobot-scrape-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def scraped(folder: Path) -> Iterator[Scraped]:
    """The three, each in a process of its own, scraped each second."""
    assert PROMETHEUS is not None
    metrics, grpc, web, own = (free_port() for _ in range(4))
    write_settings(folder, metrics=metrics, grpc=grpc, web=web)
    user = ["--user", "nobody"] if os.geteuid() == 0 else []
    python = [sys.executable, "-P", "-m"]
    with contextlib.ExitStack() as undo:
        undo.enter_context(
            process(
                [*python, "escalation.server", "serve", "--config", str(folder / "orchestrator.toml")],
                folder / "orchestrator.log",
            )
        )
        agent = undo.enter_context(
            process(
                [*python, "agent", "run", "--config", str(folder / "agent.toml"), *user],
                folder / "agent.log",
            )
        )
        undo.enter_context(
            process(
                [
                    PROMETHEUS,
                    f"--config.file={folder}/prometheus.yml",
                    f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address=127.0.0.1:{own}",
                ],
                folder / "prometheus.log",
            )
        )
        parts = Scraped(
            prometheus=f"http://127.0.0.1:{own}",
            agent_page=f"http://127.0.0.1:{metrics}/metrics",
            orchestrator_page=f"http://127.0.0.1:{web}/metrics",
            agent=agent,
        )
        both = {"nanobot-agent": "1", "nanobot-orchestrator": "1"}
        logs = "\n".join(f"{folder}/{each}.log" for each in ("agent", "orchestrator", "prometheus"))
        until(lambda: parts.up() == both, f"both are scraped; see {logs}")
        yield parts


def write_settings(folder: Path, *, metrics: int, grpc: int, web: int) -> None:
    """Write what the three read: the shipped files of Prometheus, with other ports and shorter times."""
    now = dt.datetime.now(dt.UTC)
    keys = folder / "pki"
    pki.create_authority(keys, now=now)
    pki.issue_orchestrator(keys, names=["localhost"], addresses=["127.0.0.1"], now=now)
    agent = pki.issue_agent(keys, host="spark-1", now=now)
    for each in (agent.key, keys):
        each.chmod(0o755)  # the account without privilege reads them; the folder does not outlive the test
    (folder / "orchestrator.toml").write_text(
        f'[grpc]\nlisten = "127.0.0.1:{grpc}"\nclients_ca = "{keys}/ca.crt"\n'
        f'certificate = "{keys}/orchestrator.crt"\nkey = "{keys}/orchestrator.key"\n'
        f'[http]\nlisten = "127.0.0.1:{web}"\n[store]\npath = "{folder}/store/orchestrator.db"\n'
        f'[[person]]\nname = "prometheus"\nrole = "scraper"\n'
        f'token_sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}"\n'
    )
    (folder / "agent.toml").write_text(
        f'[agent]\nid = "spark-1"\nstate_dir = "{folder}/state"\n'
        f'[sensors]\nsocket = "{folder}/state/handover.sock"\n'
        f'[orchestrator]\naddress = "127.0.0.1:{grpc}"\nca = "{keys}/ca.crt"\n'
        f'cert = "{agent.certificate}"\nkey = "{agent.key}"\n'
        f"[metrics]\nport = {metrics}\n[heartbeat]\ninterval_s = 1\n"
    )
    shipped = ROOT / "monitoring/prometheus"
    (folder / "nanobot.token").write_text(TOKEN)
    scrape = (shipped / "scrape.example.yml").read_text()
    for before, after in (
        ("15s", "1s"),
        ("127.0.0.1:9735", f"127.0.0.1:{metrics}"),
        ("127.0.0.1:9737", f"127.0.0.1:{web}"),
        ("/etc/prometheus/nanobot.token", f"{folder}/nanobot.token"),
    ):
        assert before in scrape
        scrape = scrape.replace(before, after)
    (folder / "prometheus.yml").write_text(scrape)
    rules = (shipped / "host-nanobot.rules.yml").read_text()
    (folder / "host-nanobot.rules.yml").write_text(re.sub(r"for: \d+m", "for: 1s", rules))


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_stopped_agent_raises_its_alert(scraped: Scraped) -> None:
    """Both pages are clean, every rule and panel is understood, and the agent's end is told."""
    assert PROMTOOL is not None
    for page in (get(scraped.agent_page), get(scraped.orchestrator_page, token=TOKEN)):
        checked = subprocess.run(
            [PROMTOOL, "check", "metrics"], input=page, capture_output=True, check=False, timeout=30
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    for query in QUERIES:
        scraped.ask("query", query=query.replace("$agent", ".*"))
    connected = 'min(nanobot_agent_uplink_connected) + min(nanobot_orchestrator_hosts{sight="seeing"}) == 2'
    until(lambda: bool(scraped.ask("query", query=connected)["result"]), "the agent is heard")
    valid = "min by (holder) (nanobot_orchestrator_certificate_expiry_seconds) - time() > 80 * 86400"
    holders = {each["metric"]["holder"] for each in scraped.ask("query", query=valid)["result"]}
    assert holders == {"agents", "authority", "orchestrator"}
    until(lambda: evaluated(scraped), "every rule is evaluated")
    assert "NanobotAgentDown" not in scraped.firing()
    scraped.agent.terminate()
    until(lambda: "NanobotAgentDown" in scraped.firing(), "the alert fires")
    assert "NanobotOrchestratorDown" not in scraped.firing()


def evaluated(scraped: Scraped) -> bool:
    """Return whether every rule was evaluated, and none with an error."""
    rules = [rule for group in scraped.ask("rules")["groups"] for rule in group["rules"]]
    assert len(rules) >= 19
    assert {rule["lastError"] for rule in rules if "lastError" in rule} <= {""}
    return {rule["health"] for rule in rules} == {"ok"}
