"""A desk whose entries people attend to, and what a test reads off it."""

from __future__ import annotations

import zoneinfo
from collections.abc import Sequence

from escalation.model import FaultClass, Severity, Subject, SubjectKind
from escalation.server import audit
from escalation.server.attention.attention_desk import Until
from escalation.server.attention.maintenance import Window
from escalation.server.attention.shelves import shown, states_of
from escalation.server.desk import Entry
from escalation.server.incident import timeline
from escalation.server.incident.timeline import MomentKind
from escalation.server.notify.notice_routes import Route, Router
from escalation.server.notify.notices import Event
from escalation.server.testing import FakeDesk

HOUR = Until(for_s=3600.0)
ROUTING = Router(
    routes=[Route(receivers=("pager",), severity=Severity.NOTE)],
    events={"pager": frozenset(Event)},
    zone=zoneinfo.ZoneInfo("UTC"),
)


def desk_with(*windows: Window) -> FakeDesk:
    return FakeDesk(routing=ROUTING, windows=windows)


def told(desk: FakeDesk) -> list[Event]:
    return [each.event for each in desk.store.ledger.notices.kept.values()]


def told_of_faults(desk: FakeDesk) -> list[Event]:
    return [each for each in told(desk) if each is not Event.HOST_SILENT]


async def verbs(desk: FakeDesk) -> list[str]:
    chain = await desk.audit(after=0, limit=1000)
    assert audit.verify(chain) is None
    return [each.verb for each in chain]


async def detail_of(desk: FakeDesk, verb: str) -> str:
    return next(each.detail for each in await desk.audit(after=0, limit=1000) if each.verb == verb)


def moments(desk: FakeDesk, entry: Entry) -> list[MomentKind]:
    return [each.kind for each in timeline.of(desk.store.ledger, entry.incident.id)]


async def part(desk: FakeDesk, name: str) -> Sequence[Entry]:
    return shown(await desk.queue(states_of(name)), name).entries


async def other(desk: FakeDesk, number: int = 2, severity: Severity = Severity.CRITICAL) -> Entry:
    return await desk.opened(
        case_id=f"case-{number}",
        fault_class=FaultClass.UNIT_RESTART_LOOP,
        subject=Subject(SubjectKind.UNIT, f"u{number}.service"),
        severity=severity,
    )
