"""The read-only web page: the view model rendered on the server, readable without JavaScript.

Autoescape is on for every template, and a variable that is missing is an error, not a blank.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from escalation import model_text
from escalation.inert import guarded
from escalation.model import ActionKind, Severity, State
from escalation.quantities import duration
from escalation.server.clock import Clock
from escalation.view import EntryView, HostView
from escalation.wording import action_headline, severity_symbol

_LOOK_OF_STATES: Final = (State.PROPOSED, State.APPROVED, State.DONE)


class Pages:
    """Renders views as HTML."""

    def __init__(self, *, clock: Clock) -> None:
        """Load the templates; `clock` tells how long ago something was."""
        self._clock = clock
        self._environment = Environment(
            loader=PackageLoader("escalation.server", "web/templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters["symbol"] = lambda severity: severity_symbol(Severity(severity))
        self._environment.filters["kind_words"] = lambda kind: action_headline(ActionKind(kind))
        self._environment.filters["model_lines"] = model_text.lines
        self._environment.filters["relative"] = self._relative
        self._style = (resources.files("escalation.server") / "web/static/style.css").read_bytes()

    def queue(
        self,
        entries: Sequence[EntryView],
        *,
        total: int,
        state: str,
        hosts: Sequence[HostView],
        snoozed: int = 0,
        silenced: int = 0,
    ) -> Response:
        """Return the queue, worst first; `snoozed` and `silenced` count what it leaves out."""
        return self._render(
            "queue.html",
            entries=entries,
            total=total,
            state=state,
            snoozed=snoozed,
            silenced=silenced,
            states=[state.value for state in State],
            open_states=[state.value for state in _LOOK_OF_STATES],
            silent=[host.host for host in hosts if host.silent],
            blind=sum(not coverage.seeing for host in hosts for coverage in host.coverage),
            known_hosts=len(hosts),
        )

    def entry(self, entry: EntryView) -> Response:
        """Return one entry, whole."""
        return self._render("entry.html", entry=entry)

    def hosts(self, hosts: Sequence[HostView]) -> Response:
        """Return what each host can and cannot see."""
        return self._render("hosts.html", hosts=hosts)

    def problem(self, status: int, message: str) -> Response:
        """Return why a page cannot be shown."""
        return self._render("problem.html", status=status, message=guarded(message), http_status=status)

    def style(self) -> Response:
        """Return the style sheet."""
        return Response(self._style, media_type="text/css")

    def _render(self, template: str, *, http_status: int = 200, **values: object) -> Response:
        now = datetime.fromtimestamp(self._clock.wall_ns() / 1e9, UTC)
        rendered = self._environment.get_template(template).render(now=f"{now:%Y-%m-%d %H:%M:%S}", **values)
        return HTMLResponse(rendered, status_code=http_status)

    def _relative(self, moment: str) -> str:
        """Return an RFC 3339 time as `5 min ago` or `in 2 h`; an impossible time as `at an unknown time`."""
        try:
            seconds = datetime.fromisoformat(moment).timestamp() - self._clock.wall_ns() / 1e9
        except ValueError:
            return "at an unknown time"
        return f"in {duration(seconds)}" if seconds > 0 else f"{duration(-seconds)} ago"
