"""The OpenAPI document of the whole application, as app.py wires it, over a ledger in memory."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import httpx2

from escalation.server import app
from escalation.server.config import Config, GrpcSettings
from escalation.server.metrics import ServerMetrics
from escalation.server.notify.notice_desk import NoReceivers
from escalation.server.testing import FakeDesk
from escalation.server.web import openapi
from escalation.server.web.access import Person, Role

_TOKEN = "whoever-generates"


def page() -> str:
    """Return what the application answers to who asks for its description, indented."""
    return json.dumps(asyncio.run(_answer()), indent=1) + "\n"


async def _answer() -> Any:
    desk, nowhere = FakeDesk(), Path("/nonexistent")
    reader = Person(name="make", role=Role.VIEWER, token_sha256=hashlib.sha256(_TOKEN.encode()).hexdigest())
    config = Config(grpc=GrpcSettings(certificate=nowhere, key=nowhere, clients_ca=nowhere), person=(reader,))
    application = app.application(
        config,
        store=desk.store,
        service=desk.service,
        notices=NoReceivers(),
        metrics=ServerMetrics(),
        clock=desk.clock,
    )
    transport = httpx2.ASGITransport(app=application)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        answer = await client.get(openapi.PATH, headers={"Authorization": f"Bearer {_TOKEN}"})
    return answer.raise_for_status().json()
