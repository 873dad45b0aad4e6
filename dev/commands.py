"""The reference page of nanobotctl, written from the commands themselves."""

from __future__ import annotations

import inspect

import click

from escalation.cli.app import nanobotctl
from escalation.cli.errors import MEANINGS, ExitCode


def page() -> str:
    """Return the page in Markdown."""
    lines = [
        "# nanobotctl",
        "",
        "<!-- Written by `make generate` from escalation/cli; do not edit. -->",
        "",
        *_text(nanobotctl),
        "",
        "Output is a drawn table on a terminal, plain columns elsewhere, and JSON with `--json`: the objects",
        "of the [HTTP API](http-api.md), in printable ASCII. `-o table|json|jsonl` says it too, and",
        "`-o jsonl` one object of a list a line. Errors go to standard error. `NO_COLOR` turns colour off.",
        "",
        "## Exit codes",
        "",
        "| code | meaning |",
        "|---|---|",
        *(f"| {code.value} | {MEANINGS[code]} |" for code in ExitCode),
        "",
        "## Options before the command",
        "",
        *_options(nanobotctl, "nanobotctl"),
        "## Commands",
        "",
        *_commands(nanobotctl, "nanobotctl"),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _commands(group: click.Group, path: str) -> list[str]:
    lines = []
    for name in sorted(group.commands):
        command = group.commands[name]
        full = f"{path} {name}"
        if isinstance(command, click.Group):
            lines += [f"### {full}", "", *_text(command), "", *_commands(command, full)]
            continue
        context = click.Context(command, info_name=full)
        usage = " ".join(command.collect_usage_pieces(context))
        lines += [f"### {full}", "", f"    {full} {usage}", "", *_text(command), "", *_options(command, full)]
    return lines


def _text(command: click.Command) -> list[str]:
    return inspect.cleandoc(command.help or "").splitlines()


def _options(command: click.Command, path: str) -> list[str]:
    context = click.Context(command, info_name=path)
    rows = [
        record
        for parameter in command.params
        if isinstance(parameter, click.Option) and (record := parameter.get_help_record(context))
    ]
    if not rows:
        return []
    return [
        "| option | |",
        "|---|---|",
        *(f"| `{_cell(option)}` | {_cell(words)} |" for option, words in rows),
        "",
    ]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
