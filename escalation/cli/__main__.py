"""Runs nanobotctl; the only place of the command line that exits the process."""

from __future__ import annotations

import sys

from escalation.cli.app import run


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run())


if __name__ == "__main__":
    main()
