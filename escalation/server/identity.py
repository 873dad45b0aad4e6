"""Who is on the other end of a gRPC call: the host that its certificate names, and nobody without one.

TLS has checked the certificate's chain before any of this runs. An interceptor in front of every method
refuses a peer whose certificate does not name a host of our trust domain, so that a method which is added
later is closed before anybody thinks of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeAlias, cast

import grpc
import grpc.aio

from escalation import pki
from escalation.model import AgentId
from escalation.server.certificates import OF_PEER

Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic in the stubs only


class Identities:
    """Reads the host's name from a peer's certificate, for one trust domain.

    From the certificate itself: gRPC's own list of alternative names does not say of which kind each is.
    """

    def __init__(self, *, trust_domain: str) -> None:
        """Accept ``spiffe://<trust_domain>/nanobot/agent/<host>``."""
        self._trust_domain = trust_domain

    def __repr__(self) -> str:
        return f"Identities(trust_domain={self._trust_domain!r})"

    def of(self, auth_context: Mapping[str, Iterable[bytes]]) -> AgentId:
        """Return the one host that the certificate names; raise PkiError."""
        pem = b"".join(auth_context.get(OF_PEER, ()))
        return pki.agent_id_of(pem, trust_domain=self._trust_domain)


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
        except pki.PkiError as error:
            self.refused += 1
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))


async def _not_served(_requests: object, context: Context) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "there is no such method")


def _checked(
    check: Callable[[Context], Awaitable[None]], method: Callable[[object, Context], Awaitable[None]]
) -> Callable[[object, Context], Awaitable[None]]:
    async def checked(requests: object, context: Context) -> None:
        await check(context)
        await method(requests, context)

    return checked
