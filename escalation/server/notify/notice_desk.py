"""What people may ask about notifications: how each receiver is, and a test of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from escalation.server.desk import NotFound
from escalation.server.notify.notices import NoticeId


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverStatus:
    """How a receiver is: how many notices wait for it, and what became of the others.

    `error` is why the newest attempt of this process failed, empty when it did not; `failures` is how many
    failed since one worked.
    """

    name: str
    kind: str
    error: str
    failures: int
    waiting: int
    sent: int
    folded: int
    given_up: int


class NoticeDesk(Protocol):
    """What can be asked. All methods raise DeskError kinds only."""

    async def receivers(self) -> Sequence[ReceiverStatus]:
        """Return each receiver and how it is, by name."""

    async def test(self, name: str, *, person: str) -> NoticeId:
        """Queue a test for a receiver, in the name of `person`; Refused when the last one was just now."""


class NoReceivers:
    """The desk of a site that tells nobody."""

    async def receivers(self) -> Sequence[ReceiverStatus]:
        """Return nothing."""
        return ()

    async def test(self, name: str, *, person: str) -> NoticeId:  # noqa: ARG002 - nobody is there
        """Refuse."""
        raise NotFound("there is no receiver of this name")
