"""Who is on the other end of a gRPC call: the host that its certificate names, and nobody without one.

TLS has checked the certificate's chain before any of this runs. An interceptor in front of every method
refuses a peer whose certificate does not name a host of our trust domain, so that a method which is added
later is closed before anybody thinks of it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias, cast

import grpc
import grpc.aio

from escalation.model import AGENT_ID, AgentId

_ALTERNATIVE_NAMES: Final = "x509_subject_alternative_name"
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,253}[a-z0-9])?")


Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic in the stubs only


class NoIdentity(Exception):
    """The peer's certificate names no host, or more than one; the message says which."""


class Identities:
    """Reads the host's name from a peer's certificate, for one trust domain."""

    def __init__(self, *, trust_domain: str) -> None:
        """Accept ``spiffe://<trust_domain>/nanobot/agent/<host>``."""
        if _TRUST_DOMAIN.fullmatch(trust_domain) is None:
            raise ValueError(f"not a trust domain: {trust_domain!r}")
        self._prefix = f"spiffe://{trust_domain}/nanobot/agent/"

    def __repr__(self) -> str:
        return f"Identities(prefix={self._prefix!r})"

    def of(self, auth_context: Mapping[str, Iterable[bytes]]) -> AgentId:
        """Return the one host that the certificate names; raise NoIdentity."""
        names = [name.decode(errors="replace") for name in auth_context.get(_ALTERNATIVE_NAMES, ())]
        uris = [name for name in names if name.startswith("spiffe://")]
        if len(uris) != 1:
            raise NoIdentity(f"the client certificate holds {len(uris)} SPIFFE names, and one is needed")
        host = uris[0].removeprefix(self._prefix)
        if host == uris[0] or AGENT_ID.fullmatch(host) is None:
            raise NoIdentity("the client certificate names no agent of this trust domain")
        return AgentId(host)


class IdentityRequired(grpc.aio.ServerInterceptor):
    """Ends every call of a peer without an identity, whatever method it asks for."""

    def __init__(self, *, identities: Identities) -> None:
        """Ask `identities` about each peer."""
        self._identities = identities
        self.refused = 0

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Return the method's handler behind the check; a method that does not exist is checked too."""
        handler = await continuation(handler_call_details)
        # Streams both ways are the only kind of method that is served, and every other kind of call can be
        # answered as one.
        if handler is None or handler.stream_stream is None:
            return grpc.stream_stream_rpc_method_handler(cast("Any", _checked(self._check, _not_served)))
        return grpc.stream_stream_rpc_method_handler(
            cast("Any", _checked(self._check, cast("Any", handler.stream_stream))),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    async def _check(self, context: Context) -> None:
        try:
            self._identities.of(context.auth_context())
        except NoIdentity as error:
            self.refused += 1
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))

    async def _unknown_method(self, _request: bytes, context: Context) -> bytes:
        await self._check(context)
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "there is no such method")
        raise AssertionError("abort always raises")


async def _not_served(_requests: object, context: Context) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "there is no such method")


def _checked(
    check: Callable[[Context], Awaitable[None]], method: Callable[[object, Context], Awaitable[None]]
) -> Callable[[object, Context], Awaitable[None]]:
    async def checked(requests: object, context: Context) -> None:
        await check(context)
        await method(requests, context)

    return checked
