"""Signed approvals in the audit log: one entry holds document and signature whole, the decision names it.

So an export of the log is all that is needed to check them later, and the chain covers them.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final

import msgspec

from escalation.model import PasskeySignature, Signed
from escalation.signing import approval

VERB: Final = "recommendation.signed"

_JSON: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def detail_of(signed: Signed) -> str:
    """Return document and signature as the detail of an audit entry."""
    return _JSON.encode(msgspec.to_builtins(signed))


def signed_of(detail: str) -> Signed:
    """Return what `detail_of` wrote; raise ValueError for anything else."""
    return msgspec.json.decode(detail, type=Signed)


def words_of(verb: str, detail: str) -> str:
    """Return the detail of any entry for people: of a signature only how, and the document's SHA-256."""
    if verb != VERB:
        return detail
    try:
        signed = signed_of(detail)
    except ValueError:
        return "what was signed cannot be read"
    kind = "webauthn" if isinstance(signed.signature, PasskeySignature) else "ssh"
    return f"{kind} document={approval.fingerprint(signed.document)}"


def reference_to(detail: str) -> str:
    """Return how a decision's entry names the entry with this detail."""
    return f"signed={hashlib.sha256(detail.encode()).hexdigest()}"
