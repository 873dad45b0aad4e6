"""What a cookie says about a request: the gate asks, whoever keeps the sessions answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType, Protocol

from escalation.server.web.access import Person

SessionKey = NewType("SessionKey", str)
"""The SHA-256 of a session's cookie: it names the session in records and on pages, and opens nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """Whose cookie it is, the token of their forms, and whether they showed lately who they are."""

    person: Person
    key: SessionKey
    csrf: str
    proven_ns: int
    fresh: bool


class Visitors(Protocol):
    """Who knows the cookies."""

    async def visit(self, cookie: str, *, attended: bool) -> Visit | None:
        """Return whose cookie this is, or None; raise StoreError.

        What is not `attended`, because a page asks for it by itself, keeps no session from ending.
        """

    async def stands(self, key: SessionKey) -> bool:
        """Return whether a session has not ended yet; raise StoreError."""


class Nobody:
    """The visitors of a surface without logins."""

    async def visit(self, cookie: str, *, attended: bool) -> Visit | None:  # noqa: ARG002 - nobody has one
        """Return None."""
        return None

    async def stands(self, key: SessionKey) -> bool:  # noqa: ARG002 - the same
        """Return False."""
        return False
