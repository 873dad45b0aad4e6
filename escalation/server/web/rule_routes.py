"""The routes of rules: how often each was right, verdicts, and the shadow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from escalation.server.decision.rule_desk import RuleDesk
from escalation.server.web.access import Role
from escalation.server.web.handlers import Rule, body_of, exchange_of, json_answer, person_of
from escalation.view.entry import IncidentView, incident_view
from escalation.view.rule import RuleView, rule_view

_Reason = Annotated[str, msgspec.Meta(pattern=r"\S", max_length=2000)]


@dataclass(frozen=True, slots=True)
class RuleList:
    """Every rule that found something, was judged or is in shadow."""

    rules: tuple[RuleView, ...]


class _Judge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    verdict: Literal["fault", "not_a_fault"]
    reason: Annotated[str, msgspec.Meta(max_length=2000)] = ""


class _Shadow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: _Reason
    days: Annotated[float, msgspec.Meta(gt=0, le=90)] = 7.0
    again: Annotated[str, msgspec.Meta(max_length=200)] = ""


class _Unshadow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: _Reason


class RuleRoutes:
    """Translates between HTTP and the rule desk."""

    def __init__(self, *, desk: RuleDesk) -> None:
        """Answer from `desk`."""
        self._desk = desk
        self.rules: tuple[Rule, ...] = (
            Rule(
                "POST",
                "/api/v1/incidents/{id}/verdict",
                Role.OPERATOR,
                self._judge,
                "Say whether there was a fault: by the incident's id, or that of a recommendation of it.",
                body=_Judge,
                answer=IncidentView,
            ),
            Rule(
                "GET",
                "/api/v1/rules",
                Role.VIEWER,
                self._rules,
                "Rules, how often each was right, and which are in shadow.",
                answer=RuleList,
            ),
            Rule(
                "GET",
                "/api/v1/rules/{id}",
                Role.VIEWER,
                self._rule,
                "One rule with what people said of its incidents.",
                answer=RuleView,
            ),
            Rule(
                "POST",
                "/api/v1/rules/{id}/shadow",
                Role.OPERATOR,
                self._shadow,
                "Put a rule in shadow for some days: what it finds is kept, and neither proposed nor told.",
                body=_Shadow,
                answer=RuleView,
            ),
            Rule(
                "POST",
                "/api/v1/rules/{id}/unshadow",
                Role.OPERATOR,
                self._unshadow,
                "Take a rule out of its shadow.",
                body=_Unshadow,
                answer=RuleView,
            ),
        )

    async def _rules(self, _request: Request) -> Response:
        return json_answer(RuleList(tuple(rule_view(each) for each in await self._desk.rules())))

    async def _rule(self, request: Request) -> Response:
        return json_answer(rule_view(await self._desk.rule(request.path_params["id"])))

    async def _judge(self, request: Request) -> Response:
        asked = await body_of(request, _Judge)
        incident = await self._desk.judge(
            request.path_params["id"],
            person=person_of(request),
            fault=asked.verdict == "fault",
            reason=asked.reason,
        )
        return json_answer(incident_view(incident))

    async def _shadow(self, request: Request) -> Response:
        asked = await body_of(request, _Shadow)
        person = exchange_of(request).person
        assert person is not None
        state = await self._desk.shadow(
            request.path_params["id"],
            person=person.name,
            role=person.role,
            reason=asked.reason,
            days=asked.days,
            again=asked.again,
        )
        return json_answer(rule_view(state))

    async def _unshadow(self, request: Request) -> Response:
        asked = await body_of(request, _Unshadow)
        state = await self._desk.unshadow(
            request.path_params["id"], person=person_of(request), reason=asked.reason
        )
        return json_answer(rule_view(state))
