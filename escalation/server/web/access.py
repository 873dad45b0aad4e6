"""Who may ask: named persons with tokens, four roles, and a limit on failed attempts.

Tokens are 32 random bytes, so they are stored as a plain SHA-256 (a slow hash protects guessable secrets,
and would let anybody burn our processor). The limit on failed attempts therefore is no defence against
guessing, which is hopeless, but against noise: a right token always passes, so nobody can be locked out by
somebody who shares their address.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from escalation.server.clock import Clock

_NO_DIGEST: Final = "0" * 64


class Role(enum.StrEnum):
    """What a person may do; each role includes those before it."""

    SCRAPER = "scraper"
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def may(self, needed: Role) -> bool:
        """Return whether this role includes `needed`."""
        order = tuple(Role)
        return order.index(self) >= order.index(needed)


class Person(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[person]]` of orchestrator.toml: the name in the audit log, a role, and how they may log in.

    A token's SHA-256 is for tools, and for the page as well; a password's hash is for the page. Without
    either an invitation, the claim of a provider of identities (`oidc`) or a login of the tailnet
    (`tailscale`, whose values that begin with `tag:` name machines) says who they are.
    """

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")]
    role: Role
    token_sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")] | None = None
    password_hash: Annotated[str, msgspec.Meta(max_length=512)] | None = None
    oidc: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None
    tailscale: tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=256)], ...] = ()

    def __post_init__(self) -> None:
        """Refuse the name by which the audit log says that nobody asked."""
        if self.name == "orchestrator":
            raise ValueError("no person is called orchestrator: the audit log calls the orchestrator so")


@dataclass(frozen=True, slots=True)
class Presented:
    """Credentials as a request brought them; `name` is None with a bearer token."""

    name: str | None
    token: str


def presented(authorization: str) -> Presented | None:
    """Return the credentials of an Authorization header, or None when it is of no known form."""
    scheme, _, value = authorization.strip().partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer" and value:
        return Presented(None, value)
    if scheme.lower() != "basic":
        return None
    try:
        name, separator, token = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return Presented(name, token) if separator and token else None


def authenticate(credentials: Presented, persons: Sequence[Person]) -> Person | None:
    """Return the person whose token this is; every person's is compared, in constant time each."""
    digest = hashlib.sha256(credentials.token.encode(errors="surrogatepass")).hexdigest()
    found: Person | None = None
    for person in persons:
        fits = hmac.compare_digest(digest, person.token_sha256 or _NO_DIGEST)
        if fits and person.token_sha256 and credentials.name in {None, person.name}:
            found = person
    return found


class FailedLogins:
    """A token bucket per address: ten failures at once, then one each five seconds.

    Only the newest addresses are remembered, so a flood of addresses costs no memory.
    """

    _ADDRESSES: Final = 1024

    def __init__(self, *, clock: Clock, burst: float = 10.0, per_s: float = 0.2) -> None:
        """Count with the steady side of `clock`: `burst` at once, then `per_s`."""
        self._clock = clock
        self._burst = burst
        self._per_s = per_s
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __repr__(self) -> str:
        return f"FailedLogins(addresses={len(self._buckets)})"

    def allow(self, address: str) -> bool:
        """Count one failure of `address`; return False when it has had too many."""
        now_s = self._clock.steady_s()
        left, seen_s = self._buckets.pop(address, (self._burst, now_s))
        left = min(self._burst, left + (now_s - seen_s) * self._per_s)
        allowed = left >= 1.0
        self._buckets[address] = (left - 1.0 if allowed else left, now_s)
        if len(self._buckets) > self._ADDRESSES:
            self._buckets.popitem(last=False)
        return allowed

    def forgive(self, address: str) -> None:
        """Take back one failure that was counted before it was known to be none."""
        if bucket := self._buckets.get(address):
            self._buckets[address] = (min(self._burst, bucket[0] + 1.0), bucket[1])
