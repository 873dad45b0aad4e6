"""Runs nanobot-mcp: reads its settings, makes sure that its token can only read, and serves."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from escalation import settings
from escalation.assistant.reader import Reader, ReadError
from escalation.cli.connection import Connection, CtlSettings, connect
from escalation.cli.errors import CtlError, ExitCode
from escalation.release import VERSION


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="url, token_file, ca_file; as ctl.toml."
)
@click.option("--url", metavar="URL", help="The orchestrator's address, as http://127.0.0.1:9737.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The token of a person with role viewer.",
)
def nanobot_mcp(*, config: Path | None, url: str | None, token_file: Path | None) -> int:
    """Let an assistant read the queue, over the Model Context Protocol on standard input and output.

    It can decide nothing: a token of another role than viewer is refused at the start.
    """
    return asyncio.run(_serve(_connection(config, url, token_file)))


async def _serve(connection: Connection) -> int:
    try:
        from escalation.assistant import server  # noqa: PLC0415 - an extra, and its absence has a sentence
    except ModuleNotFoundError as error:
        raise CtlError(
            f"the library {error.name} is not here",
            advice="install the extra mcp, from a clone: pip install '.[mcp]'",
        ) from error
    async with Reader(connection) as reader:
        try:
            me = await reader.readable()
        except ReadError as error:
            raise CtlError(str(error), code=ExitCode.REFUSED) from error
        click.echo(f"nanobot-mcp: reading as {me.name}", err=True)
        await server.serve(reader, version=VERSION)
    return ExitCode.DONE


def _connection(config: Path | None, url: str | None, token_file: Path | None) -> Connection:
    if config is not None and url is None and token_file is None:
        try:
            return connect(settings.load(config, CtlSettings), beside=config.parent)
        except settings.SettingsError as error:
            raise CtlError(str(error), code=ExitCode.USAGE) from error
    if config is None and url and token_file:
        return connect(CtlSettings(url=url, token_file=str(token_file)), beside=Path.cwd())
    raise CtlError("give --config, or --url and --token-file", code=ExitCode.USAGE)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run it and return the exit code; what went wrong is a line or two on standard error."""
    try:
        result = nanobot_mcp.main(args=arguments, prog_name="nanobot-mcp", standalone_mode=False)
    except CtlError as error:
        for line in (str(error), error.advice):
            if line:
                click.echo(f"nanobot-mcp: {line}", err=True)
        return error.code
    except click.ClickException as error:
        click.echo(f"nanobot-mcp: {error.format_message()}", err=True)
        return ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.FAILED
    return result if isinstance(result, int) else ExitCode.DONE


def main() -> None:
    """Run and exit with the code."""
    sys.exit(run())


if __name__ == "__main__":
    main()
