"""What an administrator asks about persons: who may log in how, an invitation, an end to all sessions."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from escalation.server.web.access import Role
from escalation.server.web.handlers import Nothing, Rule, body_of, json_answer, person_of
from escalation.server.web.login.desk import LoginDesk
from escalation.view.persons import Ended, InvitationView, PersonList
from escalation.wording.moments import moment


class PersonRoutes:
    """Every route about persons, and its handler."""

    def __init__(self, *, desk: LoginDesk) -> None:
        """Answer from `desk`."""
        self._desk = desk
        self.rules: tuple[Rule, ...] = (
            Rule(
                "GET",
                "/api/v1/persons",
                Role.ADMIN,
                self._persons,
                "Persons of the settings, and how each may log in on the page.",
                answer=PersonList,
            ),
            Rule(
                "POST",
                "/api/v1/persons/{id}/invite",
                Role.ADMIN,
                self._invite,
                "Make a code by which a person comes in once; an earlier one is void.",
                body=Nothing,
                answer=InvitationView,
                fresh=True,
            ),
            Rule(
                "POST",
                "/api/v1/persons/{id}/logout",
                Role.ADMIN,
                self._log_out,
                "End all sessions of a person.",
                body=Nothing,
                answer=Ended,
            ),
            Rule(
                "POST",
                "/api/v1/persons/{id}/passkeys/remove",
                Role.ADMIN,
                self._remove_passkeys,
                "Remove all passkeys of a person.",
                body=Nothing,
                answer=Ended,
                fresh=True,
            ),
        )

    async def _persons(self, _request: Request) -> Response:
        owners = await self._desk.passkeys.owners() if self._desk.passkeys else ()
        return json_answer(PersonList(tuple(await self._desk.accounts.view(owners))))

    async def _invite(self, request: Request) -> Response:
        await body_of(request, Nothing)
        code, until_ns = await self._desk.accounts.invite(self._name(request), by=person_of(request))
        return json_answer(InvitationView(code, f"{self._desk.origin}/invite#{code}", moment(until_ns)))

    async def _log_out(self, request: Request) -> Response:
        await body_of(request, Nothing)
        return json_answer(
            Ended(await self._desk.sessions.end_all(request.path_params["id"], by=person_of(request)))
        )

    async def _remove_passkeys(self, request: Request) -> Response:
        await body_of(request, Nothing)
        name, by = self._name(request), person_of(request)
        if self._desk.passkeys is None:
            return json_answer(Ended(0))
        keys = await self._desk.passkeys.of(name)
        removed = [await self._desk.passkeys.remove(key, person=name, by=by) for key in keys]
        return json_answer(Ended(sum(removed)))

    def _name(self, request: Request) -> str:
        name = request.path_params["id"]
        if name not in self._desk.accounts.persons:
            raise HTTPException(404, "the settings name no such person")
        assert isinstance(name, str)
        return name
