"""nanobot-orchestrator migrate: forward only, with a copy before, on both kinds of database."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result

from dev import postgres
from escalation.server.__main__ import main
from escalation.server.storage import postgres_migration, sqlite_file
from escalation.server.storage.postgres_settings import PostgresSettings
from escalation.server.storage.store import StoreError, StoreUnavailable
from tests.escalation.server.databases import Database
from tests.escalation.server.site import Site


@pytest.fixture
def config_file(site: Site, database: Database) -> Path:
    """A configuration that names the database of this test."""
    text = site.config_file.read_text()
    where = f'path = "{database.where}"'
    if database.shared:
        where = f'path = "{site.database}"\npostgres = "{database.where}"'
    site.config_file.write_text(text.replace(f'path = "{site.database}"', where))
    return site.config_file


def _migrate(config_file: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["migrate", "--config", str(config_file), *options])


async def test_makes_the_schema_once(config_file: Path, database: Database) -> None:
    """An empty database has something to do, which --check only says; afterwards it has not."""
    checked = _migrate(config_file, "--check")
    assert (checked.exit_code, "from version 0 to" in checked.output) == (3, True)
    assert _migrate(config_file, "--check").exit_code == 3, "nothing was changed by looking"
    made = _migrate(config_file)
    assert made.exit_code == 0, made.output
    assert "copy" not in made.output
    assert "nothing to do" in _migrate(config_file, "--check").output
    assert "nothing to do" in _migrate(config_file).output
    store = database.open()
    assert await store.read(lambda ledger: ledger.hosts()) == []
    await store.close()


async def test_refuses_a_newer_database(config_file: Path, database: Database) -> None:
    """Nothing is brought back to an older version."""
    await database.open().close()
    if isinstance(database.where, Path):
        connection = sqlite3.connect(database.where)
        connection.execute("PRAGMA user_version = 9")
        connection.close()
    else:
        with psycopg.connect(database.where) as shared:
            shared.execute("UPDATE orchestrator SET version = 9")
    for options in ((), ("--check",)):
        refused = _migrate(config_file, *options)
        assert refused.exit_code == 1
        assert "version 9, and this program knows" in refused.output


def test_copies_an_older_file_before_it_is_changed(site: Site) -> None:
    """The copy is the database as it was, for its owner alone, and its name is told."""
    site.database.parent.mkdir()
    connection = sqlite_file.connect(site.database)
    first = sqlite_file.migrations()[0]
    connection.executescript(
        f"PRAGMA application_id = {sqlite_file.APPLICATION_ID}; {first} PRAGMA user_version = 1;"
    )
    connection.close()
    migrated = _migrate(site.config_file)
    assert migrated.exit_code == 0, migrated.output
    (copy,) = site.database.parent.glob("orchestrator-version-1-*.backup")
    assert str(copy) in migrated.output
    assert copy.stat().st_mode & 0o777 == 0o600
    for path, version in ((copy, 1), (site.database, len(sqlite_file.migrations()))):
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA user_version").fetchone() == (version,)
        connection.close()


def test_leaves_a_file_alone_that_is_in_use(site: Site) -> None:
    """An orchestrator that runs holds the lock, and the command says so."""
    with sqlite_file.locked(site.database):
        refused = _migrate(site.config_file)
    assert refused.exit_code == 1
    assert "another orchestrator is using it" in refused.output


@pytest.mark.postgres
def test_a_shared_database_is_copied_and_taken_further(
    shared: Database, cluster: postgres.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that fails leaves the version before it; one that works is seen; the copy can be restored."""
    assert isinstance(shared.where, str)
    monkeypatch.setenv("PATH", f"{cluster.programs}:{os.environ['PATH']}")
    scripts = postgres_migration.migrations()
    postgres_migration.migrate(shared.where, PostgresSettings(), None)
    with psycopg.connect(shared.where, autocommit=True) as connection:
        broken = [*scripts, "CREATE TABLE later (x integer); SELECT 1 / 0"]
        with pytest.raises(psycopg.errors.DivisionByZero):
            postgres_migration.apply(connection, "it", scripts=broken)
        assert postgres_migration.version_of(connection, "it") == len(scripts)
        assert connection.execute("SELECT to_regclass('later')").fetchone() == (None,)
        copy = tmp_path / "copy"
        postgres_migration.dump(shared.where, "it", copy)
        assert copy.stat().st_mode & 0o777 == 0o600
        assert copy.read_bytes().startswith(b"PGDMP")
        further = [*scripts, "CREATE TABLE later (x integer)"]
        assert postgres_migration.apply(connection, "it", scripts=further) == len(scripts)
        assert postgres_migration.version_of(connection, "it") == len(scripts) + 1


def test_half_a_copy_is_none(tmp_path: Path) -> None:
    """A copy that could not be finished is not left there for one, and a folder that is missing is named."""
    connection = sqlite3.connect(tmp_path / "some.db", isolation_level=None)
    connection.execute("BEGIN")
    with pytest.raises(sqlite3.OperationalError):
        sqlite_file.copy(connection, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    connection.close()
    with pytest.raises(StoreUnavailable, match="none/copy: No such file"):
        sqlite_file.copy(connection, tmp_path / "none" / "copy")


@pytest.mark.postgres
def test_a_copy_that_cannot_be_made_changes_nothing(
    shared: Database, cluster: postgres.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is missing and a program that is none are named, and nothing is left for a copy."""
    assert isinstance(shared.where, str)
    monkeypatch.setenv("PATH", str(cluster.programs))
    with pytest.raises(StoreError, match="none/copy: No such file"):
        postgres_migration.migrate(shared.where, PostgresSettings(), tmp_path / "none" / "copy")
    (tmp_path / "pg_dump").write_text("no program")
    (tmp_path / "pg_dump").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StoreError, match=r"copy PostgreSQL .* cannot be run"):
        postgres_migration.migrate(shared.where, PostgresSettings(), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    with psycopg.connect(shared.where) as connection:
        assert postgres_migration.version_of(connection, "it") == 0


@pytest.mark.postgres
def test_without_pg_dump_it_says_what_to_do(
    shared: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is changed without a copy unless the operator says so."""
    assert isinstance(shared.where, str)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StoreError, match="--no-backup"):
        postgres_migration.dump(shared.where, "it", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ("postgresql://ada:hunter2@db/nanobot", "holds a password"),
        ("host=db password=hunter2", "holds a password"),
        ("postgresql://db:hunter2/nanobot", ""),
        ("host=db password='hunter2", "is no connection string"),
        ("hunter2", "is no connection string"),
    ],
)
def test_a_password_in_the_configuration_is_refused_and_not_repeated(
    site: Site, info: str, said: str
) -> None:
    """Neither a good connection string with a password nor a broken one is quoted."""
    text = site.config_file.read_text().replace("[store]", f'[store]\npostgres = "{info}"')
    site.config_file.write_text(text)
    refused = _migrate(site.config_file, "--check")
    assert refused.exit_code == 1
    assert said in refused.output
    assert "hunter2" not in refused.output
