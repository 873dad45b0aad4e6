"""Prometheus' Alertmanager, by its API v2: who pages today goes on paging.

An alert is named by incident, class, host and severity. What stands open is sent again long before its end
(`endsAt`), as Prometheus itself does: what Alertmanager hears of no more, because we are gone, ends by
itself. An incident that gets worse is a new alert, because routes there go by severity; the old one ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from escalation.server.notify.notice_routes import ReceiverName
from escalation.server.notify.notices import RAISING, Event, Message, rfc3339
from escalation.server.notify.notifiers.receiver import checked_url, http_client, post

EVENTS: Final = RAISING | {Event.CLEARED, Event.TEST}

_REPEAT_S: Final = 60.0
_ENDS_S: Final = 300.0
"""How long an alert stands that is not sent again: five repetitions may be lost."""

_TEST_S: Final = 60.0


class AlertmanagerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[notify.alertmanager]]`: where it listens, without the path of the API."""

    name: ReceiverName
    url: str
    ca_file: Path | None = None

    def __post_init__(self) -> None:
        """Refuse a URL that is none, or is not private."""
        checked_url(self.url)

    def events(self) -> frozenset[Event]:
        """Return what can be told this way."""
        return EVENTS

    def build(self) -> Alertmanager:
        """Return the receiver."""
        return Alertmanager(settings=self)


class Alertmanager:
    """Sends alerts, many at once."""

    batch = 64
    repeat_s: float | None = _REPEAT_S
    events = EVENTS

    def __init__(self, *, settings: AlertmanagerSettings) -> None:
        """Nothing is sent before the first message."""
        self.name: str = settings.name
        self._url = f"{settings.url.rstrip('/')}/api/v2/alerts"
        self._client = http_client(settings.ca_file)

    def __repr__(self) -> str:
        return f"Alertmanager({self.name!r})"

    async def send(self, messages: Sequence[Message], *, now_ns: int) -> None:
        """Post the messages as alerts."""
        newest = {(each.incident_id, each.severity): each for each in messages}
        body = msgspec.json.encode([alert(each, now_ns=now_ns) for each in newest.values()])
        await post(self._client, self._url, body, {})

    async def close(self) -> None:
        """Close connections."""
        await self._client.aclose()


def alert(message: Message, *, now_ns: int) -> dict[str, object]:
    """Return `message` as an alert of the API."""
    labels = {
        "alertname": "HostNanobotTest" if message.event is Event.TEST else "HostNanobot",
        "fault_class": message.fault_class,
        "host": message.host,
        "incident": message.incident_id,
        "severity": message.severity,
    }
    if message.drill:
        labels["drill"] = "yes"
    left_s = {Event.CLEARED: 0.0, Event.TEST: _TEST_S}.get(message.event, _ENDS_S)
    starts = min(message.since, rfc3339(now_ns))  # a host's clock may be ahead; RFC 3339 sorts as text
    return {
        "labels": labels,
        "annotations": {"summary": message.title, "id": message.id},
        "startsAt": starts,
        "endsAt": rfc3339(now_ns + int(left_s * 1e9)),
        "generatorURL": message.url,
    }
