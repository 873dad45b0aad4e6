"""What the script on the login and account pages asks: a challenge, and what became of the answer to it.

Bodies and answers are JSON. Like every write of a session they carry its token, in the header X-CSRF-Token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from escalation.server.web.access import Role
from escalation.server.web.gate import own_path, problem
from escalation.server.web.handlers import (
    HTML,
    Handler,
    Nothing,
    Rule,
    body_of,
    exchange_of,
    json_answer,
    person_of,
)
from escalation.server.web.login.desk import LoginDesk
from escalation.server.web.login.passkey_desk import PasskeyDesk
from escalation.server.web.login.passkeys import Assertion, Attestation
from escalation.server.web.login.refusals import LoginBusy, LoginRefused, TooManyAttempts
from escalation.server.web.login.routes import address_of, give_cookie

_Short = Annotated[str, msgspec.Meta(max_length=128)]
_Path = Annotated[str, msgspec.Meta(max_length=2000)]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the browser is to do: `options` are those of `navigator.credentials`."""

    handshake: str
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Onward:
    """Where to go on."""

    next: str


class _Used(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    handshake: _Short
    answer: Assertion
    next: _Path = "/"


class _Made(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    handshake: _Short
    answer: Attestation
    label: _Short = ""


class PasskeyRoutes:
    """Every route around passkeys, and its handler."""

    def __init__(self, *, desk: LoginDesk) -> None:
        """Answer from `desk`."""
        self._desk = desk
        self.rules: tuple[Rule, ...] = (
            Rule("POST", "/account/passkeys", Role.VIEWER, _told(self._add), fresh=True),
            Rule("POST", "/account/passkeys/begin", Role.VIEWER, _told(self._begin_add), fresh=True),
            Rule("POST", "/account/passkeys/{id}/remove", Role.VIEWER, self._remove, media=HTML, fresh=True),
            Rule("POST", "/login/again/passkey", Role.VIEWER, _told(self._show)),
            Rule("POST", "/login/again/passkey/begin", Role.VIEWER, _told(self._begin_show)),
            Rule("POST", "/login/passkey", None, _told(self._log_in)),
            Rule("POST", "/login/passkey/begin", None, _told(self._begin_log_in)),
        )

    async def _begin_log_in(self, request: Request) -> Response:
        await body_of(request, Nothing)
        return json_answer(Asked(*await self._passkeys.to_log_in(address=address_of(request))))

    async def _log_in(self, request: Request) -> Response:
        used = await body_of(request, _Used)
        cookie = await self._passkeys.log_in(
            used.handshake,
            used.answer,
            persons=self._desk.accounts.persons,
            before=exchange_of(request).session,
        )
        answer = json_answer(Onward(own_path(used.next)))
        give_cookie(request, answer, cookie, settings=self._desk.settings)
        return answer

    async def _begin_show(self, request: Request) -> Response:
        await body_of(request, Nothing)
        return json_answer(Asked(*await self._passkeys.to_show(person_of(request))))

    async def _show(self, request: Request) -> Response:
        used = await body_of(request, _Used)
        session = exchange_of(request).session
        if session is None:
            raise HTTPException(400, "there is no session that this could be for")
        await self._passkeys.show(used.handshake, used.answer, person=person_of(request), session=session)
        return json_answer(Onward(own_path(used.next)))

    async def _begin_add(self, request: Request) -> Response:
        await body_of(request, Nothing)
        if person_of(request) not in self._desk.accounts.persons:
            # Kept under a name that the settings may give to somebody else tomorrow.
            raise LoginRefused("passkeys are for persons of the settings; you log in through another service")
        return json_answer(Asked(*await self._passkeys.to_add(person_of(request))))

    async def _add(self, request: Request) -> Response:
        made = await body_of(request, _Made)
        await self._passkeys.add(made.handshake, made.answer, person=person_of(request), label=made.label)
        return json_answer(Onward("/account"))

    async def _remove(self, request: Request) -> Response:
        name = person_of(request)
        if self._desk.passkeys is not None:
            await self._desk.passkeys.remove(request.path_params["id"], person=name, by=name)
        return RedirectResponse("/account", 303)

    @property
    def _passkeys(self) -> PasskeyDesk:
        if self._desk.passkeys is None:
            raise HTTPException(400, "passkeys need the name of a host in http.public_url")
        return self._desk.passkeys


def _told(handler: Handler) -> Handler:
    """Answer a refusal with its sentence."""

    async def answering(request: Request) -> Response:
        try:
            return await handler(request)
        except LoginRefused as refused:
            match refused:
                case TooManyAttempts():
                    return problem(429, "too_many_attempts", str(refused), {"Retry-After": "5"})
                case LoginBusy():
                    return problem(503, "unavailable", str(refused))
                case _:
                    return problem(422, "refused", str(refused))

    return answering
