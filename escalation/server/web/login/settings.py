"""The `[login]` table of orchestrator.toml: how long a login lasts, and what else may say who somebody is."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from escalation.server.web.login.oidc import OidcSettings
from escalation.server.web.login.tailnet import TailscaleSettings

_LONGEST_S: Final = 90 * 86_400

Span = Annotated[float, msgspec.Meta(ge=1, le=_LONGEST_S)]


class LoginSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[login]` table.

    A session ends `idle_s` after its last request and `absolute_s` after the login, whichever comes first.
    Approving needs that the person showed who they are within `fresh_s`. An invitation is good for
    `invitation_s`, once.
    """

    fresh_s: Span = 900.0
    idle_s: Span = 12 * 3600.0
    absolute_s: Span = 7 * 86_400.0
    invitation_s: Span = 86_400.0
    oidc: OidcSettings | None = None
    tailscale: TailscaleSettings | None = None

    def __post_init__(self) -> None:
        """Refuse spans that contradict each other."""
        if not self.fresh_s <= self.absolute_s or not self.idle_s <= self.absolute_s:
            raise ValueError("login.fresh_s and login.idle_s are at most login.absolute_s")
