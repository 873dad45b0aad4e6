"""What people do to log in, to show once more who they are, and to end their sessions.

Guessing is slowed by address and by account. Whoever has a session keeps it whatever happens to the account's
limit, and a passkey is never limited: it cannot be guessed. Names are counted in a fixed number of slots by
their hash, so an unknown name is treated as a known one, and a flood of names costs no memory.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

import structlog

from escalation.server.clock import Clock, Timekeeper
from escalation.server.metrics import ServerMetrics
from escalation.server.storage.store import Store, StoreError
from escalation.server.web.access import FailedLogins, Person, Presented, authenticate
from escalation.server.web.login.accounts import Accounts
from escalation.server.web.login.oidc import OidcSettings, Provider
from escalation.server.web.login.oidc_desk import OidcDesk
from escalation.server.web.login.passkey_desk import PasskeyDesk
from escalation.server.web.login.passkeys import has_passkeys
from escalation.server.web.login.passwords import Passwords
from escalation.server.web.login.refusals import LoginBusy, LoginRefused, TooManyAttempts, WrongCredentials
from escalation.server.web.login.sessions import Means, Sessions
from escalation.server.web.login.settings import LoginSettings
from escalation.server.web.login.tailnet import Tailnet
from escalation.server.web.login.visits import SessionKey, Visit

_SLOTS: Final = 512
_NOTED_EACH_S: Final = 300.0


class LoginDesk:
    """Logs people in on `store`, and knows their cookies."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        settings: LoginSettings,
        persons: Sequence[Person],
        metrics: ServerMetrics,
        passwords: Passwords,
        origin: str = "",
    ) -> None:
        """Know `persons`; times are those of `clock`; passkeys are of `origin`, and none without it."""
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._passwords = passwords
        self._addresses = FailedLogins(clock=clock)
        self._limited = FailedLogins(clock=clock)
        self._noted_s = -_NOTED_EACH_S
        self._log = structlog.get_logger("nanobot.orchestrator.login")
        self.settings = settings
        self.keeper = Timekeeper(clock=clock)
        self.sessions = Sessions(store=store, keeper=self.keeper, settings=settings, persons=persons)
        self.accounts = Accounts(
            store=store,
            keeper=self.keeper,
            settings=settings,
            persons=persons,
            passwords=passwords,
            sessions=self.sessions,
        )
        self.origin = origin
        self.passkeys = (
            PasskeyDesk(
                store=store,
                clock=clock,
                keeper=self.keeper,
                sessions=self.sessions,
                metrics=metrics,
                origin=origin,
            )
            if has_passkeys(origin)
            else None
        )
        self.tailnet = (
            None if settings.tailscale is None else Tailnet(settings=settings.tailscale, persons=persons)
        )
        self.oidc = None if settings.oidc is None else self._oidc(settings.oidc)

    async def by_tailnet(self, host: str, port: int, *, before: SessionKey | None) -> str:
        """Return the cookie of a new session for whom the tailnet knows at this end; raise LoginRefused."""
        if self.tailnet is None or self.settings.tailscale is None:
            raise WrongCredentials("the tailnet lets nobody in here")
        try:
            person = await self.tailnet.person(host, port)
        except LoginRefused as refused:
            self._metrics.login_refused()
            self._log.warning("tailnet_refused", address=host, error=str(refused))
            raise
        proven_ns = None if self.settings.tailscale.fresh else 0
        cookie, work = self.sessions.opening(
            person=person.name, means=Means.TAILSCALE, proven_ns=proven_ns, before=before
        )
        await self._store.write(work)
        return cookie

    def _oidc(self, settings: OidcSettings) -> OidcDesk:
        return OidcDesk(
            store=self._store,
            clock=self._clock,
            keeper=self.keeper,
            sessions=self.sessions,
            metrics=self._metrics,
            provider=Provider(
                settings=settings,
                keeper=self.keeper,
                redirect_uri=f"{self.origin}/login/oidc/callback",
                persons=self.accounts.persons,
            ),
        )

    def __repr__(self) -> str:
        return f"LoginDesk(persons={len(self.accounts.persons)})"

    async def visit(self, cookie: str, *, attended: bool) -> Visit | None:
        """Return whose cookie this is, or None; raise StoreError."""
        return await self.sessions.visit(cookie, attended=attended)

    async def stands(self, key: SessionKey) -> bool:
        """Return whether a session has not ended yet; raise StoreError."""
        return await self.sessions.stands(key)

    async def by_secret(self, name: str, secret: str, *, address: str, before: SessionKey | None) -> str:
        """Return the cookie of a new session for a name with its password or token; raise LoginRefused."""
        means = await self._means(name, secret, address=address)
        cookie, work = self.sessions.opening(person=name, means=means, before=before)
        try:
            await self._store.write(work)
        except StoreError as error:
            raise LoginBusy("nothing can be kept now; try again in a moment") from error
        return cookie

    async def again_by_secret(self, person: str, secret: str, *, address: str, session: SessionKey) -> None:
        """Keep that the person of a session showed once more who they are; raise LoginRefused."""
        await self._means(person, secret, address=address)
        try:
            await self.sessions.confirm(session)
        except StoreError as error:
            raise LoginBusy("nothing can be kept now; try again in a moment") from error

    async def _means(self, name: str, secret: str, *, address: str) -> Means:
        """Return whether it was a password or a token that fits this name; raise LoginRefused."""
        account = str(zlib.crc32(name.encode(errors="replace")) % _SLOTS)
        allowed = self._addresses.allow(address)
        if not (allowed and self._limited.allow(account)):
            if allowed:
                self._addresses.forgive(address)
            self._metrics.login_refused()
            await self._note_limit(name)
            raise TooManyAttempts("too many failed attempts; wait a minute, or use a passkey")
        person = self.accounts.persons.get(name)
        means = None
        try:
            fits = await self._passwords.fits(await self.accounts.hash_of(name), secret)
        except (LoginBusy, StoreError) as error:
            self._addresses.forgive(address)
            self._limited.forgive(account)
            raise LoginBusy("it cannot be checked now; try again in a moment") from error
        if fits:
            means = Means.PASSWORD
        elif person is not None and authenticate(Presented(name, secret), (person,)):
            means = Means.TOKEN
        if means is None:
            self._metrics.login_refused()
            self._log.warning("login_refused", address=address, account=name if person else "unknown")
            raise WrongCredentials("name and password do not fit")
        self._addresses.forgive(address)
        self._limited.forgive(account)
        return means

    async def _note_limit(self, name: str) -> None:
        """Write to the audit log that a limit refuses attempts, seldom, so that nobody can flood it."""
        now_s = self._clock.steady_s()
        if now_s - self._noted_s < _NOTED_EACH_S:
            return
        self._noted_s = now_s
        about = name if name in self.accounts.persons else "unknown"
        try:
            await self._store.write(
                lambda ledger: self.sessions.note(
                    ledger, "orchestrator", "login.limited", about, "too many failed attempts"
                )
            )
        except StoreError:
            self._log.warning("login_limit_not_noted", account=about)
