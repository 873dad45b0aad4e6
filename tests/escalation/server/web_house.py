"""The HTTP application over a fake desk, asked by a person of each role."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx2
from starlette.applications import Starlette

from escalation.server.decision.approval_desk import StoredApprovals
from escalation.server.decision.approvals import Policy
from escalation.server.incident.incident_desk import StoredIncidents
from escalation.server.metrics import ServerMetrics
from escalation.server.testing import FakeDesk, ManualClock
from escalation.server.web.access import Person, Role
from escalation.server.web.approval_routes import ApprovalRoutes
from escalation.server.web.attention_routes import AttentionRoutes
from escalation.server.web.http import build
from escalation.server.web.incident_routes import IncidentRoutes
from escalation.server.web.policy_routes import PolicyRoutes
from escalation.server.web.rule_routes import RuleRoutes

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e\u200b\n'\"&"
ROLES = {"scraper": Role.SCRAPER, "viewer": Role.VIEWER, "operator": Role.OPERATOR}


def token(name: str) -> str:
    return f"token-of-{name}"


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(name)}"}


def person(name: str) -> Person:
    return Person(name=name, role=ROLES[name], token_sha256=hashlib.sha256(token(name).encode()).hexdigest())


@dataclass
class House:
    desk: FakeDesk
    app: Starlette
    metrics: ServerMetrics
    clock: ManualClock
    client: httpx2.AsyncClient
    ready: list[bool]

    async def get(self, path: str, *, as_: str = "viewer", **headers: str) -> httpx2.Response:
        return await self.client.get(path, headers=bearer(as_) | headers)

    async def post(
        self, path: str, body: object, *, as_: str = "operator", **headers: str
    ) -> httpx2.Response:
        return await self.client.post(path, json=body, headers=bearer(as_) | headers)


@contextlib.asynccontextmanager
async def built() -> AsyncIterator[House]:
    desk = FakeDesk()
    metrics = ServerMetrics()
    ready = [True]
    app = build(
        desk=desk,
        persons=[person(name) for name in ROLES],
        metrics=metrics,
        ready=lambda: ready[0],
        clock=desk.clock,
        hosts=frozenset({"queue.example"}),
        more=(
            *ApprovalRoutes(desk=StoredApprovals(store=desk.store, policy=Policy())).rules,
            *AttentionRoutes(desk=desk.attention).rules,
            *IncidentRoutes(desk=StoredIncidents(store=desk.store, clock=desk.clock)).rules,
            *PolicyRoutes(policy=Policy(), persons=lambda: [person(name) for name in ROLES]).rules,
            *RuleRoutes(desk=desk.rules).rules,
        ),
    )
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:9737") as client:
        yield House(desk, app, metrics, desk.clock, client, ready)
