"""The canonical approval document: the one text that a person's approval is, and that a signature covers.

It is JSON as RFC 8785 (JCS) writes it. The shape is closed (keys of ASCII, text, lists, null and small whole
numbers; no fraction anywhere), so sorted keys without blanks are that form already; a test compares it with a
library of the standard. Text that came from a host stands in it escaped (`inert.shown`), and an action that
cannot be shown whole has no document: what is signed can be printed as it is.

Both sides make it with `terms` from `Bound`, which is what the digest covers: a client recomputes the digest
from what it was sent, compares the terms with what it shows, and only then signs. Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

import msgspec

from escalation.inert import harmless, shown

NAMESPACE: Final = "nanobot-approval"
"""What an SSH signature of an approval is made for; one for anything else is none of ours."""

LIMIT_BYTES: Final = 32 * 1024
"""How long a document may be."""

_YEARS: Final = (1970, 9000)
"""The years of a time in a document: far enough from both ends of the calendar to add any deadline."""

_DIGESTED: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)
_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)

NOTHING_ASIDE: Final[Mapping[str, str]] = MappingProxyType({})

Hex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Nonce = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
Moment = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}\.[0-9]{3}Z\Z")]


class ApprovalError(Exception):
    """What is no approval document, or not the one it should be; the message says what is wrong."""


class Bound(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What a recommendation's digest covers, exactly as it came from the host."""

    version: int
    incident: str
    case: str
    host: tuple[str, str]
    fault: tuple[str, int | None]
    subject: tuple[str, str]
    action: tuple[str, str, str, tuple[str, ...]]
    evidence: tuple[Any, ...]
    incarnation: tuple[str, str | None, int | None, int | None]
    drill: bool = False


class Thing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an action acts on, or an incident is about."""

    kind: str
    name: str


class Act(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The action: `argv` stands exactly as it would be run."""

    argv: tuple[str, ...]
    kind: str
    target: Thing


class Life(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which life of the target is meant; numbers are text, because they may be too large for JSON's."""

    boot: str
    container: str | None
    pid: str | None
    start: str | None


class Terms(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is to be approved: everything in the document but who approves, and why.

    `evidence` is the SHA-256 of the kinds of evidence, `digest` the recommendation's own; `policy` tells one
    set of rules for approving from another, and `catalogue` which playbook the action is from.
    """

    action: Act
    approve_by: Moment
    case: str
    catalogue: str
    digest: Hex
    evidence: Hex
    execute_within_s: Annotated[int, msgspec.Meta(ge=0, le=366 * 86_400)]
    fault: str
    host: str
    id: str
    incarnation: Life
    incident: str
    policy: Hex
    subject: Thing
    v: Literal[1] = 1


class Document(Terms, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole of it: the terms, the person, the reason, and a number that is used once.

    `set_aside` are the conditions in spite of which the person approves, each with the reason for it.
    """

    nonce: Nonce
    person: str
    reason: str
    set_aside: dict[Annotated[str, msgspec.Meta(pattern=r"^[a-z_]{1,64}\Z")], str]


def sealed(content: object) -> str:
    """Return the SHA-256, in hex, of a value of plain JSON, in the form that recommendations are bound to."""
    return hashlib.sha256(_DIGESTED.encode(content).encode()).hexdigest()


def fingerprint(text: str) -> str:
    """Return the SHA-256, in hex, of a document's text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def bound_from(content: object) -> Bound:
    """Return what a digest covers as a value, checked for its shape; raise ApprovalError."""
    try:
        return msgspec.convert(content, Bound)
    except msgspec.ValidationError as error:
        raise ApprovalError(f"what the digest covers cannot be read: {error}") from error


def terms(
    bound: Bound, *, entry_id: str, approve_by: str, execute_within_s: int, catalogue: str, policy: str
) -> Terms:
    """Return what is to be approved, made from what the digest covers; raise ApprovalError.

    An action that holds characters which cannot be shown as they are has no terms.
    """
    kind, target_kind, target, argv = bound.action
    if not all(map(harmless, argv)):
        raise ApprovalError("its command holds characters that cannot be shown as they are")
    fault, number = bound.fault
    boot, container, pid, start = bound.incarnation
    content = {
        "action": {"argv": argv, "kind": shown(kind), "target": _thing(target_kind, target)},
        "approve_by": approve_by,
        "case": shown(bound.case),
        "catalogue": shown(catalogue),
        "digest": sealed(msgspec.to_builtins(bound)),
        "evidence": sealed(bound.evidence),
        "execute_within_s": execute_within_s,
        "fault": shown(fault if number is None else f"{fault}:{number}"),
        "host": shown(bound.host[0]),
        "id": shown(entry_id),
        "incarnation": {
            "boot": shown(boot),
            "container": None if container is None else shown(container),
            "pid": None if pid is None else str(pid),
            "start": None if start is None else str(start),
        },
        "incident": shown(bound.incident),
        "policy": policy,
        "subject": _thing(*bound.subject),
    }
    try:
        return msgspec.convert(content, Terms)
    except msgspec.ValidationError as error:
        raise ApprovalError(f"it has no approval document: {error}") from error


def _thing(kind: str, name: str) -> dict[str, str]:
    return {"kind": shown(kind), "name": shown(name)}


def document(
    agreed: Terms, *, person: str, reason: str, nonce: str, set_aside: Mapping[str, str] = NOTHING_ASIDE
) -> str:
    """Return the document that `person` signs, as the text that is signed; raise ApprovalError."""
    whole = msgspec.to_builtins(agreed) | {
        "nonce": nonce,
        "person": shown(person),
        "reason": shown(reason),
        "set_aside": {shown(condition): shown(why) for condition, why in set_aside.items()},
    }
    try:
        text = canonical(msgspec.convert(whole, Document))
    except msgspec.ValidationError as error:
        raise ApprovalError(f"this is no approval document: {error}") from error
    if len(text.encode()) > LIMIT_BYTES:
        raise ApprovalError(f"the approval document is longer than {LIMIT_BYTES} bytes")
    return text


def canonical(value: Terms) -> str:
    """Return terms, or a whole document, in the one form that they have."""
    return _CANONICAL.encode(msgspec.to_builtins(value))


def parse(text: str) -> Document:
    """Return a document from its text; raise ApprovalError when it is none, or not in its one form."""
    try:
        if len(text.encode()) > LIMIT_BYTES:
            raise ApprovalError(f"the approval document is longer than {LIMIT_BYTES} bytes")
        parsed = msgspec.json.decode(text, type=Document)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ApprovalError(f"this is no approval document: {error}") from error
    if canonical(parsed) != text:
        raise ApprovalError("the approval document is not in its canonical form")
    return parsed


def differing(one: Document, other: Document) -> tuple[str, ...]:
    """Return the names of the fields in which two documents differ."""
    return tuple(name for name in one.__struct_fields__ if getattr(one, name) != getattr(other, name))


def moment_of(at: str) -> datetime:
    """Return a time of a document; raise ApprovalError for one that cannot be reckoned with."""
    try:
        found = datetime.fromisoformat(at).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ApprovalError(f"{at} is no time") from error
    if not _YEARS[0] <= found.year < _YEARS[1]:
        raise ApprovalError(f"{at} is no time")
    return found
