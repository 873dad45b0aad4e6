"""The command line as a whole: options before the command, the commands, completion, exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from escalation.cli.attention import ack, answer, ask, release, snooze
from escalation.cli.audit import audit
from escalation.cli.decisions import approve, command, done, queue, reject, show
from escalation.cli.errors import CtlError, ExitCode
from escalation.cli.export import export
from escalation.cli.fleet import hosts, incidents, watch
from escalation.cli.notify import notify
from escalation.cli.passkeys import passkeys
from escalation.cli.person import password, person
from escalation.cli.pki import pki
from escalation.cli.places import incident, topology
from escalation.cli.rules import policy, rules, verdict
from escalation.cli.session import JSON, TIMEOUT_S, Session, print_json
from escalation.cli.silences import maintenance, silence
from escalation.cli.token import token
from escalation.inert import guarded
from escalation.release import VERSION


def _print_version(context: click.Context, _option: click.Parameter, asked: bool) -> None:  # noqa: FBT001
    if asked:
        click.echo(f"nanobotctl {VERSION}")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--url", metavar="URL", help="The orchestrator's address, as http://127.0.0.1:9737.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Your token; only you may be able to read it.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.001),
    default=TIMEOUT_S,
    show_default=True,
    metavar="SECONDS",
    help="How long the orchestrator may take for one answer.",
)
@click.option("--no-input", is_flag=True, help="Never ask: a command that would ask refuses instead.")
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Print the version and exit.",
)
@click.pass_context
def nanobotctl(
    context: click.Context, *, url: str | None, token_file: Path | None, timeout: float, no_input: bool
) -> None:
    """See what the fleet's agents recommend, and decide.

    The connection comes from --url and --token-file, or from ctl.toml: the file named by NANOBOT_CTL_CONFIG,
    or the first of etc/nanobot/ctl.toml in the virtual environment, ~/.config/nanobot/ctl.toml and
    /etc/nanobot/ctl.toml.

    Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 not authenticated, 5 refused by policy, 6 expired or
    superseded, 7 still pending.
    """
    context.obj = Session(url=url, token_file=token_file, timeout_s=timeout, no_input=no_input)


@click.command()
@JSON
def version(*, as_json: bool) -> None:
    """Print the version of this program, and with --json of what it runs on too."""
    import json  # noqa: PLC0415
    import platform  # noqa: PLC0415

    if not as_json:
        click.echo(f"nanobotctl {VERSION}")
        return
    about = {"version": VERSION, "python": platform.python_version(), "system": platform.system().lower()}
    print_json(json.dumps(about, separators=(",", ":")).encode())


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(*, shell: str) -> None:
    """Print the completion script for a shell, to be sourced from its start file."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    kind = get_completion_class(shell)
    if kind is None:
        raise CtlError(f"there is no completion for {shell}", code=ExitCode.USAGE)
    click.echo(kind(nanobotctl, {}, "nanobotctl", "_NANOBOTCTL_COMPLETE").source())


@click.command()
def man() -> None:
    """Print the manual page, as `nanobotctl man | man -l -` shows it."""
    from escalation.cli.man_page import page  # noqa: PLC0415

    click.echo(page(nanobotctl), nl=False)


for _command in (
    ack,
    answer,
    approve,
    ask,
    audit,
    command,
    completion,
    done,
    export,
    hosts,
    incident,
    incidents,
    man,
    maintenance,
    notify,
    passkeys,
    password,
    person,
    pki,
    policy,
    queue,
    reject,
    release,
    rules,
    show,
    silence,
    snooze,
    token,
    topology,
    verdict,
    version,
    watch,
):
    nanobotctl.add_command(_command)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; every error is one or two lines on standard error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        result = nanobotctl.main(args=arguments, prog_name="nanobotctl", standalone_mode=False)
    except CtlError as error:
        _explain(str(error), error.advice)
        return error.code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return ExitCode.USAGE
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "nanobotctl"
        _explain(error.format_message(), f"`{where} --help` says how it is used")
        return ExitCode.USAGE
    except click.ClickException as error:
        _explain(error.format_message(), "")
        return ExitCode.FAILED
    except (click.Abort, KeyboardInterrupt):
        _explain("interrupted; nothing more was done", "")
        return ExitCode.FAILED
    except BrokenPipeError:
        # Whoever read our output left. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
    return result if isinstance(result, int) else ExitCode.DONE


def _explain(what: str, advice: str) -> None:
    click.echo(f"nanobotctl: {guarded(what)}", err=True)
    if advice:
        click.echo(f"  {guarded(advice)}", err=True)
