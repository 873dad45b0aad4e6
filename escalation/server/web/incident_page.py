"""The page of one incident: what it belongs to, what was recommended, and all that happened, on one axis."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from escalation.server.incident.incident_desk import IncidentDesk
from escalation.server.web.access import Role
from escalation.server.web.charts import axis, charts_of, strip_of
from escalation.server.web.handlers import HTML, Rule
from escalation.server.web.pages import Pages
from escalation.view.incident import account_view


class IncidentPage:
    """Shows incidents."""

    def __init__(self, *, desk: IncidentDesk, pages: Pages) -> None:
        """Answer from `desk`, shown by `pages`."""
        self._desk = desk
        self._pages = pages
        self.rules: tuple[Rule, ...] = (Rule("GET", "/i/{id}", Role.VIEWER, self._incident, media=HTML),)

    async def _incident(self, request: Request) -> Response:
        account = await self._desk.account(request.path_params["id"])
        return self._pages.show(
            request,
            "incident.html",
            account=account_view(account),
            charts=charts_of(account.incident.evidence),
            strip=strip_of(account.incident, now_ns=self._pages.now_ns()),
            axis=axis([each.at_ns for each in account.moments]),
        )
