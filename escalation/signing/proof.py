"""Which decisions in an audit log are signed, by which keys, and what in it no person can have done.

For whoever does not trust the orchestrator: nothing is taken from the log but what a signature covers, or
what makes a signature wrong. The log's own chain is checked before, in `server.audit`. Pure but for `key_of`,
which looks at a signature.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from escalation.inert import shown
from escalation.model import PasskeySignature, Signed
from escalation.server.desk import AuditEntry
from escalation.signing import approval, log as signing_log
from escalation.signing.approval import ApprovalError, Document
from escalation.signing.passkey import PasskeyRefused
from escalation.signing.sshsig import SshRefused

KeyOf = Callable[[Signed, str, datetime], str]
"""Returns the name of the key by which a person signed at a time; raises SshRefused or PasskeyRefused."""

_APPROVED: Final = "recommendation.approved"
_BY_FIRST: Final = "recommendation.approved_by_first"
_RESTATED: Final = "recommendation.restated"
_VOID: Final = "recommendation.approval_void"
_SET_ASIDE: Final = "recommendation.condition_set_aside"
_OVER: Final = frozenset(
    f"recommendation.{state}"
    for state in ("approved", "rejected", "expired", "withdrawn", "lapsed", "done", "verified", "not_cured")
)
_DETAIL: Final = re.compile(
    r"digest=(?P<digest>[0-9a-f]{64})(?: (?P<signed>signed=[0-9a-f]{64}))? reason=(?P<reason>.*)", re.DOTALL
)
_ROUNDED: Final = timedelta(milliseconds=1)
"""Times in documents are cut to milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One approval in the log; `problems` says what is wrong with it, and is empty when nothing is.

    `key` is the key that signed, None when it is not signed or the signature is not right.
    """

    number: int
    at_ns: int
    person: str
    entry_id: str
    last: bool
    kind: str | None = None
    key: str | None = None
    document: Document | None = None
    problems: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """Return how it stands, as one line."""
        if self.problems:
            return "; ".join(self.problems)
        return "NOT SIGNED" if self.key is None else f"signed by key {self.key} ({self.kind})"


def decisions(log: Iterable[AuditEntry], *, key_of: KeyOf, signed_from: int | None = None) -> list[Decision]:
    """Return every approval in the log, in order; from entry `signed_from` on each has to be signed."""
    reading = _Reading(key_of=key_of, signed_from=signed_from)
    found = [decision for entry in log if (decision := reading.take(entry)) is not None]
    return sorted((*found, *reading.left_over()), key=lambda each: each.number)


@dataclass(slots=True)
class _Reading:
    """What was read of the log so far."""

    key_of: KeyOf
    signed_from: int | None
    waiting: dict[tuple[str, str], AuditEntry] = field(default_factory=dict)
    stray: list[AuditEntry] = field(default_factory=list)
    nonces: dict[str, int] = field(default_factory=dict)
    given: dict[str, dict[tuple[str, str], int]] = field(default_factory=dict)
    keys: dict[tuple[str, str, str], str] = field(default_factory=dict)
    over: dict[str, int] = field(default_factory=dict)
    signed: dict[tuple[str, str], Document] = field(default_factory=dict)

    def take(self, entry: AuditEntry) -> Decision | None:
        """Return the decision that this entry is, or None."""
        if entry.verb == signing_log.VERB:
            before = self.waiting.pop((entry.object_id, entry.actor), None)
            self.stray += [before] if before is not None else []
            self.waiting[entry.object_id, entry.actor] = entry
            return None
        if entry.verb == _SET_ASIDE:
            return self._set_aside(entry)
        if entry.verb in {_RESTATED, _VOID}:
            self.given.pop(entry.object_id, None)  # what was given before is void, and is given anew
        decided = None
        if entry.verb in {_APPROVED, _BY_FIRST}:
            decided = self._decision(entry)
        if entry.verb in _OVER:
            self.over.setdefault(entry.object_id, entry.number)
        return decided

    def left_over(self) -> list[Decision]:
        """Return the signatures that no decision names: somebody signed, and it was not counted."""
        stray = (*self.stray, *self.waiting.values())
        return [_unfit(entry, "a signature without its decision") for entry in stray]

    def _set_aside(self, entry: AuditEntry) -> Decision | None:
        """Return what is wrong with a condition that the log says was set aside in a signed approval."""
        document = self.signed.get((entry.object_id, entry.actor))
        if document is None:
            return None
        if shown(entry.detail) in {f"{name}: {why}" for name, why in document.set_aside.items()}:
            return None
        return _unfit(entry, "a condition was set aside that is not in what was signed")

    def _decision(self, entry: AuditEntry) -> Decision:
        problems: list[str] = []
        said = _DETAIL.fullmatch(entry.detail)
        reference = said["signed"] if said is not None else None
        kind = key = document = None
        if said is None:
            problems.append("it does not say what was approved")
        if (number := self.over.get(entry.object_id)) is not None:
            problems.append(f"it was decided already (entry {number})")
        if reference is not None and said is not None:
            kept = self.waiting.pop((entry.object_id, entry.actor), None)
            if kept is None or signing_log.reference_to(kept.detail) != reference:
                problems.append("it names a signature that is not in the log")
            else:
                kind, key, document, wrong = self._signature(entry, kept, said["digest"], said["reason"])
                problems += wrong
                if document is not None:
                    self.signed[entry.object_id, entry.actor] = document
        elif self.signed_from is not None and entry.number >= self.signed_from:
            problems.append("it is not signed, and has to be")
        return Decision(
            number=entry.number,
            at_ns=entry.at_ns,
            person=entry.actor,
            entry_id=entry.object_id,
            last=entry.verb == _APPROVED,
            kind=kind,
            key=key,
            document=document,
            problems=tuple(problems),
        )

    def _signature(
        self, entry: AuditEntry, kept: AuditEntry, digest: str, reason: str
    ) -> tuple[str | None, str | None, Document | None, list[str]]:
        try:
            signed = signing_log.signed_of(kept.detail)
            document = approval.parse(signed.document)
            until = approval.moment_of(document.approve_by)
        except (ValueError, ApprovalError):
            return None, None, None, ["what was signed cannot be read"]
        at = _time(entry.at_ns)
        wrong = [
            f"what was signed names another {name} ({shown(was)})"
            for name, was, now in (
                ("recommendation", document.id, shown(entry.object_id)),
                ("person", document.person, shown(entry.actor)),
                ("digest", document.digest, digest),
                ("reason", document.reason, shown(reason)),
            )
            if was != now
        ]
        if at >= until + _ROUNDED:
            wrong.append(f"it was given after its time ({document.approve_by})")
        kind = "webauthn" if isinstance(signed.signature, PasskeySignature) else "ssh"
        try:
            key = self.key_of(signed, entry.actor, at)
        except (SshRefused, PasskeyRefused) as error:
            return kind, None, document, [*wrong, f"the signature is not right: {error}"]
        return kind, key, document, wrong + self._again(entry.number, document, key)

    def _again(self, number: int, document: Document, key: str) -> list[str]:
        """Return in which ways this was there before, and remember it."""
        wrong = []
        what = (document.id, document.digest)
        if (first := self.nonces.setdefault(document.nonce, number)) != number:
            wrong.append(f"the same signed document counted before (entry {first})")
        elif (first := self._first_of(document, number)) != number:
            wrong.append(f"the same person approved the same before (entry {first})")
        if (other := self.keys.setdefault((*what, key), document.person)) != document.person:
            wrong.append(f"the key {key} approved the same before, for {shown(other)}")
        return wrong

    def _first_of(self, document: Document, number: int) -> int:
        """Return the entry in which this person approved the same first, since it was restated last."""
        given = self.given.setdefault(document.id, {})
        return given.setdefault((document.digest, document.person), number)


def _unfit(entry: AuditEntry, problem: str) -> Decision:
    return Decision(
        number=entry.number,
        at_ns=entry.at_ns,
        person=entry.actor,
        entry_id=entry.object_id,
        last=False,
        problems=(problem,),
    )


def _time(at_ns: int) -> datetime:
    try:
        return datetime.fromtimestamp(at_ns / 1e9, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.max.replace(tzinfo=UTC)
