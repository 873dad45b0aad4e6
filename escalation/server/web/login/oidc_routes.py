"""The journey to a provider of identities and back.

The way back is a GET from another site: it changes nothing and carries no cookie of ours, which are all
strict. It shows a form, which the script sends at once, to finish: from a page of ours, with the cookie of
the browser that began. So nobody can make somebody finish what another browser began.
"""

from __future__ import annotations

import html
from typing import Final

from starlette.requests import Request, cookie_parser
from starlette.responses import HTMLResponse, RedirectResponse, Response

from escalation.server.web.gate import LOGIN_PATH, own_path
from escalation.server.web.handlers import HTML, Rule, exchange_of, form_of
from escalation.server.web.login.desk import LoginDesk
from escalation.server.web.login.handshakes import random_text
from escalation.server.web.login.oidc_desk import OidcDesk
from escalation.server.web.login.pages import LoginPages
from escalation.server.web.login.refusals import LoginRefused
from escalation.server.web.login.routes import address_of, give_cookie, status_of

CALLBACK: Final = "/login/oidc/callback"

_LONGEST: Final = 4096
_ONWARD: Final = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>Host Nanobot</title>'
    '<meta http-equiv="refresh" content="0; url={there}"><p><a href="{there}">Go on to {label}</a></p>'
)


class OidcRoutes:
    """Every route of the journey, and its handler."""

    def __init__(self, *, login: LoginDesk, desk: OidcDesk) -> None:
        """Answer from `desk`; cookies are `login`'s."""
        self._login = login
        self._desk = desk
        self._pages = LoginPages(keeper=login.keeper)
        self.rules: tuple[Rule, ...] = (
            Rule("POST", "/login/oidc", None, self._begin, media=HTML),
            Rule("GET", CALLBACK, None, self._back, media=HTML),
            Rule("POST", "/login/oidc/finish", None, self._finish, media=HTML),
        )

    async def _begin(self, request: Request) -> Response:
        form = await form_of(request)
        browser = random_text()
        try:
            there = await self._desk.begin(
                browser=browser,
                back=own_path(form.get("next", "/")),
                again="again" in form,
                address=address_of(request),
            )
        except LoginRefused as refused:
            return self._refused(refused)
        # Not a redirect: `form-action` would have to name the provider.
        answer = HTMLResponse(_ONWARD.format(there=html.escape(there), label=html.escape(self._desk.label)))
        secure = exchange_of(request).secure
        answer.set_cookie(
            _cookie_name(secure=secure),
            browser,
            max_age=300,
            path="/",
            secure=secure,
            httponly=True,
            samesite="strict",
        )
        return answer

    async def _back(self, request: Request) -> Response:
        code, state = (request.query_params.get(each, "")[:_LONGEST] for each in ("code", "state"))
        if not code or not state:
            return self._refused(LoginRefused("the provider of identities did not let you in"))
        return self._pages.show("onward.html", code=code, state=state)

    async def _finish(self, request: Request) -> Response:
        form = await form_of(request)
        secure = exchange_of(request).secure
        browser = cookie_parser(request.headers.get("cookie", "")).get(_cookie_name(secure=secure), "")
        try:
            cookie, back = await self._desk.finish(
                state=form.get("state", ""),
                code=form.get("code", ""),
                browser=browser,
                before=exchange_of(request).session,
            )
        except LoginRefused as refused:
            return self._refused(refused)
        answer = RedirectResponse(back, 303)
        give_cookie(request, answer, cookie, settings=self._login.settings)
        answer.delete_cookie(
            _cookie_name(secure=secure), path="/", secure=secure, httponly=True, samesite="strict"
        )
        return answer

    def _refused(self, refused: LoginRefused) -> Response:
        return self._pages.show(
            "refused.html", status=status_of(refused), refused=str(refused), login=LOGIN_PATH
        )


def _cookie_name(*, secure: bool) -> str:
    return "__Host-nanobot-oidc" if secure else "nanobot-oidc"
