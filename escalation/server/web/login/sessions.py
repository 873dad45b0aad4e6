"""Sessions: a cookie of 32 random bytes, of which only the SHA-256 is kept.

A session is a record in the orchestrator's database: it survives a restart, holds at every orchestrator on
the database, and ends everywhere at once. Who copies the database can open no session with it. The token
that guards forms against other sites is derived from the cookie, needs no place of its own, and dies with it.

A cookie signed by the server, which would need no record, was rejected: nobody could end it.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from escalation.server import steps
from escalation.server.attention import last_visits
from escalation.server.clock import Timekeeper
from escalation.server.storage.records import Kind
from escalation.server.storage.store import Ledger, Store, StoreError
from escalation.server.web.access import Person, Role
from escalation.server.web.login.settings import LoginSettings
from escalation.server.web.login.visits import SessionKey, Visit

PER_PERSON: Final = 32
"""Sessions that a person may have; one more ends the one unused for longest."""

_COOKIE_BYTES: Final = 32
_COOKIE_CHARACTERS: Final = 43
_NOTE_EACH_NS: Final = 60_000_000_000
_NS: Final = 1_000_000_000


class Means(enum.StrEnum):
    """How somebody showed who they are."""

    TOKEN = "token"  # noqa: S105 - a word for it
    PASSWORD = "password"  # noqa: S105 - the same
    PASSKEY = "passkey"
    INVITATION = "invitation"
    OIDC = "oidc"
    TAILSCALE = "tailscale"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One login; `role` is set where no `[[person]]` says it.

    `proven_ns` is when the person last showed who they are, and 0 where the means says who somebody is
    without their doing anything.
    """

    person: str
    means: Means
    opened_ns: int
    seen_ns: int
    proven_ns: int
    role: Role | None = None


SESSIONS: Final = Kind("session", Session)


def csrf_of(cookie: str) -> str:
    """Return the token that a form of this session carries; who knows it cannot find the cookie."""
    return _text(hmac.digest(cookie.encode(), b"nanobot csrf", "sha256"))


def key_of(cookie: str) -> SessionKey:
    """Return what the session of this cookie is kept under."""
    return SessionKey(hashlib.sha256(cookie.encode()).hexdigest())


