"""A case as it is kept across a crash: one note per open case, as JSON.

Evidence is a union of plain dataclasses, which JSON cannot tell apart, so each is kept under its class
name; the table of names is derived from the union itself. A note that cannot be read is None: it is
counted and forgotten, never guessed at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, get_args, get_type_hints

import msgspec

from agent.finding import Place
from escalation.model import (
    CaseId,
    Evidence,
    FaultClass,
    Incarnation,
    Reason,
    Severity,
    Subject,
)

KEY_PREFIX: Final = "case/"

_KINDS: Final[dict[str, Any]] = {kind.__name__: kind for kind in get_args(Evidence)}


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseNote:
    """An open case: what its reports say, and what is needed to go on judging it.

    `*_boot_ns` are boot-time stamps of the boot `kernel_boot_id`, and mean nothing in another. `drill`
    names the drill that caused it, if one did.
    """

    case_id: CaseId
    fault_class: FaultClass
    subject: Subject
    severity: Severity
    incarnation: Incarnation
    lifebound: bool
    kernel_boot_id: str
    first_seen_ns: int
    last_seen_ns: int
    last_boot_ns: int
    count: int
    reported_boot_ns: int
    reported_count: int
    reasons: tuple[Reason, ...]
    evidence: tuple[Evidence, ...]
    target: Subject | None = None
    place: Place | None = None
    drill: str = ""


_TYPES: Final = get_type_hints(CaseNote)


def encode(note: CaseNote) -> bytes:
    """Return `note` as JSON."""
    plain: dict[str, Any] = {
        name: getattr(note, name) for name in CaseNote.__dataclass_fields__ if name != "evidence"
    }
    plain["evidence"] = [(type(item).__name__, item) for item in note.evidence]
    return msgspec.json.encode(plain)


def decode(raw: bytes) -> CaseNote | None:
    """Return the note in `raw`, or None when it is not one."""
    try:
        plain = msgspec.json.decode(raw, type=dict[str, Any])
        evidence = tuple(msgspec.convert(item, _KINDS[kind]) for kind, item in plain.pop("evidence"))
        fields = {name: msgspec.convert(value, _TYPES[name]) for name, value in plain.items()}
        return CaseNote(**fields, evidence=evidence)
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError, UnicodeError):
        return None
