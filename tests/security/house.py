"""One real orchestrator for all security tests: both doors, SQLite, people of every role, a receiver.

It runs in a thread of its own, as long as the tests do; each test reports from hosts that no other test has.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.server
import itertools
import json
import sqlite3
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest

from escalation.model import Body
from escalation.server import app, config
from escalation.server.clock import SystemClock
from escalation.server.supervision import Supervisor
from escalation.server.testing import case_report, heartbeat
from escalation.server.web import openapi
from escalation.server.web.handlers import Rule
from escalation.wire import codec
from tests.escalation.server.site import METHOD, Authority, free_port, wired

PEOPLE: Mapping[str, str] = {
    "prometheus": "scraper",
    "vera": "viewer",
    "ada": "operator",
    "grace": "operator",
    "root": "admin",
}
TWO_PERSON = "restart_unit"
CANARY = "canary-5f1f0e7b"
"""Stands in every secret that the orchestrator is given."""

_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Spares each client reading the system's authorities, for a door on loopback."""


def token(name: str) -> str:
    """Return the token of a person."""
    return f"{CANARY}-token-of-{name}"


@dataclass
class Told:
    """What reached the receiver of notifications: headers and bodies."""

    posts: list[tuple[Mapping[str, str], Any]] = field(default_factory=list)
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def about(self, host: str, *, within_s: float = 20.0) -> Any:
        """Return the first message about `host`; it comes from the outbox, a moment after the commit."""

        def found() -> Any:
            return next((body for _, body in self.posts if body["host"] == host), None)

        with self.arrived:
            assert self.arrived.wait_for(found, within_s), f"nobody was told about {host}"
            return found()


@contextlib.contextmanager
def receiver(told: Told, answer: bytes = b"") -> Iterator[str]:
    """Serve a webhook that keeps what it is sent and answers `answer`; yield its URL."""

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with told.arrived:
                told.posts.append((dict(self.headers), body))
                told.arrived.notify_all()
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook"
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


