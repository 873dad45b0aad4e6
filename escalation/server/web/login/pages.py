"""The pages for logging in and for one's account.

They stand on a frame of their own, without the queue's: who reads them may not be logged in yet.
"""

from __future__ import annotations

from importlib import resources
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from escalation.server.clock import Timekeeper
from escalation.server.web.login.sessions import Means
from escalation.wording.quantities import duration

_NS: Final = 1_000_000_000
_JUST_NOW_S: Final = 60.0

_WORDS: Final = {
    Means.TOKEN: "By token",
    Means.PASSWORD: "By password",
    Means.PASSKEY: "By passkey",
    Means.INVITATION: "By invitation",
    Means.OIDC: "By another service",
    Means.TAILSCALE: "By the tailnet",
}


class LoginPages:
    """Renders them."""

    def __init__(self, *, keeper: Timekeeper) -> None:
        """Load the templates; `keeper` tells how long ago something was."""
        self._keeper = keeper
        self._environment = Environment(
            loader=PackageLoader("escalation.server.web", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters["ago"] = self._ago
        self._environment.filters["means"] = _WORDS.__getitem__
        static = resources.files("escalation.server.web") / "static"
        self._script = (static / "login.js").read_bytes()
        self._style = (static / "login.css").read_bytes()

    def show(self, template: str, *, status: int = 200, **values: object) -> Response:
        """Return a page."""
        return HTMLResponse(self._environment.get_template(template).render(**values), status_code=status)

    def script(self) -> Response:
        """Return what a browser runs for passkeys."""
        return Response(self._script, media_type="text/javascript")

    def style(self) -> Response:
        """Return how these pages look beside the others."""
        return Response(self._style, media_type="text/css")

    def _ago(self, at_ns: int) -> str:
        seconds = (self._keeper.now_ns() - at_ns) / _NS
        return f"{duration(seconds)} ago" if seconds >= _JUST_NOW_S else "just now"
