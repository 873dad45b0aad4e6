"""Logging in through a provider of identities: OpenID Connect, authorization code with PKCE, state and nonce.

What counts is the ID token, and it is checked whole (OpenID Connect Core 1.0, 3.1.3.7): signature by a key of
the issuer, never `none` and never a secret shared with us; issuer, audience, times and nonce. Nobody is let
in by default: a claim names one of our persons, or a group of theirs is mapped to a role.

The token is read by PyJWT, which needs nothing beside `cryptography`. Authlib would bring the whole flow, and
with it sessions in a cookie of its own; the flow is two requests.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, TypeGuard
from urllib.parse import urlencode, urlsplit

import httpx2
import jwt
import msgspec

from escalation.server.clock import Timekeeper
from escalation.server.web.access import Person, Role
from escalation.server.web.login.refusals import LoginBusy, WrongCredentials

ALGORITHMS: Final = ("EdDSA", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512")

_TIMEOUT_S: Final = 10.0
_LONGEST_BYTES: Final = 256 * 1024
_KNOWN_FOR_S: Final = 3600.0
_KEYS_AGAIN_AFTER_S: Final = 60.0
_LEEWAY_S: Final = 60.0
_OLDEST_S: Final = 600.0
_LATEST_S: Final = 2.0**40

_Claim = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_:./-]{1,200}\Z")]


class OidcSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[login.oidc]` table: the issuer, who we are to it, and what its claims mean here.

    `claim` is compared with each person's `oidc`; whoever is none of them needs a group of `roles`, and is
    called by that claim. `ca_file` is trusted instead of the system's authorities.
    """

    issuer: str
    client_id: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    client_secret_file: Path | None = None
    ca_file: Path | None = None
    label: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] = "your organisation"
    claim: _Claim = "sub"
    groups_claim: _Claim = "groups"
    roles: dict[str, Role] = {}
    scopes: tuple[str, ...] = ("openid", "profile", "email")

    def __post_init__(self) -> None:
        """Refuse an issuer whose answers could be changed on the way."""
        if not _trusted(self.issuer):
            raise ValueError("login.oidc.issuer is https://, or http:// on loopback")
        if "openid" not in self.scopes:
            raise ValueError("login.oidc.scopes includes openid")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the provider says somebody is: one of our persons, or a stranger with a role; and since when."""

    person: str
    role: Role | None
    proven_ns: int


class _Discovered(msgspec.Struct, frozen=True):
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str


class _Tokens(msgspec.Struct, frozen=True):
    id_token: str


class Provider:
    """The provider of identities, as the settings name it."""

    def __init__(
        self, *, settings: OidcSettings, keeper: Timekeeper, redirect_uri: str, persons: Mapping[str, Person]
    ) -> None:
        """Let its people come back to `redirect_uri`; `persons` are ours."""
        self._settings = settings
        self._keeper = keeper
        self._redirect_uri = redirect_uri
        self._persons = persons
        self._discovered: tuple[float, _Discovered] | None = None
        self._keys: tuple[float, Mapping[str, jwt.PyJWK]] | None = None
        self.label = settings.label

    def __repr__(self) -> str:
        return f"Provider(issuer={self._settings.issuer!r})"

    async def address(self, *, state: str, nonce: str, verifier: str, again: bool) -> str:
        """Return where a browser goes; with `again` the provider asks for the login anew. Raise LoginBusy."""
        found = await self._discover()
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": self._redirect_uri,
            "scope": " ".join(self._settings.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        } | ({"prompt": "login", "max_age": "0"} if again else {})
        joint = "&" if "?" in found.authorization_endpoint else "?"
        return f"{found.authorization_endpoint}{joint}{urlencode(asked)}"

    async def identity(self, *, code: str, nonce: str, verifier: str) -> Identity:
        """Return who came back with `code`; raise LoginRefused."""
        found = await self._discover()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": verifier,
        }
        secret = self._secret()
        if secret is None:
            form["client_id"] = self._settings.client_id
        auth = None if secret is None else (self._settings.client_id, secret)
        tokens = _read(await self._ask("POST", found.token_endpoint, data=form, auth=auth), _Tokens)
        return self._who(await self._claims(tokens.id_token, nonce=nonce))

    async def _claims(self, token: str, *, nonce: str) -> Mapping[str, Any]:
        """Return the claims of an ID token that is right in every respect; raise LoginRefused."""
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError as error:
            raise _wrong() from error
        if header.get("alg") not in ALGORITHMS:
            raise _wrong()
        key = await self._key(str(header.get("kid", "")))
        try:
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[header["alg"]] if header["alg"] in _fitting(key) else [],
                audience=self._settings.client_id,
                issuer=self._settings.issuer,
                options={
                    "require": ["iss", "sub", "aud", "exp", "iat", "nonce"],
                    # Against our own clock, below.
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise _wrong() from error
        self._check_times(claims)
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if (several or "azp" in claims) and claims.get("azp") != self._settings.client_id:
            raise _wrong()
        given = claims["nonce"]
        if not isinstance(given, str):
            raise _wrong()
        # What cannot be encoded becomes a question mark, which no nonce of ours has.
        if not hmac.compare_digest(given.encode(errors="replace"), nonce.encode()):
            raise _wrong()
        return claims

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        now_s = self._keeper.now_ns() / 1e9
        expires_s, issued_s, begins_s = claims["exp"], claims["iat"], claims.get("nbf", claims["iat"])
        for each in (expires_s, issued_s, begins_s):
            if not _is_time(each):
                raise _wrong()
        if not (
            now_s < expires_s + _LEEWAY_S
            and now_s - _OLDEST_S < issued_s < now_s + _LEEWAY_S
            and begins_s < now_s + _LEEWAY_S
        ):
            raise _wrong()

    def _who(self, claims: Mapping[str, Any]) -> Identity:
        """Return who these claims are of here; raise LoginRefused for whoever is nobody."""
        value = claims.get(self._settings.claim)
        verified = self._settings.claim != "email" or claims.get("email_verified") is True
        if not isinstance(value, str) or not value or not verified:
            raise WrongCredentials("the provider knows you, and nobody here is called so")
        since = claims.get("auth_time")
        proven_ns = int(max(0.0, min(since, self._keeper.now_ns() / 1e9)) * 1e9) if _is_time(since) else 0
        for person in self._persons.values():
            if person.oidc == value:
                return Identity(person.name, None, proven_ns)
        groups = claims.get(self._settings.groups_claim)
        named = groups if isinstance(groups, list) else []
        roles = [
            self._settings.roles[each]
            for each in named
            if isinstance(each, str) and each in self._settings.roles
        ]
        if not roles or value in self._persons or not _is_name(value):
            raise WrongCredentials("the provider knows you, and nobody here is called so")
        order = tuple(Role)
        return Identity(value, max(roles, key=order.index), proven_ns)

    async def _discover(self) -> _Discovered:
        now_s = self._keeper.steady_s()
        if self._discovered is None or now_s - self._discovered[0] > _KNOWN_FOR_S:
            issuer = self._settings.issuer
            url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
            found = _read(await self._ask("GET", url), _Discovered)
            ends = (found.authorization_endpoint, found.token_endpoint, found.jwks_uri)
            if found.issuer != issuer or not all(_trusted(each) for each in ends):
                raise LoginBusy("the provider of identities does not describe itself as the settings do")
            self._discovered = (now_s, found)
        return self._discovered[1]

    async def _key(self, kid: str) -> jwt.PyJWK:
        """Return the issuer's key of this name; the keys are asked for again when it is a new one."""
        now_s = self._keeper.steady_s()
        known = self._keys
        if known is None or (kid not in known[1] and now_s - known[0] > _KEYS_AGAIN_AFTER_S):
            body = await self._ask("GET", (await self._discover()).jwks_uri)
            known = self._keys = (now_s, _keys_of(body))
        if kid not in known[1]:
            raise _wrong()
        return known[1][kid]

    async def _ask(self, method: str, url: str, **sent: Any) -> bytes:
        """Return the body of a good answer; raise LoginRefused."""
        verify: ssl.SSLContext | bool = True
        try:
            if self._settings.ca_file is not None:
                verify = ssl.create_default_context(cafile=str(self._settings.ca_file))
            async with (
                httpx2.AsyncClient(timeout=_TIMEOUT_S, verify=verify, trust_env=False) as client,
                client.stream(method, url, headers={"accept": "application/json"}, **sent) as answer,
            ):
                body = bytearray()
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > _LONGEST_BYTES:
                        raise LoginBusy("the provider of identities answers at too great length")
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise LoginBusy("the provider of identities does not answer") from error
        if answer.status_code in {400, 401, 403}:
            raise _wrong()
        if answer.status_code != httpx2.codes.OK:
            raise LoginBusy("the provider of identities does not answer")
        return bytes(body)

    def _secret(self) -> str | None:
        path = self._settings.client_secret_file
        if path is None:
            return None
        try:
            return path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise LoginBusy("the secret for the provider of identities cannot be read here") from error


