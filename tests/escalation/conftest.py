"""The real HTTP application over a working desk, served by uvicorn on loopback in a thread of its own."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from escalation.model import ActionKind
from escalation.server.decision.approval_desk import StoredApprovals
from escalation.server.decision.approvals import Policy
from escalation.server.decision.policies import ApprovalPolicy
from escalation.server.decision.signatures import Signatures
from escalation.server.incident.incident_desk import StoredIncidents
from escalation.server.metrics import ServerMetrics
from escalation.server.notify.notifier import Notifier
from escalation.server.notify.notifiers.registry import NotifySettings
from escalation.server.testing import FakeDesk
from escalation.server.web.access import Person, Role
from escalation.server.web.approval_routes import ApprovalRoutes
from escalation.server.web.attention_routes import AttentionRoutes
from escalation.server.web.http import build
from escalation.server.web.incident_routes import IncidentRoutes
from escalation.server.web.login.desk import LoginDesk
from escalation.server.web.login.passwords import Passwords
from escalation.server.web.login.person_routes import PersonRoutes
from escalation.server.web.login.settings import LoginSettings
from escalation.server.web.policy_routes import PolicyRoutes
from escalation.server.web.rule_routes import RuleRoutes
from escalation.signing.approvers import Approvers
from escalation.signing.sshsig import PLACES, Keygen
from tests.escalation.server.notifiers.told import Mailbox

T = TypeVar("T")

_POLICY = Policy(
    policies=(
        ApprovalPolicy(
            name="sparks",
            kinds=(ActionKind.RESTART_UNIT,),
            host="spark-*",
            approvers=("admin",),
            two_person=True,
        ),
    )
)
"""What `policy test` is asked about; decisions are not taken by it."""


@dataclass(frozen=True, slots=True)
class Served:
    """A running server: `call` runs a coroutine of the desk where the desk lives.

    Whose signatures it takes stands in `trusted`, which a test may change.
    """

    url: str
    desk: FakeDesk
    metrics: ServerMetrics
    tokens: dict[str, str]
    loop: asyncio.AbstractEventLoop
    trusted: list[Approvers]

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout=20)


class Hall:
    """One server for every test, because starting and ending one takes longer than most of them.

    Which application answers is each test's own.
    """

    def __init__(self) -> None:
        self.app: Starlette | None = None
        self.started = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(
            self._answer,
            interface="asgi3",
            log_config=None,
            lifespan="off",
            timeout_graceful_shutdown=1,
            ws="none",
        )
        self._server = uvicorn.Server(config)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    async def serve(self) -> None:
        """Answer until `leave`."""
        self.loop = asyncio.get_running_loop()
        self.loop.call_soon(self.started.set)
        await self._server.serve(sockets=[self._listener])

    async def emptied(self) -> None:
        """Let nobody in any more, and end what still goes on."""
        self.app = None
        tasks = self._server.server_state.tasks
        if tasks:
            await asyncio.wait(tasks, timeout=1)
        for task in tasks:
            task.cancel()

    def leave(self) -> None:
        """End the server."""
        self._server.should_exit = True

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None, "asked while no test serves anything"
        await self.app(scope, receive, send)


@pytest.fixture(scope="session")
def hall() -> Iterator[Hall]:
    """A server in a thread of its own."""
    held = Hall()
    thread = threading.Thread(target=lambda: asyncio.run(held.serve()), name="served")
    thread.start()
    assert held.started.wait(10)
    yield held
    held.leave()
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture
def served(hall: Hall) -> Iterator[Served]:
    # The server shares this process with the command line under test: its log must not look like output.
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    metrics = ServerMetrics()
    trusted = [Approvers()]
    signatures = Signatures(read=lambda: trusted[0], keygen=Keygen(PLACES[0]))
    desk = FakeDesk(signatures=signatures)
    tokens = {role.value: f"token-of-{role.value}" for role in Role}
    persons = [
        Person(
            name=role.value, role=role, token_sha256=hashlib.sha256(tokens[role.value].encode()).hexdigest()
        )
        for role in Role
    ]
    notifier = Notifier(
        store=desk.store,
        clock=desk.clock,
        settings=NotifySettings(),
        receivers=(Mailbox(),),
        metrics=metrics,
    )
    login = LoginDesk(
        store=desk.store,
        clock=desk.clock,
        settings=LoginSettings(),
        persons=persons,
        metrics=metrics,
        passwords=Passwords(),
        origin="https://desk.example",
    )
    app = build(
        desk=desk,
        persons=persons,
        metrics=metrics,
        ready=lambda: True,
        clock=desk.clock,
        notices=notifier,
        more=(
            *ApprovalRoutes(desk=StoredApprovals(store=desk.store, policy=Policy())).rules,
            *AttentionRoutes(desk=desk.attention).rules,
            *IncidentRoutes(desk=StoredIncidents(store=desk.store, clock=desk.clock)).rules,
            *PersonRoutes(desk=login).rules,
            *PolicyRoutes(policy=_POLICY, persons=lambda: persons).rules,
            *RuleRoutes(desk=desk.rules).rules,
        ),
        visitors=login,
    )
    hall.app = app
    yield Served(hall.url, desk, metrics, tokens, hall.loop, trusted)
    asyncio.run_coroutine_threadsafe(hall.emptied(), hall.loop).result(timeout=10)
    structlog.reset_defaults()
