"""What is begun and not finished yet: a challenge for a passkey, a journey to a provider of identities.

Each is a record, good once and for minutes, so that it may be finished at another orchestrator of the same
database, and can be finished once only. Whoever begins many pushes out the oldest.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import secrets
from dataclasses import dataclass
from typing import Final

from escalation.server.clock import Timekeeper
from escalation.server.storage.records import Kind
from escalation.server.storage.store import Ledger, Store

OPEN_AT_MOST: Final = 512

_GOOD_FOR_NS: Final = 300_000_000_000
_BYTES: Final = 32


class Purpose(enum.StrEnum):
    """What is finished with it."""

    PASSKEY_LOGIN = "passkey_login"
    PASSKEY_AGAIN = "passkey_again"
    PASSKEY_ADD = "passkey_add"
    OIDC = "oidc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """What was begun: `person` is whose it is, or nobody's yet; `secret` is what only we know of it."""

    purpose: Purpose
    begun_ns: int
    challenge: str
    person: str = ""
    secret: str = ""
    back: str = "/"


HANDSHAKES: Final = Kind("handshake", Handshake)


class Handshakes:
    """The handshakes of one database."""

    def __init__(self, *, store: Store, keeper: Timekeeper) -> None:
        """Keep them in `store`."""
        self._store = store
        self._keeper = keeper

    def __repr__(self) -> str:
        return "Handshakes()"

    async def begin(
        self,
        purpose: Purpose,
        *,
        name: str = "",
        person: str = "",
        challenge: str = "",
        secret: str = "",
        back: str = "/",
    ) -> tuple[str, Handshake]:
        """Return the name of a new handshake, and it; both are random unless given. Raise StoreError."""
        name = name or random_text()
        now_ns = self._keeper.now_ns()
        handshake = Handshake(
            purpose=purpose,
            begun_ns=now_ns,
            challenge=challenge or random_text(),
            person=person,
            secret=secret,
            back=back,
        )

        def work(ledger: Ledger) -> None:
            kept = ledger.records.of(HANDSHAKES)
            over = {key for key, each in kept.items() if self._over(each, now_ns)}
            left = sorted(kept.keys() - over, key=lambda key: kept[key].begun_ns)
            for key in over | set(left[: max(0, len(left) - OPEN_AT_MOST + 1)]):
                ledger.records.remove(HANDSHAKES, key)
            ledger.records.put(HANDSHAKES, _key(name), handshake)

        await self._store.write(work)
        return name, handshake

    async def take(self, name: str, purpose: Purpose, *, person: str = "") -> Handshake | None:
        """Return a handshake of this purpose and person, which is then finished; None when there is none."""

        def work(ledger: Ledger) -> Handshake | None:
            found = ledger.records.get(HANDSHAKES, _key(name))
            if found is None or found.purpose is not purpose or found.person != person:
                return None
            ledger.records.remove(HANDSHAKES, _key(name))
            return None if self._over(found, self._keeper.now_ns()) else found

        return await self._store.write(work)

    def _over(self, handshake: Handshake, now_ns: int) -> bool:
        return now_ns - handshake.begun_ns > _GOOD_FOR_NS


def random_text() -> str:
    """Return 32 random bytes as text for an address or a header."""
    return base64.urlsafe_b64encode(secrets.token_bytes(_BYTES)).rstrip(b"=").decode()


def _key(name: str) -> str:
    return hashlib.sha256(name.encode(errors="replace")).hexdigest()