class Sessions:
    """The sessions of one database."""

    def __init__(
        self, *, store: Store, keeper: Timekeeper, settings: LoginSettings, persons: Sequence[Person]
    ) -> None:
        """Keep sessions in `store`; who is none of `persons` has none, unless the session says a role."""
        self._store = store
        self._keeper = keeper
        self._settings = settings
        self._persons = {person.name: person for person in persons}

    def __repr__(self) -> str:
        return f"Sessions(persons={len(self._persons)}, idle_s={self._settings.idle_s:g})"

    async def visit(self, cookie: str, *, attended: bool = True) -> Visit | None:
        """Return whose cookie this is, or None when it is nobody's or its time is over; raise StoreError.

        The idle time begins anew with what is `attended`: not with what an open page asks for by itself.
        """
        if len(cookie) != _COOKIE_CHARACTERS or not cookie.isascii():
            return None
        key = key_of(cookie)
        now_ns = self._keeper.now_ns()
        session = await self._store.read(lambda ledger: ledger.records.get(SESSIONS, key))
        person = self._person(session) if session else None
        if session is None or person is None or self._over(session, now_ns):
            return None
        if attended and now_ns - session.seen_ns > _NOTE_EACH_NS:
            await self._note_seen(key, now_ns)
        return Visit(
            person=person,
            key=key,
            csrf=csrf_of(cookie),
            proven_ns=session.proven_ns,
            fresh=self._fresh(session.proven_ns, now_ns),
        )

    async def stands(self, key: SessionKey) -> bool:
        """Return whether a session has not ended yet, which does not prolong it; raise StoreError."""
        session = await self._store.read(lambda ledger: ledger.records.get(SESSIONS, key))
        return session is not None and not self._over(session, self._keeper.now_ns())

    def opening(
        self,
        *,
        person: str,
        means: Means,
        proven_ns: int | None = None,
        role: Role | None = None,
        before: SessionKey | None,
    ) -> tuple[str, Callable[[Ledger], None]]:
        """Return a new cookie, and the work that keeps its session in place of `before`.

        `proven_ns` is when the person showed who they are; now, unless given.
        """
        cookie = _text(secrets.token_bytes(_COOKIE_BYTES))

        def work(ledger: Ledger) -> None:
            now_ns = self._keeper.now_ns()
            records = ledger.records
            self._sweep(ledger, person, now_ns)
            if before is not None:
                records.remove(SESSIONS, before)
            session = Session(
                person=person,
                means=means,
                role=role,
                opened_ns=now_ns,
                seen_ns=now_ns,
                proven_ns=now_ns if proven_ns is None else proven_ns,
            )
            records.put(SESSIONS, key_of(cookie), session)
            last_visits.note(ledger, person, now_ns=now_ns)
            self.note(ledger, person, "session.opened", person, means.value)

        return cookie, work

    async def of(self, person: str) -> Mapping[SessionKey, Session]:
        """Return a person's sessions whose time is not over, newest first; raise StoreError."""
        now_ns = self._keeper.now_ns()
        kept = await self._store.read(lambda ledger: ledger.records.of(SESSIONS))
        mine = {
            SessionKey(key): session
            for key, session in kept.items()
            if session.person == person and not self._over(session, now_ns)
        }
        return dict(sorted(mine.items(), key=lambda each: -each[1].opened_ns))

    async def end(self, key: SessionKey, *, by: str, of: str | None) -> bool:
        """End one session, of the person `of` (None: whoever's), and return whether there was one."""

        def work(ledger: Ledger) -> bool:
            session = ledger.records.get(SESSIONS, key)
            if session is None or of not in {None, session.person}:
                return False
            ledger.records.remove(SESSIONS, key)
            self.note(ledger, by, "session.revoked", session.person, session.means.value)
            return True

        return await self._store.write(work)

    async def end_all(self, person: str, *, by: str) -> int:
        """End all sessions of a person, and return how many there were."""

        def work(ledger: Ledger) -> int:
            return self.ending_all(ledger, person, by=by)

        return await self._store.write(work)

    def ending_all(self, ledger: Ledger, person: str, *, by: str, but: SessionKey | None = None) -> int:
        """End the sessions of a person in a transaction, but one, and return how many."""
        kept = ledger.records.of(SESSIONS)
        mine = [key for key, session in kept.items() if session.person == person and key != but]
        for key in mine:
            ledger.records.remove(SESSIONS, key)
        if mine:
            self.note(ledger, by, "session.revoked", person, f"{len(mine)} of them")
        return len(mine)

    async def confirm(self, key: SessionKey) -> None:
        """Keep that the person of this session showed just now who they are."""
        await self._store.write(lambda ledger: self.confirming(ledger, key))

    def confirming(self, ledger: Ledger, key: SessionKey) -> None:
        """Keep in a transaction that the person of this session showed just now who they are."""
        now_ns = self._keeper.now_ns()
        session = ledger.records.get(SESSIONS, key)
        if session is not None and not self._over(session, now_ns):
            ledger.records.put(SESSIONS, key, replace(session, proven_ns=now_ns, seen_ns=now_ns))

    def note(self, ledger: Ledger, actor: str, verb: str, object_id: str, detail: str) -> None:
        """Append to the audit log."""
        steps.note(
            ledger,
            actor=actor,
            verb=verb,
            object_id=object_id,
            detail=detail,
            now_ns=self._keeper.now_ns(),
        )

    async def _note_seen(self, key: SessionKey, now_ns: int) -> None:
        def work(ledger: Ledger) -> None:
            session = ledger.records.get(SESSIONS, key)
            if session is not None:
                ledger.records.put(SESSIONS, key, replace(session, seen_ns=max(session.seen_ns, now_ns)))
                last_visits.note(ledger, session.person, now_ns=now_ns)

        try:
            await self._store.write(work)
        except StoreError:
            return  # a full disk ends no session sooner than its idle time does

    def _person(self, session: Session) -> Person | None:
        """Return whose session it is; who came in as a stranger never becomes the person of that name."""
        known = self._persons.get(session.person)
        if session.role is None:
            return known
        return None if known else Person(name=session.person, role=session.role)

    def _over(self, session: Session, now_ns: int) -> bool:
        return (
            now_ns - session.seen_ns > self._settings.idle_s * _NS
            or now_ns - session.opened_ns > self._settings.absolute_s * _NS
        )

    def _fresh(self, proven_ns: int, now_ns: int) -> bool:
        return bool(proven_ns) and now_ns - proven_ns <= self._settings.fresh_s * _NS

    def _sweep(self, ledger: Ledger, person: str, now_ns: int) -> None:
        """Remove what is over, and what a person has too many of."""
        kept = ledger.records.of(SESSIONS)
        over = {key for key, session in kept.items() if self._over(session, now_ns)}
        mine = [key for key, session in kept.items() if session.person == person and key not in over]
        mine.sort(key=lambda key: kept[key].seen_ns)
        for key in over | set(mine[: max(0, len(mine) - PER_PERSON + 1)]):
            ledger.records.remove(SESSIONS, key)


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
