"""nanobot-orchestrator: serve, or check the configuration."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import sys
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

import click
import structlog

from escalation.server import app, config
from escalation.server.clock import SystemClock
from escalation.server.storage import stores
from escalation.server.storage.store import StoreError
from escalation.server.supervision import Supervisor
from escalation.settings import SettingsError
from escalation.signing import sshsig
from escalation.signing.approvers import ApproversError
from escalation.signing.sshsig import KeygenError
from escalation.wire import credentials

_FILE = click.Path(dir_okay=False, path_type=Path)
_PENDING: Final = 3
"""What `migrate --check` exits with when there is something to do."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="host-nanobot")
def main() -> None:
    """Collect what the fleet's agents report, recommend what to do, and wait for a person's decision."""


@main.command()
@click.option("--config", "path", type=_FILE, required=True, help="orchestrator.toml")
def serve(path: Path) -> None:
    """Serve agents and people until SIGTERM or SIGINT."""
    _log_to_stderr()
    try:
        asyncio.run(_serve(config.load(path)))
    except (SettingsError, StoreError, credentials.CredentialsError, app.StartError) as error:
        _fail(str(error))


@main.command("check-config")
@click.argument("path", type=_FILE)
def check_config(path: Path) -> None:
    """Say whether the configuration can be used, and what is wrong with it if not."""
    try:
        loaded = config.load(path)
        credentials.read(loaded.grpc.files())
        loaded.notify.build()
        if loaded.approvals.signing.read() is not None:
            sshsig.find()
    except (SettingsError, credentials.CredentialsError, ValueError) as error:
        _fail(str(error))
    except (ApproversError, KeygenError) as error:
        _fail(f"approvals.signing: {error}")
    click.echo(f"{path}: can be used")
    if not loaded.person:
        click.echo(f"{path}: has no [[person]], so nobody can look at the queue or decide")


@main.command()
@click.option("--config", "path", type=_FILE, required=True, help="orchestrator.toml")
@click.option(
    "--check", is_flag=True, help="only say how it stands: exit code 3 when there is something to do"
)
@click.option(
    "--backup", "folder", type=click.Path(file_okay=False, path_type=Path), help="where the copy goes"
)
@click.option("--no-backup", is_flag=True, help="change the database without a copy of it")
def migrate(path: Path, folder: Path | None, *, check: bool, no_backup: bool) -> None:
    """Bring the database up to date, after a copy of it; nothing is ever brought back to an older version."""
    try:
        settings = config.load(path).store
        if check:
            standing = stores.standing(settings)
            click.echo(f"{standing.name}: {_stands(standing)}")
            if standing.pending:
                sys.exit(_PENDING)
            return
        into = folder or settings.path.parent
        before, copy = stores.migrate(settings, copy_to=None if no_backup else partial(_copy_in, into))
    except (SettingsError, StoreError) as error:
        _fail(str(error))
    if copy is not None:
        click.echo(f"{before.name}: the copy of version {before.version} is {copy}")
    click.echo(f"{before.name}: {_stands(before)}{', done' if before.pending else ''}")


def _stands(standing: stores.Standing) -> str:
    if not standing.pending:
        return f"version {standing.version}, nothing to do"
    return f"from version {standing.version} to {standing.newest}"


def _copy_in(folder: Path, version: int) -> Path:
    now = dt.datetime.now(dt.UTC)
    return folder / f"orchestrator-version-{version}-{now:%Y%m%dT%H%M%SZ}.backup"


async def _serve(loaded: config.Config) -> None:
    stop = asyncio.Event()
    with app.stop_on_signals(stop):
        await app.run(loaded, clock=SystemClock(), supervisor=Supervisor.from_environment(), stop=stop)


def _log_to_stderr() -> None:
    """One line of JSON per event, for the journal; colour and columns when a person looks on."""
    person = sys.stderr.isatty()
    shown = structlog.dev.ConsoleRenderer() if person else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            shown,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)


def _fail(message: str) -> NoReturn:
    click.echo(f"nanobot-orchestrator: {message}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
