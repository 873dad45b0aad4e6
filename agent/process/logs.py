"""Log lines: JSON where a machine reads, plain where a person does, and host text inert in both."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from escalation.inert import guarded


def set_up(*, level: str, stream: TextIO | None = None) -> None:
    """Send structlog's events to `stream` (standard error), one line each."""
    out = stream or sys.stderr
    render: Any = (
        structlog.dev.ConsoleRenderer(colors=False)
        if out.isatty()
        else structlog.processors.JSONRenderer(sort_keys=False)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            inert,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )


def inert(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape what could act or mislead in every text of an event; a traceback keeps its line breaks."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = (
                "\n".join(guarded(line) for line in value.split("\n"))
                if key == "exception"
                else guarded(value)
            )
    return event
