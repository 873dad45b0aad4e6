"""`mesh.tailscale`: how the private mesh is, from the LocalAPI of Tailscale's daemon.

Any local user may read it. The status says the daemon's state, this node's key and the peers
(tailscale.com/ipn/ipnstate, Status and PeerStatus); its warnings are sentences, so their codes are taken from
the notification bus, whose first line holds them (ipn.Notify, health.State), and only while there are any. No
sentence, name, key or address of a user is kept: codes by a closed table, numbers, and the mesh addresses of
peers that are relayed.

No socket, or nobody behind it, is told as NO_DAEMON: a fact, not health. A daemon that hangs, refuses or
talks nonsense makes the sensor blind. The status of a thousand peers takes tens of milliseconds to read:
where it is large, the peers are asked for at each `_RARELY`-th read only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from probes.host import local_api
from probes.observation import BlindReason, Instant, Observation, SensorName
from probes.observed.mesh import MeshState, MeshStatus, MeshWarning
from probes.sensor import SensorBlind

NAME: Final = SensorName("mesh.tailscale")
RELAYED_MAX: Final = 64
_HOST: Final = "local-tailscaled.sock"
_STATUS: Final = "/localapi/v0/status"
_WARNINGS: Final = "/localapi/v0/watch-ipn-bus?mask=128"  # ipn.NotifyInitialHealthState
_MAX_BYTES: Final = 4 << 20
_LARGE_BYTES: Final = 256 << 10
_RARELY: Final = 10
_PEERS_MAX: Final = 10_000
_YEAR_S: Final = 366 * 86400.0

_STATES: Final = {
    "NoState": MeshState.NO_STATE,
    "NeedsLogin": MeshState.NEEDS_LOGIN,
    "NeedsMachineAuth": MeshState.NEEDS_MACHINE_AUTH,
    "Stopped": MeshState.STOPPED,
    "Starting": MeshState.STARTING,
    "Running": MeshState.RUNNING,
}
_CODES: Final = {warning.value: warning for warning in MeshWarning}
_NO_FAULT: Final = frozenset(
    {
        "update-available",
        "security-update-available",
        "is-using-unstable-version",
        "wantrunning-false",
        "test-warnable",
        "tls-cert-pending",
    }
)
"""Codes that say nothing about whether the mesh works (tailscale.com/tsconst)."""

Ask = Callable[..., bytes]


class StatusUnreadable(Exception):
    """What the daemon answered is not a status; the message names the field and holds nothing of it."""


class TailscaleSensor:
    """Asks the daemon how the mesh is."""

    name = NAME
    period_s = 30.0

    def __init__(self, *, socket: str, ask: Ask = local_api.ask) -> None:
        self._socket = socket
        self._ask = ask
        self._large = False
        self._reads = 0

    def __repr__(self) -> str:
        return f"TailscaleSensor({NAME}, {self._socket})"

    def open(self) -> None:
        """Hold nothing: each read asks anew."""

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return how the mesh is now; raise SensorBlind when the daemon does not say it."""
        try:
            return (self._status(now),)
        except local_api.NoServer:
            return (MeshStatus(sensor=NAME, at=now, state=MeshState.NO_DAEMON),)
        except local_api.NotAnswered as error:
            raise SensorBlind(BlindReason.NOT_ANSWERING, str(error)) from error
        except (local_api.AnswerUnreadable, StatusUnreadable) as error:
            raise SensorBlind(BlindReason.READ_FAILED, str(error)) from error
        except PermissionError as error:
            raise SensorBlind(BlindReason.NO_PRIVILEGE, f"connect to {self._socket}") from error
        except OSError as error:
            raise SensorBlind(BlindReason.READ_FAILED, f"ask {self._socket}: {error.strerror}") from error

    def waiting(self) -> bool:
        """There is always a status."""
        return True

    def settle(self) -> None:
        """Nothing to note: every status is whole."""

    def wakeup_fd(self) -> int | None:
        """A status waits for its turn."""
        return None

    def close(self) -> None:
        """Hold nothing, let go of nothing."""

    def _status(self, now: Instant) -> MeshStatus:
        with_peers = not self._large or self._reads % _RARELY == 0
        self._reads += 1
        raw = b""
        if with_peers:
            try:
                raw = self._ask(self._socket, _STATUS, host=_HOST, max_bytes=_MAX_BYTES)
                self._large = len(raw) > _LARGE_BYTES
            except local_api.AnswerTooLong:
                self._large, with_peers = True, False
        if not with_peers:
            raw = self._ask(self._socket, f"{_STATUS}?peers=false", host=_HOST, max_bytes=_MAX_BYTES)
        status, warned = parse_status(raw, now, peers_known=with_peers)
        return with_warnings(status, self._warnings()) if warned else status

    def _warnings(self) -> tuple[MeshWarning, ...]:
        """Return the codes behind the sentences; where they cannot be had, that there are others."""
        try:
            raw = self._ask(self._socket, _WARNINGS, host=_HOST, max_bytes=_MAX_BYTES, first_line=True)
            return parse_warnings(raw)
        except (
            local_api.NoServer,
            local_api.NotAnswered,
            local_api.AnswerUnreadable,
            OSError,
            StatusUnreadable,
        ):
            return (MeshWarning.OTHER,)


