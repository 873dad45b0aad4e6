"""The man page of nanobotctl, written from the commands themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from escalation.cli.errors import MEANINGS, ExitCode

_CODE = re.compile(r"`([^`]*)`")


def page(nanobotctl: click.Group) -> str:
    """Return nanobotctl(1) in the man macros."""
    lines = [
        ".TH NANOBOTCTL 1",
        ".ad l",
        ".SH NAME",
        "nanobotctl \\- see what a fleet's agents recommend, and decide",
        ".SH SYNOPSIS",
        ".B nanobotctl",
        "[\\fIOPTIONS\\fR] \\fICOMMAND\\fR [\\fIARGS\\fR]...",
        ".SH DESCRIPTION",
        *_paragraphs(nanobotctl),
        ".SH OPTIONS",
        *_options(nanobotctl, "nanobotctl"),
        ".SH COMMANDS",
        *_commands(nanobotctl, ""),
        ".SH EXIT STATUS",
    ]
    for code in ExitCode:
        lines += [".TP", f".B {code.value}", _text(MEANINGS[code])]
    lines += [
        ".SH ENVIRONMENT",
        ".TP",
        ".B NANOBOT_CTL_CONFIG",
        "The file with the connection, in place of the others.",
        ".TP",
        ".B NO_COLOR",
        "Turns colour off.",
        ".SH FILES",
        ".TP",
        ".I ~/.config/nanobot/ctl.toml",
        "The connection of one person: \\fIurl\\fR, \\fItoken_file\\fR, \\fIca_file\\fR.",
        ".TP",
        ".I /etc/nanobot/ctl.toml",
        "The connection of everybody on this machine.",
        ".SH SEE ALSO",
        ".BR ssh-keygen (1),",
        "/opt/nanobot/share/doc/how-to/decide.md",
    ]
    return "\n".join(lines) + "\n"


def _commands(group: click.Group, path: str) -> Iterator[str]:
    for name in sorted(group.commands):
        command = group.commands[name]
        full = f"{path} {name}".strip()
        if not isinstance(command, click.Group) or command.invoke_without_command:
            context = click.Context(command, info_name=full)
            usage = " ".join(command.collect_usage_pieces(context))
            yield f".SS {_text(full)}"
            yield f"\\fBnanobotctl {_text(full)}\\fR {_text(usage)}"
            yield ".PP"
            yield from _paragraphs(command)
            yield from _options(command, full)
        if isinstance(command, click.Group):
            yield from _commands(command, full)


def _paragraphs(command: click.Command) -> Iterator[str]:
    text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            yield ".PP"
        yield _text(" ".join(paragraph.split()))


def _options(command: click.Command, path: str) -> Iterator[str]:
    context = click.Context(command, info_name=path)
    for parameter in command.params:
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record:
            yield ".TP"
            yield f"\\fB{_text(record[0])}\\fR"
            yield _text(" ".join(record[1].split()))


def _text(text: str) -> str:
    """Return text that troff prints as it is; what stood in backquotes is bold."""
    safe = text.replace("\\", "\\e").replace("-", "\\-").replace("|", "|\\:")  # a line may end there
    bold = _CODE.sub(lambda found: f"\\fB{found[1]}\\fR", safe)
    return f"\\&{bold}" if bold[:1] in {".", "'"} else bold
