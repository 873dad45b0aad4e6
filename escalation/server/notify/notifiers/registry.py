"""Every kind of receiver, and the `[notify]` table that names those of one site."""

from __future__ import annotations

import zoneinfo
from typing import Annotated, Final, Protocol

import msgspec

from escalation.server.notify.notice_routes import Route, Router
from escalation.server.notify.notices import Event
from escalation.server.notify.notifiers.alertmanager import AlertmanagerSettings
from escalation.server.notify.notifiers.apprise import AppriseSettings
from escalation.server.notify.notifiers.receiver import Receiver, checked_url
from escalation.server.notify.notifiers.webhook import WebhookSettings

KINDS: Final = ("alertmanager", "apprise", "webhook")
"""The kinds of receiver: each a table of `[notify]`, and a module beside this one."""


class ReceiverSettings(Protocol):
    """What the settings of every kind can do."""

    @property
    def name(self) -> str:
        """Return the name that routes use."""

    def events(self) -> frozenset[Event]:
        """Return what can be told this way."""

    def build(self) -> Receiver:
        """Return the receiver; raise ValueError when its files cannot be used."""


class NotifySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[notify]` table: where links lead, when to remind and give up, the receivers, who is told what.

    `url` is the orchestrator as people reach it; it is needed as soon as there is a receiver. `zone` is where
    quiet hours are told. A receiver gets `per_minute` messages at most; what is more is counted in the last.
    """

    url: str = ""
    zone: str = "UTC"
    remind_each_s: Annotated[float, msgspec.Meta(ge=60, le=7 * 86_400)] = 3600.0
    give_up_after_s: Annotated[float, msgspec.Meta(ge=60, le=7 * 86_400)] = 86_400.0
    per_minute: Annotated[int, msgspec.Meta(ge=1, le=600)] = 10
    alertmanager: Annotated[tuple[AlertmanagerSettings, ...], msgspec.Meta(max_length=16)] = ()
    apprise: Annotated[tuple[AppriseSettings, ...], msgspec.Meta(max_length=16)] = ()
    webhook: Annotated[tuple[WebhookSettings, ...], msgspec.Meta(max_length=16)] = ()
    route: Annotated[tuple[Route, ...], msgspec.Meta(max_length=64)] = ()

    def __post_init__(self) -> None:
        """Refuse names that are there twice or lead nowhere, and links that could not be followed."""
        names = [each.name for each in self.receivers()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"receiver {twice[0]} is there twice")
        for route in self.route:
            strangers = sorted(set(route.receivers) - set(names))
            if strangers:
                raise ValueError(f"route: there is no receiver {strangers[0]}")
        if names:
            checked_url(self.url)
        try:
            zoneinfo.ZoneInfo(self.zone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"zone: {self.zone!r} is no time zone, such as Europe/Berlin") from error

    def receivers(self) -> tuple[ReceiverSettings, ...]:
        """Return the settings of all receivers, by kind."""
        return tuple(each for kind in KINDS for each in getattr(self, kind))

    def router(self) -> Router | None:
        """Return who is told what; None when nobody is told anything."""
        if not self.route:
            return None
        events = {each.name: each.events() for each in self.receivers()}
        return Router(routes=self.route, events=events, zone=zoneinfo.ZoneInfo(self.zone))

    def build(self) -> tuple[Receiver, ...]:
        """Return the receivers; raise ValueError when files of theirs cannot be used."""
        return tuple(each.build() for each in self.receivers())
