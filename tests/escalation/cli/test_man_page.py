"""The man page: every command is in it, and troff has nothing to complain about."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from escalation.cli.app import nanobotctl
from escalation.cli.man_page import page
from tests.escalation.cli.test_output import commands


def test_every_command_stands_in_the_man_page(ctl: Callable[..., Any]) -> None:
    """Each has its section, and `nanobotctl man` prints the page."""
    text = page(nanobotctl)
    assert ctl("man").out == text
    for path, _ in commands():
        assert f".SS {' '.join(path)}".replace("-", "\\-") in text.splitlines()


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff (package groff-base)")
def test_troff_renders_it_without_a_warning() -> None:
    """Rendered for a terminal, with all warnings on, every line of it is text."""
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-P-cbou"],
        input=page(nanobotctl),
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    assert done.stderr == ""
    assert "EXIT STATUS" in done.stdout
    assert "nanobotctl audit verify" in done.stdout
