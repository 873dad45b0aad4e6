"""The routes of logging in: forms that work without JavaScript, and what the script asks for passkeys.

After a login the browser is sent to a path of our own and nowhere else. A session is in a cookie alone, never
in an address.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from escalation.server.web.access import Role
from escalation.server.web.gate import LOGIN_PATH, cookie_name, own_path
from escalation.server.web.handlers import HTML, TEXT, Rule, exchange_of, form_of, person_of
from escalation.server.web.login.desk import LoginDesk
from escalation.server.web.login.pages import LoginPages
from escalation.server.web.login.refusals import LoginBusy, LoginRefused, TooManyAttempts
from escalation.server.web.login.settings import LoginSettings
from escalation.server.web.login.tailnet import is_tailnet
from escalation.server.web.login.visits import SessionKey

_SHORT: Final = 128


class LoginRoutes:
    """Every route of logging in, and its handler."""

    def __init__(self, *, desk: LoginDesk) -> None:
        """Answer from `desk`."""
        self._desk = desk
        self._pages = LoginPages(keeper=desk.keeper)
        self.rules: tuple[Rule, ...] = (
            Rule("GET", "/account", Role.VIEWER, self._account, media=HTML),
            Rule("POST", "/account/password", Role.VIEWER, self._set_password, media=HTML, fresh=True),
            Rule("POST", "/account/sessions/end", Role.VIEWER, self._end_all, media=HTML),
            Rule("POST", "/account/sessions/{id}/end", Role.VIEWER, self._end_one, media=HTML),
            Rule("GET", "/invite", None, self._invite_page, media=HTML),
            Rule("POST", "/invite", None, self._invite, media=HTML),
            Rule("GET", "/login", None, self._login_page, media=HTML),
            Rule("POST", "/login", None, self._login, media=HTML),
            Rule("GET", "/login/again", Role.VIEWER, self._again_page, media=HTML),
            Rule("POST", "/login/again", Role.VIEWER, self._again, media=HTML),
            Rule("POST", "/logout", Role.SCRAPER, self._logout, media=HTML),
            Rule("GET", "/static/login.css", None, self._style, media=TEXT),
            Rule("GET", "/static/login.js", None, self._script, media=TEXT),
            *([Rule("POST", "/login/tailscale", None, self._tailnet, media=HTML)] if desk.tailnet else []),
        )

    async def _login_page(self, request: Request) -> Response:
        return self._login_form(request, back=own_path(request.query_params.get("next", "/")))

    async def _login(self, request: Request) -> Response:
        form = await form_of(request)
        back = own_path(form.get("next", "/"))
        try:
            cookie = await self._desk.by_secret(
                form.get("name", "").strip()[:_SHORT],
                form.get("password", ""),
                address=address_of(request),
                before=exchange_of(request).session,
            )
        except LoginRefused as refused:
            return self._login_form(request, back=back, refused=refused)
        return self._entered(request, cookie, back)

    async def _tailnet(self, request: Request) -> Response:
        form = await form_of(request)
        back = own_path(form.get("next", "/"))
        host, port = (request.client.host, request.client.port) if request.client else ("", 0)
        try:
            cookie = await self._desk.by_tailnet(host, port, before=exchange_of(request).session)
        except LoginRefused as refused:
            return self._login_form(request, back=back, refused=refused)
        return self._entered(request, cookie, back)

    async def _again_page(self, request: Request) -> Response:
        return self._again_form(request, back=own_path(request.query_params.get("next", "/")))

    async def _again(self, request: Request) -> Response:
        form = await form_of(request)
        back = own_path(form.get("next", "/"))
        session = exchange_of(request).session
        if session is None:
            return RedirectResponse(back, 303)
        try:
            await self._desk.again_by_secret(
                person_of(request), form.get("password", ""), address=address_of(request), session=session
            )
        except LoginRefused as refused:
            return self._again_form(request, back=back, refused=refused)
        return RedirectResponse(back, 303)

    async def _logout(self, request: Request) -> Response:
        session = exchange_of(request).session
        if session is not None:
            await self._desk.sessions.end(session, by=person_of(request), of=None)
        answer = RedirectResponse(LOGIN_PATH, 303)
        self._clear(request, answer)
        return answer

    async def _invite_page(self, request: Request) -> Response:
        return self._form(request, "invite.html", back="/account", refused=None)

    async def _invite(self, request: Request) -> Response:
        form = await form_of(request)
        try:
            cookie = await self._desk.accounts.redeem(
                form.get("code", "").strip()[:_SHORT],
                form.get("password", ""),
                before=exchange_of(request).session,
            )
        except LoginRefused as refused:
            return self._form(request, "invite.html", back="/account", refused=refused)
        return self._entered(request, cookie, "/account")

    async def _account(self, request: Request) -> Response:
        return await self._account_page(request)

    async def _account_page(self, request: Request, refused: LoginRefused | None = None) -> Response:
        exchange = exchange_of(request)
        name = person_of(request)
        passkeys = await self._desk.passkeys.of(name) if self._desk.passkeys else {}
        return self._pages.show(
            "account.html",
            status=status_of(refused),
            refused=str(refused) if refused else "",
            name=name,
            role=exchange.person.role.value if exchange.person else "",
            csrf=exchange.csrf,
            fresh=exchange.fresh,
            here=exchange.session,
            passkeys=list(passkeys.items()),
            may_add=(
                self._desk.passkeys is not None
                and exchange.public
                and exchange.session is not None
                and name in self._desk.accounts.persons
            ),
            origin=self._desk.origin,
            in_settings=self._desk.accounts.in_settings(name),
            known=name in self._desk.accounts.persons,
            sessions=list((await self._desk.sessions.of(name)).items()),
        )

    async def _set_password(self, request: Request) -> Response:
        form = await form_of(request)
        try:
            await self._desk.accounts.set_password(
                person_of(request), form.get("password", ""), session=exchange_of(request).session
            )
        except LoginRefused as refused:
            return await self._account_page(request, refused)
        return RedirectResponse("/account", 303)

    async def _end_one(self, request: Request) -> Response:
        name = person_of(request)
        key = SessionKey(request.path_params["id"])
        await self._desk.sessions.end(key, by=name, of=name)
        if key == exchange_of(request).session:
            return await self._logout(request)
        return RedirectResponse("/account", 303)

    async def _end_all(self, request: Request) -> Response:
        await self._desk.sessions.end_all(person_of(request), by=person_of(request))
        answer = RedirectResponse(LOGIN_PATH, 303)
        self._clear(request, answer)
        return answer

    async def _style(self, _request: Request) -> Response:
        return self._pages.style()

    async def _script(self, _request: Request) -> Response:
        return self._pages.script()

    def _entered(self, request: Request, cookie: str, back: str) -> Response:
        answer = RedirectResponse(back, 303)
        give_cookie(request, answer, cookie, settings=self._desk.settings)
        return answer

    def _clear(self, request: Request, answer: Response) -> None:
        secure = exchange_of(request).secure
        answer.delete_cookie(
            cookie_name(secure=secure), path="/", secure=secure, httponly=True, samesite="strict"
        )

    def _login_form(self, request: Request, *, back: str, refused: LoginRefused | None = None) -> Response:
        return self._form(request, "login.html", back=back, refused=refused)

    def _again_form(self, request: Request, *, back: str, refused: LoginRefused | None = None) -> Response:
        return self._form(request, "again.html", back=back, refused=refused)

    def _form(
        self, request: Request, template: str, *, back: str, refused: LoginRefused | None, **more: object
    ) -> Response:
        exchange = exchange_of(request)
        return self._pages.show(
            template,
            status=status_of(refused),
            refused=str(refused) if refused else "",
            back=back,
            csrf=exchange.csrf,
            person=exchange.person.name if exchange.person else "",
            passkeys=self._desk.passkeys is not None and exchange.public,
            tailnet=self._desk.tailnet is not None and is_tailnet(address_of(request)),
            oidc=self._desk.oidc.label if self._desk.oidc and exchange.public else "",
            **more,
        )


def give_cookie(request: Request, answer: Response, cookie: str, *, settings: LoginSettings) -> None:
    """Let the browser keep the cookie of its session: for our host and its own requests alone."""
    secure = exchange_of(request).secure
    answer.set_cookie(
        cookie_name(secure=secure),
        cookie,
        max_age=int(settings.absolute_s),
        path="/",
        secure=secure,
        httponly=True,
        samesite="strict",
    )


def address_of(request: Request) -> str:
    """Return the address of the socket's other end."""
    return request.client.host if request.client else "unknown"


def status_of(refused: LoginRefused | None) -> int:
    match refused:
        case None:
            return 200
        case TooManyAttempts():
            return 429
        case LoginBusy():
            return 503
        case _:
            return 422
