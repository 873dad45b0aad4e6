"""The web pages: the view model rendered on the server, readable and usable without a script.

Autoescape is on for every template, and a variable that is missing is an error, not a blank.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from escalation import model_text
from escalation.inert import guarded, shown
from escalation.model import ActionKind, Severity, State
from escalation.server.clock import Clock
from escalation.server.web.handlers import exchange_of
from escalation.signing import log as signing_log
from escalation.view.weighing import result_symbol, since_proposal
from escalation.wording.codes import action_headline, severity_symbol, state_sentence
from escalation.wording.quantities import duration

_STATIC = "static"


class Pages:
    """Renders views as HTML."""

    def __init__(self, *, clock: Clock) -> None:
        """Load the templates; `clock` tells how long ago something was."""
        self._clock = clock
        self._environment = Environment(
            loader=PackageLoader("escalation.server.web", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters["symbol"] = lambda severity: severity_symbol(Severity(severity))
        self._environment.filters["kind_words"] = lambda kind: action_headline(ActionKind(kind))
        self._environment.filters["model_lines"] = model_text.lines
        self._environment.filters["state_words"] = lambda state: state_sentence(State(state))
        self._environment.filters["duration"] = duration
        self._environment.filters["result_symbol"] = result_symbol
        self._environment.filters["since_proposal"] = since_proposal
        self._environment.filters["relative"] = self._relative
        self._environment.filters["guarded"] = guarded
        self._environment.filters["inert"] = shown
        self._environment.filters["detail_words"] = lambda link: signing_log.words_of(link.verb, link.detail)
        folder = resources.files("escalation.server.web")
        self._script = (folder / _STATIC / "page.js").read_bytes()
        self._style = (folder / _STATIC / "style.css").read_bytes()

    def show(self, request: Request, template: str, *, status: int = 200, **values: object) -> Response:
        """Return a page for who asks, of what `template` wants."""
        exchange = exchange_of(request)
        now = datetime.fromtimestamp(self._clock.wall_ns() / 1e9, UTC)
        rendered = self._environment.get_template(template).render(
            now=f"{now:%Y-%m-%d %H:%M:%S}",
            now_ms=self._clock.wall_ns() // 1_000_000,
            who=exchange.person,
            csrf=exchange.csrf,
            logged_in=exchange.session is not None,
            **values,
        )
        return HTMLResponse(rendered, status_code=status)

    def now_ns(self) -> int:
        """Return the time from which it is told how long ago something was."""
        return self._clock.wall_ns()

    def problem(self, request: Request, status: int, message: str) -> Response:
        """Return why a page cannot be shown."""
        return self.show(request, "problem.html", status=status, code=status, message=guarded(message))

    def script(self) -> Response:
        """Return the script that keeps pages fresh and hears keys."""
        return Response(self._script, media_type="text/javascript")

    def style(self) -> Response:
        """Return the style sheet."""
        return Response(self._style, media_type="text/css")

    def _relative(self, moment: str) -> str:
        """Return an RFC 3339 time as `5 min ago` or `in 2 h`; an impossible time as `at an unknown time`."""
        try:
            seconds = datetime.fromisoformat(moment).timestamp() - self._clock.wall_ns() / 1e9
        except ValueError:
            return "at an unknown time"
        if abs(seconds) < 1:
            return "just now"
        return f"in {duration(seconds)}" if seconds > 0 else f"{duration(-seconds)} ago"
