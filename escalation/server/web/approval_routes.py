"""The routes about signing: what an approval is made of, and the document of one."""

from __future__ import annotations

from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from escalation.model import Override
from escalation.server.decision.approval_desk import ApprovalDesk
from escalation.server.decision.signatures import Passkeys
from escalation.server.web.access import Role
from escalation.server.web.handlers import Rule, SetAside, body_of, json_answer, person_of
from escalation.signing.approvers import line_of
from escalation.view.signing import DocumentView, PasskeyLines, SigningView


class _Reason(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: Annotated[str, msgspec.Meta(pattern=r"\S", max_length=2000)]
    set_aside: SetAside = {}


class ApprovalRoutes:
    """Translates between HTTP and the desk."""

    def __init__(self, *, desk: ApprovalDesk, passkeys: Passkeys | None = None) -> None:
        """Answer from `desk`; `passkeys` finds what people registered here."""
        self._desk = desk
        self._passkeys = passkeys
        self.rules: tuple[Rule, ...] = (
            Rule(
                "GET",
                "/api/v1/me/passkeys",
                Role.VIEWER,
                self._lines,
                "The passkeys of who asks, as lines of an approvers' file.",
                answer=PasskeyLines,
            ),
            Rule(
                "GET",
                "/api/v1/queue/{id}/approval",
                Role.VIEWER,
                self._approval,
                "What the signed document of an approval is made of.",
                answer=SigningView,
            ),
            Rule(
                "POST",
                "/api/v1/queue/{id}/document",
                Role.OPERATOR,
                self._document,
                "The document that who asks would sign now; nothing is changed.",
                body=_Reason,
                answer=DocumentView,
            ),
        )

    async def _lines(self, request: Request) -> Response:
        person = person_of(request)
        keys = await self._passkeys(person) if self._passkeys is not None else ()
        return json_answer(PasskeyLines(tuple(line_of(person, each) for each in keys)))

    async def _approval(self, request: Request) -> Response:
        return json_answer(await self._desk.approval(request.path_params["id"], person=person_of(request)))

    async def _document(self, request: Request) -> Response:
        asked = await body_of(request, _Reason)
        return json_answer(
            await self._desk.document(
                request.path_params["id"],
                person=person_of(request),
                reason=asked.reason,
                overrides=[Override(each, why.strip()) for each, why in sorted(asked.set_aside.items())],
            )
        )
