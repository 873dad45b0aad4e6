"""What the daemon of the private mesh says of itself and of its peers."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from probes.origin import Instant, SensorName


class MeshState(enum.StrEnum):
    """The state that the daemon gives itself (Tailscale, ipn.State), or that there is no daemon."""

    UNKNOWN = "unknown"
    NO_DAEMON = "no_daemon"
    NO_STATE = "no_state"
    NEEDS_LOGIN = "needs_login"
    NEEDS_MACHINE_AUTH = "needs_machine_auth"
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"


class MeshWarning(enum.StrEnum):
    """A code of the daemon's own (Tailscale, health.WarnableCode); one that is not known here is OTHER."""

    OTHER = "other"
    LOGIN_STATE = "login-state"
    NOT_IN_MAP_POLL = "not-in-map-poll"
    NO_DERP_HOME = "no-derp-home"
    NO_DERP_CONNECTION = "no-derp-connection"
    DERP_TIMED_OUT = "derp-timed-out"
    NO_UDP4_BIND = "no-udp4-bind"
    NETWORK_STATUS = "network-status"
    WARMING_UP = "warming-up"
    DNS_FORWARD_FAILING = "dns-forward-failing"
    RESOLV_CONF_OVERWRITTEN = "resolv-conf-overwritten"
    STATEFUL_FILTERING = "docker-stateful-filtering"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshStatus:
    """How the mesh is, as its daemon sees it.

    `online` is whether the coordination server hears this host (None: not said). `key_expires_in_s` is None
    for a key without an end. A peer is active while something was sent to it lately, and relayed while it is
    active and has no direct path; `relayed` holds the mesh addresses of those, at most `RELAYED_MAX`, sorted.
    Where `peers_known` is False the peers were not asked for this time, and their numbers mean nothing.
    """

    sensor: SensorName
    at: Instant
    state: MeshState
    online: bool | None = None
    expired: bool = False
    key_expires_in_s: float | None = None
    warnings: tuple[MeshWarning, ...] = ()
    peers_known: bool = False
    peers_active: int = 0
    peers_relayed: int = 0
    relayed: tuple[str, ...] = ()
