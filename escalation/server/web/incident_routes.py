"""The routes that answer about one incident and about the topology; all of them only read."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from escalation.server.incident.incident_desk import IncidentDesk
from escalation.server.web.access import Role
from escalation.server.web.handlers import Rule, json_answer
from escalation.view.incident import AccountView, TopologyView, account_view, topology_view


class IncidentRoutes:
    """Translates between HTTP and the incident desk."""

    def __init__(self, *, desk: IncidentDesk) -> None:
        """Answer from `desk`."""
        self._desk = desk
        self.rules: tuple[Rule, ...] = (
            Rule(
                "GET",
                "/api/v1/incidents/{id}",
                Role.VIEWER,
                self._incident,
                "All of one incident, by its id or that of one of its recommendations.",
                answer=AccountView,
            ),
            Rule(
                "GET",
                "/api/v1/topology",
                Role.VIEWER,
                self._topology,
                "What needs what, as it is declared and was seen, and what is not declared yet.",
                answer=TopologyView,
            ),
        )

    async def _incident(self, request: Request) -> Response:
        return json_answer(account_view(await self._desk.account(request.path_params["id"])))

    async def _topology(self, _request: Request) -> Response:
        suggestions = tuple(await self._desk.suggestions())
        return json_answer(topology_view(await self._desk.topology(), suggestions))
