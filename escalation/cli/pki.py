"""The commands of a small certificate authority, for people who have none."""

from __future__ import annotations

import click


@click.group()
def pki() -> None:
    """Make and renew certificates for agents and the orchestrator."""
