"""Signed approvals in the audit log: one entry holds document and signature whole, the decision names it.

So an export of the log is all that is needed to check them later, and the chain covers them.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final

import msgspec

from escalation.model import Signed

VERB: Final = "recommendation.signed"

_JSON: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def detail_of(signed: Signed) -> str:
    """Return document and signature as the detail of an audit entry."""
    return _JSON.encode(msgspec.to_builtins(signed))


def signed_of(detail: str) -> Signed:
    """Return what `detail_of` wrote; raise ValueError for anything else."""
    return msgspec.json.decode(detail, type=Signed)


def reference_to(detail: str) -> str:
    """Return how a decision's entry names the entry with this detail."""
    return f"signed={hashlib.sha256(detail.encode()).hexdigest()}"
