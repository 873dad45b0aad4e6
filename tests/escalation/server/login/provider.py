"""A small provider of identities over a real socket, with real keys: honest, or wrong as a test asks."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

CLIENT, SECRET = "nanobot", "a secret: with/odd+characters"


def new_key() -> rsa.RSAPrivateKey:
    """Return a key that takes little time to make."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


KEY = new_key()


@dataclass
class TestProvider:
    """What it says of who logs in is `claims`; `forge` makes the token when it is to be a wrong one."""

    __test__ = False

    now_s: Callable[[], float]
    issuer: str = ""
    key: rsa.RSAPrivateKey = KEY
    kid: str = "one"
    claims: dict[str, Any] = field(default_factory=lambda: {"sub": "248289761001"})
    forge: Callable[[dict[str, Any]], str] | None = None
    asked: dict[str, list[str]] = field(default_factory=dict)
    codes: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    described: dict[str, Any] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    tokens: Any = None

    def logs_in(self, address: str) -> tuple[str, str]:
        """Return the code and state that a browser comes back with, after its person logged in there."""
        self.asked = parse_qs(urlsplit(address).query)
        assert self.asked["client_id"] == [CLIENT]
        assert self.asked["response_type"] == ["code"]
        assert self.asked["code_challenge_method"] == ["S256"]
        code = secrets.token_urlsafe(16)
        self.codes[code] = self.asked
        return code, self.asked["state"][0]

    def token(self, claims: dict[str, Any]) -> str:
        """Sign claims with our key."""
        return jwt.encode(claims, self.key, algorithm="RS256", headers={"kid": self.kid})

    def app(self) -> Starlette:
        """Return what answers."""
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._describe),
                Route("/keys", self._keys),
                Route("/token", self._token, methods=["POST"]),
            ]
        )

    async def _describe(self, _request: Request) -> Response:
        self.requests.append("describe")
        return JSONResponse(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
            }
            | self.described
        )

    async def _keys(self, _request: Request) -> Response:
        self.requests.append("keys")
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return JSONResponse({"keys": [public | {"kid": self.kid, "use": "sig"}, {"kty": "odd"}, 7]})

    async def _token(self, request: Request) -> Response:
        self.requests.append("token")
        form = {name: value for name, (value, *_) in parse_qs((await request.body()).decode()).items()}
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        asked = self.codes.pop(form.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if (
            asked is None
            or request.headers.get("authorization") != f"Basic {basic}"
            or asked["code_challenge"] != [challenge.rstrip(b"=").decode()]
            or asked["redirect_uri"] != [form.get("redirect_uri")]
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        now = int(self.now_s())
        claims = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": asked["nonce"][0]}
        token = (self.forge or self.token)(claims | self.claims)
        if self.tokens is not None:
            return Response(self.tokens, media_type="application/json")
        return JSONResponse({"id_token": token, "token_type": "Bearer", "access_token": "unused"})


@contextlib.asynccontextmanager
async def serving(provider: TestProvider) -> AsyncIterator[TestProvider]:
    """Serve on a loopback port while inside."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(
            provider.app(), http="h11", log_config=None, lifespan="off", timeout_graceful_shutdown=1
        )
    )
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
    provider.issuer = f"http://127.0.0.1:{listening.getsockname()[1]}"
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield provider
    finally:
        server.should_exit = True
        await task
        listening.close()
