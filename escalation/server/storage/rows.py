"""Values as JSON text and back, for columns that are read whole.

Evidence is a union of plain dataclasses, so each piece carries its kind. Whatever cannot be read back is a
damaged database, and says which value of what it was.
"""

from __future__ import annotations

import json
from typing import Any, Final, TypeVar, get_type_hints

import msgspec

from escalation.model import (
    EVIDENCE_KINDS,
    AgentId,
    Evidence,
    FaultClass,
    Incident,
    IncidentId,
    Recommendation,
    RecommendationId,
    Severity,
    State,
    Subject,
    SubjectKind,
    evidence_kind,
)
from escalation.server.desk import HostState
from escalation.server.notify.notices import Notice
from escalation.server.storage.records import Kind
from escalation.server.storage.store import Sketch, StoreCorrupt
from escalation.server.web.queue_page import QueueRow

T = TypeVar("T")

# Ten thousand rows are read for one page of the queue, and an enum is slow to call.
_STATES: Final = {each.value: each for each in State}
_FAULT_CLASSES: Final = {each.value: each for each in FaultClass}
_SUBJECT_KINDS: Final = {each.value: each for each in SubjectKind}
_SEVERITIES: Final = {each.value: each for each in Severity}

_INCIDENT_FIELDS: Final = {
    name: kind for name, kind in get_type_hints(Incident).items() if name != "evidence"
}


def dump(value: object) -> str:
    """Return a value of the model that holds no evidence as JSON."""
    return json.dumps(msgspec.to_builtins(value), separators=(",", ":"))


def dump_incident(incident: Incident) -> str:
    """Return `incident` as JSON."""
    fields = msgspec.to_builtins(incident)
    for plain, piece in zip(fields["evidence"], incident.evidence, strict=True):
        plain["kind"] = evidence_kind(piece)
    return msgspec.json.encode(fields).decode()


def load_incident(text: str) -> Incident:
    """Read an incident back."""
    try:
        fields: dict[str, Any] = json.loads(text)
        evidence = tuple(_load_evidence(piece) for piece in fields.pop("evidence"))
        # Incident's union of dataclasses is more than msgspec can tell apart: convert field by field.
        # A field that an older version did not keep has its default; one without a default is missed below.
        converted = {
            name: msgspec.convert(fields[name], kind)
            for name, kind in _INCIDENT_FIELDS.items()
            if name in fields
        }
        return Incident(**converted, evidence=evidence)
    except (ValueError, KeyError, TypeError, AttributeError, msgspec.ValidationError) as error:
        raise StoreCorrupt(f"an incident in the database cannot be read: {error}") from error


def _load_evidence(piece: dict[str, Any]) -> Evidence:
    return msgspec.convert(piece, EVIDENCE_KINDS[piece.pop("kind")])


def load_recommendation(text: str) -> Recommendation:
    """Read a recommendation back."""
    return _load(text, Recommendation, "a recommendation")


def queue_row(columns: tuple[Any, ...]) -> QueueRow:
    """Read what decides the place of an entry from the columns that the ledger asks for."""
    entry_id, incident_id, state, host, fault_class, number, severity, drill, created_ns, approvers = columns
    try:
        return QueueRow(
            id=RecommendationId(entry_id),
            incident_id=IncidentId(incident_id),
            state=_STATES[state],
            host=AgentId(host),
            fault_class=_FAULT_CLASSES[fault_class],
            fault_number=number,
            severity=_SEVERITIES[severity],
            drill=bool(drill),
            created_ns=created_ns,
            approvers=() if approvers == "[]" else tuple(json.loads(approvers)),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise StoreCorrupt(f"an entry in the database cannot be read: {error}") from error


def sketch(columns: tuple[Any, ...]) -> Sketch:
    """Read whom an entry concerns from the columns that the ledger asks for."""
    entry_id, incident_id, host, fault_class, kind, name, severity = columns
    try:
        return Sketch(
            RecommendationId(entry_id),
            IncidentId(incident_id),
            AgentId(host),
            _FAULT_CLASSES[fault_class],
            Subject(_SUBJECT_KINDS[kind], name),
            _SEVERITIES[severity],
        )
    except KeyError as error:
        raise StoreCorrupt(f"an entry in the database cannot be read: {error}") from error


def load_host(text: str) -> HostState:
    """Read a host's state back."""
    return _load(text, HostState, "a host")


def load_notice(text: str) -> Notice:
    """Read a notice back."""
    return _load(text, Notice, "a notice")


def load_record(text: str, kind: Kind[T]) -> T:
    """Read a record of `kind` back."""
    return _load(text, kind.type, f"a record of kind {kind.name}")


def _load(text: str, kind: type[T], what: str) -> T:
    try:
        return msgspec.convert(json.loads(text), kind)
    except (ValueError, msgspec.ValidationError) as error:
        raise StoreCorrupt(f"{what} in the database cannot be read: {error}") from error
