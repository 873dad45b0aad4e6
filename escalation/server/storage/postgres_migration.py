"""The schema of the shared database: its version, the steps to the newest one, and a copy before them."""

from __future__ import annotations

import importlib.resources
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import psycopg

from escalation.server.storage import postgres_connection
from escalation.server.storage.postgres_connection import LOCKS, MIGRATE, WRITE
from escalation.server.storage.postgres_settings import PostgresSettings
from escalation.server.storage.store import StoreCorrupt, StoreError, StoreTooNew, StoreTooOld

_MIGRATION: Final = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_DUMP_S: Final = 3600.0


def migrations() -> list[str]:
    """Return the scripts in order; a hole in their numbers is a packaging fault."""
    folder = importlib.resources.files("escalation.server.storage") / "migrations" / "postgres"
    found = {
        int(matched[1]): each.read_text(encoding="utf-8")
        for each in folder.iterdir()
        if (matched := _MIGRATION.fullmatch(each.name))
    }
    numbers = sorted(found)
    if numbers != list(range(1, len(numbers) + 1)):
        raise StoreError(f"the migrations are not numbered without a hole: {numbers}")
    return [found[number] for number in numbers]


def version_of(connection: psycopg.Connection[tuple[Any, ...]], name: str) -> int:
    """Return the schema's version, 0 for an empty database; raise StoreCorrupt for somebody else's."""
    encoding = connection.execute("SHOW server_encoding").fetchone()
    if encoding is None or encoding[0] != "UTF8":
        raise StoreError(f"open {name}: its encoding has to be UTF8")
    ours = connection.execute("SELECT to_regclass('orchestrator')").fetchone()
    if ours is not None and ours[0] is not None:
        try:
            row = connection.execute("SELECT version FROM orchestrator").fetchone()
        except psycopg.ProgrammingError as error:
            raise StoreCorrupt(f"open {name}: this is not an orchestrator's database") from error
        if row is None:
            raise StoreCorrupt(f"open {name}: it does not say which version it is")
        return int(row[0])
    others = connection.execute(
        "SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace "
        "AND relkind IN ('r', 'p', 'v', 'm')"
    ).fetchone()
    if others is not None and others[0]:
        raise StoreCorrupt(f"open {name}: this is not an orchestrator's database")
    return 0


def check_version(version: int, newest: int, name: str) -> None:
    """Raise StoreTooNew or StoreTooOld unless `version` is the one that this program works on."""
    if version > newest:
        raise StoreTooNew(
            f"open {name}: its schema is version {version}, and this program knows {newest} at most; "
            "run the newer orchestrator that wrote it, or restore the copy made before the upgrade"
        )
    if version < newest:
        raise StoreTooOld(
            f"open {name}: its schema is version {version}, and this program needs {newest}; stop every "
            "orchestrator that uses it and run nanobot-orchestrator migrate"
        )


def apply(
    connection: psycopg.Connection[tuple[Any, ...]],
    name: str,
    *,
    scripts: Sequence[str],
    only_if_empty: bool = False,
) -> int:
    """Bring the schema up to date in one transaction, one process at a time; return its version before."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCKS, MIGRATE))
        before = version_of(connection, name)
        if before > len(scripts) or (only_if_empty and before):
            check_version(before, len(scripts), name)
        if before == len(scripts):
            return before
        # No orchestrator writes while the tables change below it.
        connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCKS, WRITE))
        for script in scripts[before:]:
            connection.execute(script, prepare=False)
        connection.execute("UPDATE orchestrator SET version = %s", (len(scripts),))
    return before


def dump(info: str, name: str, to: Path) -> None:
    """Copy the database into the file `to` with pg_dump; raise StoreError."""
    program = shutil.which("pg_dump")
    if program is None:
        raise StoreError(
            "pg_dump is not here to copy the database before it is changed: install PostgreSQL's client "
            "programs, or copy it yourself and say --no-backup"
        )
    try:
        to.touch(mode=0o600, exist_ok=False)
    except OSError as error:
        raise StoreError(f"copy to {to}: {error.strerror}") from error
    try:
        made = subprocess.run(
            [program, "--format=custom", "--no-password", f"--file={to}", f"--dbname={info}"],
            check=False,
            capture_output=True,
            timeout=_DUMP_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        to.unlink(missing_ok=True)
        raise StoreError(f"copy {name}: {program} cannot be run, or did not end in time") from error
    if made.returncode:
        to.unlink(missing_ok=True)
        said = made.stderr.decode(errors="replace").strip().splitlines()
        raise StoreError(f"copy {name}: {said[0] if said else 'pg_dump failed'}")


def standing(info: str, settings: PostgresSettings) -> tuple[str, int, int]:
    """Return the database's name, its schema's version (0: empty) and the newest; raise a StoreError."""
    name = postgres_connection.name_of(info)
    try:
        with postgres_connection.connect(info, settings) as connection:
            return name, version_of(connection, name), len(migrations())
    except psycopg.Error as error:
        raise postgres_connection.explained(error, "open", name) from error


def migrate(info: str, settings: PostgresSettings, copy: Path | None) -> None:
    """Bring the schema up to date, after a copy into the file `copy`; raise a StoreError."""
    name = postgres_connection.name_of(info)
    if copy is not None:
        dump(info, name, copy)
    try:
        with postgres_connection.connect(info, settings) as connection:
            apply(connection, name, scripts=migrations())
    except psycopg.Error as error:
        raise postgres_connection.explained(error, "migrate", name) from error
