"""A known log line as evidence: its pattern's id, how often it was written, and what the last one captured.

Captures are numbers and words of a closed list, the words in small letters and joined by hyphens, as the wire
wants them. An address is left out: what it names is the subject of the case.
"""

from __future__ import annotations

import re
from typing import Final

from agent.subjects import process_name
from escalation.model import Capture, LogEvidence
from escalation.wire.limits import LIST_ENTRIES
from probes.observed.logs import LogLine

_ADDRESS: Final = "address"
_BETWEEN: Final = re.compile(r"[^a-z0-9._]+")
_CAPTURES_MAX: Final = LIST_ENTRIES["LogEvidence.captures"]


def log_evidence(line: LogLine, *, count: int, window_s: float) -> LogEvidence:
    """Return `line`, the last of `count` of its pattern in `window_s` seconds, as evidence."""
    told = [
        Capture(each.name, each.number, _BETWEEN.sub("-", each.word.casefold()).strip("-._"))
        for each in line.captures
        if each.name != _ADDRESS
    ]
    return LogEvidence(
        pattern=line.pattern,
        count=count,
        window_s=window_s,
        process_name=process_name(line.origin),
        captures=tuple(told[:_CAPTURES_MAX]),
    )
