"""The documents against the tree: their links, and the places and commands that they name."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from agent import command as agent_command
from escalation.assistant.__main__ import nanobot_mcp
from escalation.cli.app import nanobotctl
from escalation.server.__main__ import main as nanobot_orchestrator
from probes.kernel import __main__ as loader_command

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *(ROOT / "proto").rglob("*.md")]
PROGRAMS: dict[str, click.Command | argparse.ArgumentParser] = {
    "nanobot-agent": agent_command._parser(),
    "nanobot-mcp": nanobot_mcp,
    "nanobot-orchestrator": nanobot_orchestrator,
    "nanobot-probes": loader_command._parser(),
    "nanobotctl": nanobotctl,
}
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
TOP = "agent|bench|dev|docs|escalation|fuzz|launchd|monitoring|probes|proto|systemd|tests"
PLACE = re.compile(rf"`((?:{TOP})/[\w./-]+)`")
SPAN = re.compile(r"`([^`\n]+)`")
TARGET = re.compile(r"^([a-z]+):", re.MULTILINE)


def anchors(document: Path) -> set[str]:
    """Return what the headings of a document are called in a link, as GitHub makes it."""
    plain = (heading.replace("`", "").strip().lower() for heading in HEADING.findall(document.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def commands(document: Path) -> Iterator[list[str]]:
    """Yield the words of each command in a document's code blocks and spans."""
    fenced = False
    for line in document.read_text().replace("\\\n", " ").splitlines():
        fenced ^= line.lstrip().startswith("```")
        pieces = (
            [line.strip().removeprefix("# ")] if fenced or line.startswith("    ") else SPAN.findall(line)
        )
        for piece in pieces:
            for simple in re.split(r"[|;]|&&|\$\(|\)", piece):
                try:
                    words = shlex.split(simple, comments=True)
                except ValueError:  # a quotation mark of prose
                    words = simple.split()
                if words[:1] == ["runuser"]:
                    words = words[words.index("--") :]
                while words and (words[0] in {"sudo", "--"} or re.match(r"[A-Z_]+=", words[0])):
                    words = words[1:]
                yield words


def unknown_in(words: list[str]) -> str:
    """Return the first word that a program of ours would refuse; empty when there is none."""
    program = PROGRAMS[Path(words[0]).name]
    for word in words[1:]:
        if word.startswith("--"):
            name = word.partition("=")[0]
            if name not in _options(program) | {"--help"}:
                return name
        elif below := _commands(program):
            if word not in below:
                return "" if word.isupper() else word
            program = below[word]
    return ""


def _options(program: click.Command | argparse.ArgumentParser) -> set[str]:
    if isinstance(program, argparse.ArgumentParser):
        return set(program._option_string_actions)
    return {name for each in program.params for name in (*each.opts, *each.secondary_opts)}


def _commands(
    program: click.Command | argparse.ArgumentParser,
) -> dict[str, click.Command | argparse.ArgumentParser]:
    if isinstance(program, click.Group):
        return dict(program.commands)
    if isinstance(program, argparse.ArgumentParser):
        for action in program._actions:
            if isinstance(action, argparse._SubParsersAction):
                return dict(action.choices)
    return {}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda each: str(each.relative_to(ROOT)))
def test_a_document_leads_somewhere(document: Path) -> None:
    """Every relative link leads to a file, and to a heading of it where it names one."""
    broken = []
    for target in LINK.findall(document.read_text()):
        path, _, anchor = target.partition("#")
        file = document.parent / path if path else document
        if "://" in target:
            continue
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def test_places_of_the_tree_are_where_the_documents_say() -> None:
    """A path in code style exists; `x` stands for what a reader adds."""
    gone = [
        f"{document.relative_to(ROOT)}: {place}"
        for document in DOCUMENTS
        for place in PLACE.findall(document.read_text())
        if not (ROOT / place).exists() and not Path(place).name.startswith("x.")
    ]
    assert gone == []


def test_commands_of_the_documents_are_taken() -> None:
    """Every program of ours has the commands and options with which a document calls it."""
    refused, seen = [], set()
    for document in DOCUMENTS:
        for words in commands(document):
            if words and Path(words[0]).name in PROGRAMS:
                seen.add(Path(words[0]).name)
                if word := unknown_in(words):
                    refused.append(f"{document.relative_to(ROOT)}: {word!r} of {shlex.join(words)}")
    assert refused == []
    assert seen == set(PROGRAMS)


def test_make_knows_what_the_documents_make() -> None:
    """Every `make` of a document is a target."""
    targets = set(TARGET.findall((ROOT / "Makefile").read_text()))
    named = {
        words[1] for each in DOCUMENTS for words in commands(each) if words[:1] == ["make"] and words[1:]
    }
    assert {"run", "test", "check"} <= named <= targets
