"""Doors for races: the real service and its HTTP application, each in a thread with a loop of its own.

Several doors on one database are several orchestrators as far as the database can tell; what runs against
them runs at the same time, over real sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import uvicorn

from escalation.server.decision.approvals import Policy
from escalation.server.metrics import ServerMetrics
from escalation.server.notify.notices import Happening
from escalation.server.notify.notifier import Notifier
from escalation.server.notify.notifiers.registry import NotifySettings
from escalation.server.service import Service
from escalation.server.storage.stores import OpenStore
from escalation.server.testing import ManualClock
from escalation.server.web.access import Person, Role
from escalation.server.web.http import build
from tests.escalation.server.databases import Database
from tests.escalation.server.notifiers.told import Mailbox

T = TypeVar("T")

PERSONS = ("ada", "grace", "kim")
PAGER = "pager"


class _Everything:
    """Tells the pager of everything, at once."""

    def receivers(self, happening: Happening, *, now_ns: int) -> list[tuple[str, int]]:
        assert happening.incident is not None
        return [(PAGER, now_ns)]


@dataclass(frozen=True, slots=True)
class Door:
    """One orchestrator: where people ask it, and how to run work where it lives."""

    url: str
    service: Service
    notifier: Notifier
    store: OpenStore
    loop: asyncio.AbstractEventLoop

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in this orchestrator's loop, from another one."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))


@contextlib.contextmanager
def door(database: Database, *, clock: ManualClock, policy: Policy, mailbox: Mailbox) -> Iterator[Door]:
    """Open an orchestrator on `database` until the block ends; its time is `clock`."""
    opened, ended = threading.Event(), threading.Event()
    found: list[Door] = []
    failed: list[BaseException] = []

    async def serve() -> None:
        metrics, routing = ServerMetrics(), _Everything()
        store = database.open()
        service = Service(store=store, clock=clock, policy=policy, metrics=metrics, routing=routing)
        notifier = Notifier(
            store=store,
            clock=clock,
            settings=NotifySettings(per_minute=600),
            receivers=(mailbox,),
            metrics=metrics,
            routing=routing,
        )
        await service.prepare()
        persons = [
            Person(name=name, role=Role.OPERATOR, token_sha256=hashlib.sha256(name.encode()).hexdigest())
            for name in PERSONS
        ]
        app = build(desk=service, persons=persons, metrics=metrics, ready=service.ready, clock=clock)
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
            server = uvicorn.Server(
                uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1, ws="none")
            )
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            found.append(Door(url, service, notifier, store, asyncio.get_running_loop()))
            opened.set()
            await asyncio.to_thread(ended.wait)
            server.should_exit = True
            await serving
        await store.close()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 - handed to the test
            failed.append(error)
        finally:
            opened.set()

    thread = threading.Thread(target=run, name="door")
    thread.start()
    try:
        assert opened.wait(20)
        assert not failed, failed
        yield found[0]
    finally:
        ended.set()
        thread.join(20)
        assert not failed, failed
        assert not thread.is_alive()
