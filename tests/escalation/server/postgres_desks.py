"""Stores and desks of several processes on one PostgreSQL database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from dev import postgres
from escalation.server.decision.approvals import Policy
from escalation.server.service import Service
from escalation.server.storage.postgres_settings import PostgresSettings
from escalation.server.storage.postgres_store import PostgresStore
from escalation.server.testing import ManualClock
from tests.escalation.server.databases import Database

SETTINGS = PostgresSettings()


def info_of(database: Database) -> str:
    assert isinstance(database.where, str)
    return database.where


@asynccontextmanager
async def opened(database: Database, count: int = 2) -> AsyncIterator[list[PostgresStore]]:
    """Open as many stores as processes would."""
    found = [PostgresStore(info=info_of(database), settings=SETTINGS) for _ in range(count)]
    try:
        yield found
    finally:
        for each in found:
            await each.close()


def desk_of(store: PostgresStore, clock: ManualClock | None = None) -> Service:
    return Service(store=store, clock=clock or ManualClock(), policy=Policy())


def end_connections(cluster: postgres.Cluster, database: Database) -> None:
    name = psycopg.conninfo.conninfo_to_dict(info_of(database))["dbname"]
    with psycopg.connect(cluster.info("postgres"), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", (name,)
        )
