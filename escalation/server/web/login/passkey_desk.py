"""What people do with their passkeys: add them, log in with them, show once more who they are, remove."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import structlog

from escalation.inert import shown
from escalation.server.clock import Clock, Timekeeper
from escalation.server.metrics import ServerMetrics
from escalation.server.storage.records import Kind
from escalation.server.storage.store import Ledger, Store
from escalation.server.web.access import FailedLogins
from escalation.server.web.login.handshakes import Handshakes, Purpose
from escalation.server.web.login.passkeys import Assertion, Attestation, Passkey, RelyingParty, WrongPasskey
from escalation.server.web.login.refusals import LoginRefused, TooManyAttempts, WrongCredentials
from escalation.server.web.login.sessions import Means, Sessions
from escalation.server.web.login.visits import SessionKey

PASSKEYS: Final = Kind("passkey", Passkey)
PER_PERSON: Final = 16

_LABEL_CHARACTERS: Final = 64
_BEGUN_AT_ONCE: Final = 60.0
_BEGUN_PER_S: Final = 1.0


class PasskeyDesk:
    """The passkeys of one database, for one origin."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        keeper: Timekeeper,
        sessions: Sessions,
        metrics: ServerMetrics,
        origin: str,
    ) -> None:
        """Ask for passkeys of `origin`."""
        self._store = store
        self._keeper = keeper
        self._sessions = sessions
        self._metrics = metrics
        self._party = RelyingParty(origin=origin)
        self._handshakes = Handshakes(store=store, keeper=keeper)
        self._begun = FailedLogins(clock=clock, burst=_BEGUN_AT_ONCE, per_s=_BEGUN_PER_S)
        self._log = structlog.get_logger("nanobot.orchestrator.login")

    def __repr__(self) -> str:
        return f"PasskeyDesk(origin={self._party.origin!r})"

    async def of(self, person: str) -> Mapping[str, Passkey]:
        """Return a person's passkeys by id, oldest first; raise StoreError."""
        kept = await self._store.read(lambda ledger: ledger.records.of(PASSKEYS))
        mine = [(key, each) for key, each in kept.items() if each.person == person]
        return dict(sorted(mine, key=lambda item: item[1].added_ns))

    async def owners(self) -> Sequence[str]:
        """Return whose each passkey is; raise StoreError."""
        kept = await self._store.read(lambda ledger: ledger.records.of(PASSKEYS))
        return [each.person for each in kept.values()]

    async def to_log_in(self, *, address: str) -> tuple[str, dict[str, Any]]:
        """Return a handshake and what a browser is asked; raise LoginRefused or StoreError."""
        if not self._begun.allow(address):
            raise TooManyAttempts("too many attempts; wait a minute")
        name, handshake = await self._handshakes.begin(Purpose.PASSKEY_LOGIN)
        return name, self._party.to_use(challenge=handshake.challenge)

    async def log_in(
        self, handshake: str, answer: Assertion, *, persons: Mapping[str, object], before: SessionKey | None
    ) -> str:
        """Return the cookie of a session of whose passkey answered; raise LoginRefused or StoreError."""
        begun = await self._handshakes.take(handshake, Purpose.PASSKEY_LOGIN)
        if begun is None:
            raise self._refused("the challenge is unknown, used, or too old")
        passkey = await self._answered(answer, begun.challenge, person=None)
        if passkey.person not in persons:
            raise self._refused("the passkey is of nobody in the settings")
        cookie, work = self._sessions.opening(person=passkey.person, means=Means.PASSKEY, before=before)
        await self._store.write(work)
        return cookie

    async def to_show(self, person: str) -> tuple[str, dict[str, Any]]:
        """Return a handshake and what the browser of a person is asked, to show once more who they are."""
        name, handshake = await self._handshakes.begin(Purpose.PASSKEY_AGAIN, person=person)
        return name, self._party.to_use(challenge=handshake.challenge, known=list(await self.of(person)))

    async def show(self, handshake: str, answer: Assertion, *, person: str, session: SessionKey) -> None:
        """Keep that the person of a session showed who they are; raise LoginRefused or StoreError."""
        begun = await self._handshakes.take(handshake, Purpose.PASSKEY_AGAIN, person=person)
        if begun is None:
            raise self._refused("the challenge is unknown, used, or too old")
        await self._answered(answer, begun.challenge, person=person)
        await self._sessions.confirm(session)

    async def to_add(self, person: str) -> tuple[str, dict[str, Any]]:
        """Return a handshake, and what a person's browser is asked to make a passkey; raise LoginRefused."""
        known = list(await self.of(person))
        if len(known) >= PER_PERSON:
            raise LoginRefused(f"{PER_PERSON} passkeys are enough; remove one first")
        name, handshake = await self._handshakes.begin(Purpose.PASSKEY_ADD, person=person)
        return name, self._party.to_add(person, challenge=handshake.challenge, known=known)

    async def add(self, handshake: str, answer: Attestation, *, person: str, label: str) -> None:
        """Keep the passkey that a person's browser made; raise LoginRefused or StoreError."""
        begun = await self._handshakes.take(handshake, Purpose.PASSKEY_ADD, person=person)
        if begun is None:
            raise self._refused("the challenge is unknown, used, or too old")
        try:
            key, public, count = self._party.added(answer, challenge=begun.challenge)
        except WrongPasskey as error:
            raise self._refused(str(error)) from error
        now_ns = self._keeper.now_ns()
        passkey = Passkey(
            person=person,
            label=shown(label.strip()[:_LABEL_CHARACTERS]) or "passkey",
            public=public,
            sign_count=count,
            added_ns=now_ns,
            used_ns=0,
        )

        def work(ledger: Ledger) -> bool:
            if ledger.records.get(PASSKEYS, key) is not None:
                return False
            ledger.records.put(PASSKEYS, key, passkey)
            self._sessions.note(ledger, person, "passkey.added", person, key)
            return True

        if not await self._store.write(work):
            raise self._refused("this passkey is there already")

    async def remove(self, key: str, *, person: str, by: str) -> bool:
        """Remove one passkey of a person, and return whether there was one; raise StoreError."""

        def work(ledger: Ledger) -> bool:
            kept = ledger.records.get(PASSKEYS, key)
            if kept is None or kept.person != person:
                return False
            ledger.records.remove(PASSKEYS, key)
            self._sessions.note(ledger, by, "passkey.removed", person, key)
            return True

        return await self._store.write(work)

    async def _answered(self, answer: Assertion, challenge: str, *, person: str | None) -> Passkey:
        """Return the passkey that answered, its count kept; raise LoginRefused or StoreError."""

        def work(ledger: Ledger) -> Passkey | WrongPasskey:
            passkey = ledger.records.get(PASSKEYS, answer.id)
            if passkey is None or person not in {None, passkey.person}:
                return WrongPasskey("the passkey is unknown here")
            try:
                count = self._party.used(answer, passkey, challenge=challenge)
            except WrongPasskey as error:
                self._sessions.note(ledger, "orchestrator", "passkey.refused", passkey.person, str(error))
                return error
            used = replace(passkey, sign_count=count, used_ns=self._keeper.now_ns())
            ledger.records.put(PASSKEYS, answer.id, used)
            return used

        found = await self._store.write(work)
        if isinstance(found, WrongPasskey):
            raise self._refused(str(found)) from found
        return found

    def _refused(self, why: str) -> WrongCredentials:
        self._metrics.login_refused()
        self._log.warning("passkey_refused", error=why)
        return WrongCredentials("this passkey does not let you in")
