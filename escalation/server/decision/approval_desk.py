"""What there is to sign: the terms of a recommendation, and the document that a person's approval is."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from escalation.model import Override, State
from escalation.server import queue_rows
from escalation.server.decision.approvals import Policy, terms_of
from escalation.server.decision.binding import bound_of
from escalation.server.decision.policies import case_of
from escalation.server.desk import Entry, Refused, Unavailable
from escalation.server.storage.store import Ledger, Store, StoreError
from escalation.signing import approval
from escalation.signing.approval import ApprovalError, Terms
from escalation.view.signing import DocumentView, SigningView


class ApprovalDesk(Protocol):
    """What can be asked about signing. All methods raise DeskError kinds only."""

    async def approval(self, entry_id: str, *, person: str) -> SigningView:
        """Return what an approval of this entry is made of."""

    async def document(
        self, entry_id: str, *, person: str, reason: str, overrides: Sequence[Override] = ()
    ) -> DocumentView:
        """Return the document that `person` would sign now, with a number of its own."""


class StoredApprovals:
    """The real desk, on a store."""

    def __init__(self, *, store: Store, policy: Policy) -> None:
        """Answer by `policy`, the one by which the service decides."""
        self._store = store
        self._policy = policy

    async def approval(self, entry_id: str, *, person: str) -> SigningView:
        """Return what an approval of this entry is made of; nothing that is no longer a proposal has one."""
        entry, terms = await self._read(entry_id)
        action = entry.recommendation.advice.action
        return SigningView(
            id=terms.id,
            bound=bound_of(action, entry.incident),
            approve_by=terms.approve_by,
            execute_within_s=terms.execute_within_s,
            catalogue=terms.catalogue,
            policy=terms.policy,
            digest=entry.recommendation.digest,
            person=person,
            required=self._policy.demands(case_of(action, entry.incident.fault_class)).require_signature,
        )

    async def document(
        self, entry_id: str, *, person: str, reason: str, overrides: Sequence[Override] = ()
    ) -> DocumentView:
        """Return the document that `person` would sign now, with a number of its own."""
        _, terms = await self._read(entry_id)
        try:
            text = approval.document(
                terms,
                person=person,
                reason=reason.strip(),
                nonce=secrets.token_hex(16),
                set_aside={each.condition: each.reason for each in overrides},
            )
        except ApprovalError as error:
            raise Refused(str(error)) from error
        return DocumentView(text, approval.fingerprint(text))

    async def _read(self, entry_id: str) -> tuple[Entry, Terms]:
        try:
            return await self._store.read(partial(_terms, entry_id=entry_id, policy=self._policy))
        except StoreError as error:
            raise Unavailable(f"nothing can be read now: {error}") from error


def _terms(ledger: Ledger, *, entry_id: str, policy: Policy) -> tuple[Entry, Terms]:
    entry = queue_rows.entry(ledger, entry_id)
    recommendation = entry.recommendation
    if recommendation.state is not State.PROPOSED:
        raise Refused(
            f"recommendation {recommendation.id} is {recommendation.state}: there is nothing to sign"
        )
    return entry, terms_of(recommendation, entry.incident, policy)