def _keys_of(body: bytes) -> Mapping[str, jwt.PyJWK]:
    """Return the public keys for signatures of a JWK set by name; those that cannot be read are left out."""
    try:
        listed = json.loads(body)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise LoginBusy("the provider of identities has no keys that can be read") from error
    found: dict[str, jwt.PyJWK] = {}
    for each in listed if isinstance(listed, list) else ():
        if not isinstance(each, dict) or each.get("use", "sig") != "sig" or each.get("kty") == "oct":
            continue
        try:
            found[str(each.get("kid", ""))] = jwt.PyJWK.from_dict(each)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            continue
    return found


def _fitting(key: jwt.PyJWK) -> frozenset[str]:
    """Return the algorithms that a key of this type may have signed with."""
    begins = {"RSA": ("RS", "PS"), "EC": ("ES",), "OKP": ("EdDSA",)}.get(key.key_type or "", ())
    return frozenset(each for each in ALGORITHMS if each.startswith(begins)) if begins else frozenset()


def _read(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LoginBusy("the provider of identities answers something else than expected") from error


def _is_time(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LATEST_S


def _is_name(value: str) -> bool:
    """Return whether a person could be called so."""
    try:
        msgspec.convert({"name": value, "role": Role.VIEWER}, type=Person)
    except msgspec.ValidationError:
        return False
    return True


def _trusted(url: str) -> bool:
    """Return whether what this address answers cannot be changed on the way."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme == "https":
        return bool(host)
    try:
        return parts.scheme == "http" and (host == "localhost" or ipaddress.ip_address(host).is_loopback)
    except ValueError:
        return False


def _wrong() -> WrongCredentials:
    return WrongCredentials("what came back from the provider of identities is not right; log in again")
