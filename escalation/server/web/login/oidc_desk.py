"""Who comes back from a provider of identities: begun by a browser, finished by the same one, once."""

from __future__ import annotations

import hashlib
from typing import Final

import structlog

from escalation.server.clock import Clock, Timekeeper
from escalation.server.metrics import ServerMetrics
from escalation.server.storage.store import Store
from escalation.server.web.access import FailedLogins
from escalation.server.web.login.handshakes import Handshakes, Purpose, random_text
from escalation.server.web.login.oidc import Provider
from escalation.server.web.login.refusals import LoginRefused, TooManyAttempts, WrongCredentials
from escalation.server.web.login.sessions import Means, Sessions
from escalation.server.web.login.visits import SessionKey

_BEGUN_AT_ONCE: Final = 60.0
_BEGUN_PER_S: Final = 1.0


class OidcDesk:
    """Logs people in whom `provider` knows."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        keeper: Timekeeper,
        sessions: Sessions,
        metrics: ServerMetrics,
        provider: Provider,
    ) -> None:
        """Keep what is begun in `store`."""
        self._store = store
        self._sessions = sessions
        self._metrics = metrics
        self._provider = provider
        self._handshakes = Handshakes(store=store, keeper=keeper)
        self._begun = FailedLogins(clock=clock, burst=_BEGUN_AT_ONCE, per_s=_BEGUN_PER_S)
        self._log = structlog.get_logger("nanobot.orchestrator.login")

    def __repr__(self) -> str:
        return f"OidcDesk(provider={self._provider!r})"

    @property
    def label(self) -> str:
        """Return what people call the provider."""
        return self._provider.label

    async def begin(self, *, browser: str, back: str, again: bool, address: str) -> str:
        """Return where to go; `browser` is what only this browser knows. Raise LoginRefused or StoreError."""
        if not self._begun.allow(address):
            raise TooManyAttempts("too many attempts; wait a minute")
        verifier, nonce, state = random_text(), random_text(), random_text()
        there = await self._provider.address(state=state, nonce=nonce, verifier=verifier, again=again)
        await self._handshakes.begin(
            Purpose.OIDC, name=state, person=_of(browser), challenge=nonce, secret=verifier, back=back
        )
        return there

    async def finish(
        self, *, state: str, code: str, browser: str, before: SessionKey | None
    ) -> tuple[str, str]:
        """Return the cookie of a new session, and the path to go on to; raise LoginRefused or StoreError."""
        begun = await self._handshakes.take(state, Purpose.OIDC, person=_of(browser))
        try:
            if begun is None:
                raise WrongCredentials("this login was begun elsewhere, is finished, or is too old")
            who = await self._provider.identity(code=code, nonce=begun.challenge, verifier=begun.secret)
        except LoginRefused as refused:
            self._metrics.login_refused()
            self._log.warning("oidc_refused", error=str(refused))
            raise
        cookie, work = self._sessions.opening(
            person=who.person, means=Means.OIDC, role=who.role, proven_ns=who.proven_ns, before=before
        )
        await self._store.write(work)
        return cookie, begun.back


def _of(browser: str) -> str:
    return hashlib.sha256(browser.encode(errors="replace")).hexdigest()
