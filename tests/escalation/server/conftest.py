"""A real orchestrator in this process, its HTTP application over a fake desk, and databases of both kinds."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dev import postgres
from escalation.server import app, config
from escalation.server.clock import SystemClock
from tests.escalation.server.databases import Database
from tests.escalation.server.site import Authority, Ready, Site, written
from tests.escalation.server.web_house import House, built

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def cluster() -> Iterator[postgres.Cluster]:
    """A PostgreSQL server that lives as long as the tests; whoever asks for it has the marker."""
    with postgres.cluster() as running_cluster:
        yield running_cluster


@pytest.fixture
def shared(cluster: postgres.Cluster) -> Database:
    """An empty database on that server."""
    return Database(cluster.create(f"test_{next(_NUMBERS)}"))


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """An empty database of each kind, one after the other."""
    if request.param == "sqlite":
        return Database(tmp_path / "orchestrator.db")
    found = request.getfixturevalue("shared")
    assert isinstance(found, Database)
    return found


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that lives as long as the tests."""
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def site(authority: Authority, tmp_path: Path) -> Site:
    """Files and ports of one orchestrator that is not started yet."""
    database = tmp_path / "store" / "orchestrator.db"
    return written(authority, tmp_path, store=f'path = "{database}"', database=database)


@asynccontextmanager
async def running(site: Site) -> AsyncIterator[None]:
    """Run an orchestrator in this process while inside."""
    stop, ready = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(
        app.run(config.load(site.config_file), clock=SystemClock(), supervisor=Ready(ready), stop=stop)
    )
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if serving.done():
        serving.result()
    try:
        yield
    finally:
        stop.set()
        await serving


@pytest.fixture
async def orchestrator(site: Site) -> AsyncIterator[Site]:
    """A running orchestrator."""
    async with running(site):
        yield site


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """The HTTP application over a fake desk."""
    async with built() as found:
        yield found