def parse_status(raw: bytes, now: Instant, *, peers_known: bool) -> tuple[MeshStatus, bool]:
    """Return the status in `raw` and whether the daemon warns of anything; raise StatusUnreadable."""
    said = _object(_json(raw, hook=_slim), "the status")
    state = said.get("BackendState")
    if not isinstance(state, str):
        raise StatusUnreadable("BackendState: no text")
    own = _object(said.get("Self") or {}, "Self")
    online = own.get("Online")
    active, relayed = _peers(said.get("Peer")) if peers_known else (0, [])
    status = MeshStatus(
        sensor=NAME,
        at=now,
        state=_STATES.get(state, MeshState.UNKNOWN),
        online=online if isinstance(online, bool) else None,
        expired=own.get("Expired") is True,
        key_expires_in_s=_left_s(own.get("KeyExpiry"), now),
        peers_known=peers_known,
        peers_active=active,
        peers_relayed=len(relayed),
        relayed=tuple(sorted({address for address in relayed if address})[:RELAYED_MAX]),
    )
    return status, bool(said.get("Health"))


def parse_warnings(raw: bytes) -> tuple[MeshWarning, ...]:
    """Return the codes in the first line of the notification bus, sorted; raise StatusUnreadable."""
    said = _object(_json(raw), "the notification")
    health = said.get("Health")
    warnings = health.get("Warnings") if isinstance(health, dict) else None
    if not isinstance(warnings, dict):
        return ()
    codes = {_CODES.get(code, MeshWarning.OTHER) for code in warnings if code not in _NO_FAULT}
    return tuple(sorted(codes))


def with_warnings(status: MeshStatus, warnings: tuple[MeshWarning, ...]) -> MeshStatus:
    """Return `status` with the daemon's warnings."""
    return replace(status, warnings=warnings)


def _slim(item: dict[str, Any]) -> dict[str, Any]:
    """Drop while parsing what is not asked of a peer, so that a large fleet takes little memory."""
    if "PublicKey" not in item or "CurAddr" not in item:
        return item
    return {name: item[name] for name in _WANTED if name in item}


_WANTED: Final = ("Active", "CurAddr", "Expired", "KeyExpiry", "Online", "PeerRelay", "Relay", "TailscaleIPs")


def _json(raw: bytes, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    try:
        return json.loads(raw, object_hook=hook)
    except (ValueError, RecursionError) as error:
        raise StatusUnreadable("no JSON") from error


def _object(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise StatusUnreadable(f"{what}: no object")
    return value


def _peers(said: Any) -> tuple[int, list[str]]:
    """Return how many peers are active, and a mesh address (or none) of each that is relayed."""
    if said is None:
        return 0, []
    peers = list(_object(said, "Peer").values())[:_PEERS_MAX]
    active = [peer for peer in peers if isinstance(peer, dict) and peer.get("Active") is True]
    relayed = [
        peer
        for peer in active
        if peer.get("Relay") and peer.get("CurAddr") == "" and not peer.get("PeerRelay")
    ]
    return len(active), [_address(peer.get("TailscaleIPs")) for peer in relayed]


def _address(said: Any) -> str:
    first = said[0] if isinstance(said, list) and said else ""
    is_one = isinstance(first, str) and len(first) <= 45 and not first.strip("0123456789abcdefABCDEF.:")
    return first if is_one else ""


def _left_s(said: Any, now: Instant) -> float | None:
    """Return the seconds until an RFC 3339 time; None for none, for Go's zero time and for nonsense."""
    if not isinstance(said, str):
        return None
    try:
        moment = datetime.fromisoformat(said)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        unix_s = moment.timestamp()
    except (ValueError, OverflowError):
        return None
    left_s = unix_s - now.unix_ns / 1e9
    return round(left_s, 3) if -100 * _YEAR_S < left_s < 100 * _YEAR_S else None