class House:
    """The orchestrator as its agents, its people and a thief see it."""

    def __init__(self, folder: Path, authority: Authority, told: Told, hook: str) -> None:
        self.folder = folder
        self.authority = authority
        self.told = told
        self.told_port = int(hook.split(":")[2].partition("/")[0])
        self.grpc_port, self.http_port = free_port(), free_port()
        self.database = folder / "state" / "orchestrator.db"
        self.rules: tuple[Rule, ...] = ()
        self._sequences: dict[str, itertools.count[int]] = {}
        self._names = itertools.count(1)
        key, certificate = authority.leaf("spiffe://nanobot.local/nanobot/orchestrator", server=True)
        (folder / "server.key").write_bytes(key)
        (folder / "server.crt").write_bytes(certificate)
        secret = folder / "hook.secret"
        secret.write_text(f"{CANARY}-hook-secret-of-sixteen-bytes\n")
        secret.chmod(0o600)
        self.config_file = folder / "orchestrator.toml"
        self.config_file.write_text(self._settings(hook))

    @property
    def url(self) -> str:
        """Return where people ask."""
        return f"http://127.0.0.1:{self.http_port}"

    def host(self) -> str:
        """Return the name of a host that nobody has used yet."""
        return f"node-{next(self._names)}"

    def client(self, name: str | None = "ada", **options: Any) -> httpx2.Client:
        """Return a person's HTTP client; None has no credentials."""
        headers = {"Authorization": f"Bearer {token(name)}"} if name else {}
        return httpx2.Client(
            base_url=self.url, headers=headers, timeout=20, trust_env=False, verify=_NO_TLS, **options
        )

    def send(self, host: str, *bodies: Body, certificate_of: str | None = None) -> list[codec.Committed]:
        """Send reports of `host` in one batch, with the certificate of `certificate_of`."""
        numbers = self._sequences.setdefault(host, itertools.count(1))
        batch = codec.join([wired(body, next(numbers), host=host) for body in bodies])
        return self.send_bytes(certificate_of or host, batch)

    def send_bytes(self, certificate_of: str, *batches: bytes) -> list[codec.Committed]:
        """Send `batches` as they are; raise the error that the stream ends with."""
        with self.channel(self.authority.agent(certificate_of)) as channel:
            acks = channel.stream_stream(METHOD)(iter(batches), timeout=20)
            return [codec.decode_ack(ack) for ack in acks]

    @contextlib.contextmanager
    def channel(self, credentials: tuple[bytes, bytes] | None) -> Iterator[grpc.Channel]:
        """Yield a channel with this key and certificate."""
        key, certificate = credentials or (None, None)
        trusted = grpc.ssl_channel_credentials(
            self.authority.ca.read_bytes(), private_key=key, certificate_chain=certificate
        )
        options = (("grpc.enable_retries", 0),)
        with grpc.secure_channel(f"localhost:{self.grpc_port}", trusted, options) as channel:
            yield channel

    def opened(self, host: str | None = None, **fields: Any) -> dict[str, Any]:
        """Let a host report a case, and return its entry as the API shows it."""
        host = host or self.host()
        self.send(host, heartbeat(), case_report(**fields))
        return self.entry(host)

    def entry(self, host: str) -> dict[str, Any]:
        """Return the newest entry of a host."""
        with self.client("vera") as client:
            entries = client.get("/api/v1/queue", params={"state": "all", "limit": 1000}).json()["entries"]
        mine = [each for each in entries if each["host"] == host]
        assert mine, f"{host} has no entry"
        newest: dict[str, Any] = max(mine, key=lambda each: str(each["created_at"]))
        return newest

    def decide(self, entry: dict[str, Any], verb: str, *, by: str = "ada", **body: str) -> httpx2.Response:
        """Approve, reject or mark done `entry` as `by`; what was shown is what is approved."""
        asked: dict[str, str] = {} if verb == "done" else {"reason": "the test says so"}
        if verb == "approve":
            asked["digest"] = entry["digest"]
        with self.client(by) as client:
            return client.post(f"/api/v1/queue/{entry['id']}/{verb}", json=asked | body)

    def state(self, entry: dict[str, Any]) -> str:
        """Return in which state an entry is now."""
        with self.client("vera") as client:
            return str(client.get(f"/api/v1/queue/{entry['id']}").json()["state"])

    def audit(self, object_id: str | None = None) -> list[dict[str, Any]]:
        """Return the audit log's entries, of one object when it is named."""
        found: list[dict[str, Any]] = []
        with self.client("vera") as client:
            while True:
                after = found[-1]["number"] if found else 0
                page = client.get("/api/v1/audit", params={"after": after}).json()["entries"]
                if not page:
                    break
                found += page
        return [each for each in found if object_id in {None, each["object_id"]}]

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Read the database itself."""
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as database:
            return database.execute(query).fetchall()

    def _settings(self, hook: str) -> str:
        persons = "".join(
            f'[[person]]\nname = "{name}"\nrole = "{role}"\n'
            f'token_sha256 = "{hashlib.sha256(token(name).encode()).hexdigest()}"\n'
            for name, role in PEOPLE.items()
        )
        return (
            f'[grpc]\nlisten = "127.0.0.1:{self.grpc_port}"\nclients_ca = "{self.authority.ca}"\n'
            f'certificate = "{self.folder}/server.crt"\nkey = "{self.folder}/server.key"\n'
            f'[http]\nlisten = "127.0.0.1:{self.http_port}"\n[store]\npath = "{self.database}"\n'
            f'[approvals]\ntwo_person = ["{TWO_PERSON}"]\n'
            f'[notify]\nurl = "{self.url}"\nper_minute = 600\n'
            f'[[notify.webhook]]\nname = "hook"\nurl = "{hook}"\nsecret_file = "{self.folder}/hook.secret"\n'
            f'[[notify.route]]\nreceivers = ["hook"]\nseverity = "note"\n{persons}'
        )


@dataclass
class Standing:
    """An orchestrator in a process of its own; what it wrote is there when it has ended."""

    house: House
    pid: int
    said: str = ""


@contextlib.contextmanager
def standing(house: House) -> Iterator[Standing]:
    """Run the orchestrator of `house` as its own process until the block ends."""
    program = [sys.executable, "-m", "escalation.server", "serve", "--config", str(house.config_file)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        running = Standing(house, process.pid)
        try:
            for line in process.stdout:
                running.said += line
                if "orchestrator_ready" in line:
                    break
            assert process.poll() is None, running.said
            yield running
        finally:
            process.terminate()
            out, _ = process.communicate(timeout=30)
            running.said += out


class _Ready(Supervisor):
    def __init__(self, ready: threading.Event) -> None:
        super().__init__(address=None)
        self._ready = ready

    def notify(self, *lines: str) -> bool:
        if "READY=1" in lines:
            self._ready.set()
        return True


@contextlib.contextmanager
def living(house: House) -> Iterator[House]:
    """Run the orchestrator of `house` in a thread until the block ends."""
    ready, failed = threading.Event(), list[BaseException]()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    def serve() -> None:
        try:
            loop.run_until_complete(
                app.run(
                    config.load(house.config_file), clock=SystemClock(), supervisor=_Ready(ready), stop=stop
                )
            )
        except BaseException as error:  # noqa: BLE001 - handed to the test
            failed.append(error)
            ready.set()
        finally:
            loop.close()

    described = openapi.with_description

    def noted(rules: Sequence[Rule]) -> tuple[Rule, ...]:
        """Keep the whole table of routes, as the application is built from it."""
        house.rules = described(rules)
        return house.rules

    thread = threading.Thread(target=serve, name="orchestrator")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openapi, "with_description", noted)
        thread.start()
        assert ready.wait(20), "the orchestrator did not start"
    try:
        assert not failed, failed
        yield house
    finally:
        with contextlib.suppress(RuntimeError):  # it has ended already
            loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        assert not thread.is_alive()
        assert not failed, failed
