"""Texts that people give at the command line: reasons, comments, questions, names."""

from __future__ import annotations

from typing import Final

import click

LONGEST: Final = 2000
"""As the orchestrator takes it; a test compares them."""


class Words(click.ParamType[str]):
    """A text that is not blank, and no longer than the orchestrator keeps."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text."""
        if not value.strip():
            self.fail("there is nothing in it", param, ctx)
        if len(value) > LONGEST:
            self.fail(f"it has {len(value)} characters, and {LONGEST} are kept at most", param, ctx)
        return value
