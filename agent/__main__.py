"""`nanobot-agent`, started lean.

structlog pulls in `rich` wherever that is installed, for tracebacks that a daemon never draws: 4 MB of memory
for nothing. Telling the import system that it is not here has to come before everything else is imported.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run one command; return its exit code."""
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # the import system's own "not here"
    from agent.command import main as run  # noqa: PLC0415  # see above

    return run()


if __name__ == "__main__":
    sys.exit(main())
