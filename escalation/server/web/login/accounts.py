"""What is kept of each person beside the settings: a password of their own, and an invitation to set one.

An invitation is a code of 32 random bytes, good once and for a limited time; only its SHA-256 is kept. It
belongs into the fragment of a link, which browsers send to nobody, so no log of a server or a proxy holds it.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from escalation.server.clock import Timekeeper
from escalation.server.storage.records import Kind
from escalation.server.storage.store import Ledger, Store
from escalation.server.web.access import Person
from escalation.server.web.login.passwords import Passwords, refusal_of
from escalation.server.web.login.refusals import LoginRefused, WrongCredentials
from escalation.server.web.login.sessions import SESSIONS, Means, Sessions
from escalation.server.web.login.settings import LoginSettings
from escalation.server.web.login.visits import SessionKey
from escalation.view.persons import PersonView

_CODE_BYTES: Final = 32
_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPassword:
    """The password that a person set for themselves."""

    hashed: str
    set_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """Who may come in once, until when, and who said so."""

    person: str
    by: str
    until_ns: int


PASSWORDS: Final = Kind("password", KeptPassword)
INVITATIONS: Final = Kind("invitation", Invitation)


class Accounts:
    """The persons of the settings, and what is kept of them on `store`."""

    def __init__(
        self,
        *,
        store: Store,
        keeper: Timekeeper,
        settings: LoginSettings,
        persons: Sequence[Person],
        passwords: Passwords,
        sessions: Sessions,
    ) -> None:
        """Know `persons` and nobody else."""
        self._store = store
        self._keeper = keeper
        self._settings = settings
        self._passwords = passwords
        self._sessions = sessions
        self.persons = {person.name: person for person in persons}

    def __repr__(self) -> str:
        return f"Accounts(persons={len(self.persons)})"

    async def hash_of(self, name: str) -> str | None:
        """Return the hash of a person's password: the settings', else the one they set; raise StoreError."""
        kept = await self._store.read(lambda ledger: ledger.records.get(PASSWORDS, name))
        person = self.persons.get(name)
        if person is None:
            return None
        return person.password_hash or (kept.hashed if kept else None)

    async def invite(self, name: str, *, by: str) -> tuple[str, int]:
        """Return a code by which `name` comes in once, and until when; raise KeyError for nobody's name.

        An earlier code of the same person is void.
        """
        if name not in self.persons:
            raise KeyError(name)
        code = base64.urlsafe_b64encode(secrets.token_bytes(_CODE_BYTES)).rstrip(b"=").decode()
        until_ns = self._keeper.now_ns() + int(self._settings.invitation_s * _NS)

        def work(ledger: Ledger) -> None:
            self._forget(ledger, name)
            ledger.records.put(INVITATIONS, _key(code), Invitation(person=name, by=by, until_ns=until_ns))
            self._sessions.note(ledger, by, "person.invited", name, "")

        await self._store.write(work)
        return code, until_ns

    async def redeem(self, code: str, password: str, *, before: SessionKey | None) -> str:
        """Return the cookie of whoever was invited by `code`, and keep `password` if there is one.

        Raise LoginRefused, and leave the code as it was, when the code or the password will not do.
        """
        invited = await self._store.read(lambda ledger: ledger.records.get(INVITATIONS, _key(code)))
        if invited is None:
            raise WrongCredentials("this code is unknown, used, or too old")
        hashed = await self._hashed(invited.person, password) if password else ""
        cookie, opening = self._sessions.opening(person=invited.person, means=Means.INVITATION, before=before)

        def work(ledger: Ledger) -> bool:
            still = ledger.records.get(INVITATIONS, _key(code))
            now_ns = self._keeper.now_ns()
            if still is None or now_ns > still.until_ns or still.person not in self.persons:
                return False
            ledger.records.remove(INVITATIONS, _key(code))
            self._sessions.note(ledger, still.person, "invitation.used", still.person, f"by {still.by}")
            if hashed:
                self._keep(ledger, still.person, hashed, now_ns)
                self._sessions.ending_all(ledger, still.person, by=still.person)
            opening(ledger)
            return True

        if not await self._store.write(work):
            raise WrongCredentials("this code is unknown, used, or too old")
        return cookie

    async def set_password(self, name: str, password: str, *, session: SessionKey | None) -> None:
        """Keep a new password and end the person's other sessions; raise LoginRefused."""
        hashed = await self._hashed(name, password)

        def work(ledger: Ledger) -> None:
            self._keep(ledger, name, hashed, self._keeper.now_ns())
            self._sessions.ending_all(ledger, name, by=name, but=session)

        await self._store.write(work)

    def in_settings(self, name: str) -> bool:
        """Return whether a person's password stands in the settings, and so is changed there alone."""
        person = self.persons.get(name)
        return person is not None and person.password_hash is not None

    async def view(self, passkeys: Sequence[str]) -> list[PersonView]:
        """Return every person, by name; `passkeys` are the names of their owners."""
        now_ns = self._keeper.now_ns()
        kept, sessions, invited = await self._store.read(
            lambda ledger: (
                set(ledger.records.of(PASSWORDS)),
                [each.person for each in ledger.records.of(SESSIONS).values()],
                {each.person for each in ledger.records.of(INVITATIONS).values() if each.until_ns >= now_ns},
            )
        )
        return [
            PersonView(
                name=name,
                role=person.role.value,
                token=person.token_sha256 is not None,
                password=person.password_hash is not None or name in kept,
                passkeys=passkeys.count(name),
                sessions=sessions.count(name),
                invited=name in invited,
            )
            for name, person in sorted(self.persons.items())
        ]

    async def _hashed(self, name: str, password: str) -> str:
        if name not in self.persons:
            raise LoginRefused("you log in through another service, which keeps your password")
        if self.in_settings(name):
            raise LoginRefused("your password stands in the orchestrator's settings; it is changed there")
        if refusal := refusal_of(password):
            raise LoginRefused(refusal)
        return await self._passwords.hash(password)

    def _keep(self, ledger: Ledger, name: str, hashed: str, now_ns: int) -> None:
        ledger.records.put(PASSWORDS, name, KeptPassword(hashed=hashed, set_ns=now_ns))
        self._sessions.note(ledger, name, "password.set", name, "")

    def _forget(self, ledger: Ledger, name: str) -> None:
        """Remove the invitations of a person, and those whose time is over."""
        now_ns = self._keeper.now_ns()
        for key, each in ledger.records.of(INVITATIONS).items():
            if each.person == name or each.until_ns < now_ns:
                ledger.records.remove(INVITATIONS, key)


def _key(code: str) -> str:
    return hashlib.sha256(code.encode(errors="replace")).hexdigest()
