"""Connections to PostgreSQL that break, wait and lose answers: nothing is lost, and nothing is done twice."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from dev import postgres
from escalation.server import steps
from escalation.server.storage.postgres_store import PostgresStore
from escalation.server.storage.sql_ledger import SqlLedger
from escalation.server.storage.store import Ledger
from escalation.server.testing import case_report
from tests.escalation.server.databases import Database
from tests.escalation.server.deliveries import delivery_of
from tests.escalation.server.postgres_desks import SETTINGS, desk_of, end_connections, info_of, opened

pytestmark = pytest.mark.postgres


async def test_a_connection_that_breaks_loses_nothing_and_nobody_notices(
    shared: Database, cluster: postgres.Cluster
) -> None:
    """Writer and readers are ended by the server: the next write and read come from new connections."""
    async with opened(shared, 1) as (store,):
        desk = desk_of(store)
        await desk.receive(delivery_of(1))
        await desk.queue(None)
        end_connections(cluster, shared)
        await desk.receive(delivery_of(2, case_report(case_id="case-2")))
        assert len(await desk.queue(None)) == 1
        assert store.ready()
        assert store.failures == 0


async def test_work_is_run_again_when_the_connection_breaks_in_its_midst(
    shared: Database, cluster: postgres.Cluster
) -> None:
    """What the first run wrote is undone with its connection, and the second run is kept, once."""
    runs: list[int] = []

    def work(ledger: Ledger) -> None:
        steps.note(ledger, actor="ada", verb="x", object_id="y", detail="z", now_ns=1)
        runs.append(1)
        if len(runs) == 1:
            end_connections(cluster, shared)

    async with opened(shared, 1) as (store,):
        await store.write(work)
        chain = await store.read(lambda ledger: ledger.audit(after=0, limit=10))
        assert len(runs) == 2
        assert [each.number for each in chain] == [1]


@pytest.mark.parametrize("state", ["40P01", "40001"])
async def test_work_that_was_in_anothers_way_is_run_again(shared: Database, state: str) -> None:
    """A deadlock or a failed serialization undoes the first run, and the second one is kept, once."""
    runs: list[int] = []

    def work(ledger: Ledger) -> None:
        steps.note(ledger, actor="ada", verb="x", object_id="y", detail="z", now_ns=1)
        runs.append(1)
        if len(runs) == 1:
            assert isinstance(ledger, SqlLedger)
            ledger.database.execute(f"DO $$ BEGIN RAISE EXCEPTION 'way' USING ERRCODE = '{state}'; END $$")

    async with opened(shared, 1) as (store,):
        await store.write(work)
        chain = await store.read(lambda ledger: ledger.audit(after=0, limit=10))
        assert (len(runs), [each.number for each in chain]) == (2, [1])
        assert (store.ready(), store.failures) == (True, 0)


class _Proxy:
    """Stands between a store and the server, and can swallow a COMMIT or the answer to it."""

    def __init__(self, folder: Path, server: Path) -> None:
        self._server = str(server / ".s.PGSQL.5432")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._listener.listen()
        self.swallow: str | None = None
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._threads:
            each.join(5)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._server)
            answers = threading.Thread(target=self._pump, args=(server, client), daemon=True)
            answers.start()
            while data := _receive(client):
                if b"COMMIT\0" in data and self.swallow is not None:
                    swallow, self.swallow = self.swallow, None
                    if swallow == "answer":
                        client.shutdown(socket.SHUT_RDWR)
                        server.sendall(data)
                        server.shutdown(socket.SHUT_WR)
                    break
                server.sendall(data)
            client.close()
            if _alive(server):
                server.shutdown(socket.SHUT_WR)
            answers.join(5)

    @staticmethod
    def _pump(source: socket.socket, to: socket.socket) -> None:
        while data := _receive(source):
            try:
                to.sendall(data)
            except OSError:
                continue


def _receive(source: socket.socket) -> bytes:
    try:
        return source.recv(65536)
    except OSError:
        return b""


def _alive(link: socket.socket) -> bool:
    try:
        link.getpeername()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("swallowed", ["answer", "commit"])
async def test_a_commit_without_an_answer_is_found_out(
    shared: Database, cluster: postgres.Cluster, tmp_path: Path, swallowed: str
) -> None:
    """Whether it was kept or not, the decision is there once, and whoever took it is told so."""
    proxy = _Proxy(tmp_path, cluster.folder)
    info = info_of(shared).replace(str(cluster.folder), str(tmp_path))
    store = PostgresStore(info=info, settings=SETTINGS)
    runs: list[int] = []

    def work(ledger: Ledger) -> str:
        runs.append(1)
        steps.note(ledger, actor="ada", verb="x", object_id="y", detail="z", now_ns=1)
        return "kept"

    try:
        proxy.swallow = swallowed
        assert await store.write(work) == "kept"
        assert proxy.swallow is None
        chain = await store.read(lambda ledger: ledger.audit(after=0, limit=10))
        assert [each.number for each in chain] == [1]
        assert len(runs) == (1 if swallowed == "answer" else 2)
        assert (await store.elsewhere()).changed == ()
    finally:
        await store.close()
        proxy.close()
