"""What people may ask and say of rules: how often each was right, and what is in shadow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from escalation.model import Incident, Verdict
from escalation.rule_names import RuleName, parts_of
from escalation.server import steps, triage
from escalation.server.clock import Clock, Timekeeper
from escalation.server.decision import rules
from escalation.server.decision.approvals import REASON_LIMIT, Policy
from escalation.server.decision.rules import RuleSettings, RuleState, Shadow
from escalation.server.desk import NotFound, Refused, Unavailable
from escalation.server.notify.notice_watch import Routing, telling
from escalation.server.storage.store import Ledger, Store, StoreError
from escalation.server.web.access import Role

T = TypeVar("T")

_NS_PER_DAY = 86_400 * 10**9


class RuleDesk(Protocol):
    """What can be asked. All methods raise DeskError kinds only."""

    async def rules(self) -> Sequence[RuleState]:
        """Return every rule that found something, was judged or is in shadow, by name."""

    async def rule(self, name: str) -> RuleState:
        """Return one rule."""

    async def judge(self, entry_id: str, *, person: str, fault: bool, reason: str) -> Incident:
        """Record whether there was a fault; that there was none needs a reason."""

    async def shadow(
        self, name: str, *, person: str, role: Role, reason: str, days: float, again: str
    ) -> RuleState:
        """Put a rule in shadow for some days; a guarded one only when `again` names it a second time."""

    async def unshadow(self, name: str, *, person: str, reason: str) -> RuleState:
        """Take a rule out of its shadow."""


class StoredRules:
    """The real desk, on a store."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        settings: RuleSettings,
        policy: Policy,
        touched: Callable[[steps.Changed], None],
        routing: Routing | None = None,
    ) -> None:
        """Answer from `store`; `touched` is told what looks different after a change."""
        self._store = store
        self._time = Timekeeper(clock=clock)
        self._settings = settings
        self._policy = policy
        self._touched = touched
        self._routing = routing

    def __repr__(self) -> str:
        return f"StoredRules({self._settings!r})"

    async def rules(self) -> Sequence[RuleState]:
        """Return every rule that found something, was judged or is in shadow, by name."""
        now_ns = self._time.now_ns()
        return await self._read(lambda ledger: rules.known_rules(ledger, self._settings, now_ns=now_ns))

    async def rule(self, name: str) -> RuleState:
        """Return one rule."""
        now_ns = self._time.now_ns()
        known = _known(name)
        state = await self._read(lambda ledger: rules.state_of(ledger, known, self._settings, now_ns=now_ns))
        assert state is not None
        return state

    async def judge(self, entry_id: str, *, person: str, fault: bool, reason: str) -> Incident:
        """Record whether there was a fault; that there was none needs a reason."""
        if not fault or reason.strip():
            reason = _stated(reason)
        now_ns = self._time.now_ns()
        verdict = Verdict(fault=fault, person=person, at_ns=now_ns, reason=reason)
        incident, changed = await self._write(
            partial(_judge, entry_id=entry_id, verdict=verdict, now_ns=now_ns)
        )
        self._touched(changed)
        return incident

    async def shadow(
        self, name: str, *, person: str, role: Role, reason: str, days: float, again: str
    ) -> RuleState:
        """Put a rule in shadow for some days; a guarded one only when `again` names it a second time."""
        known, settings = _known(name), self._settings
        parts = parts_of(known)
        assert parts is not None
        if not role.may(settings.role):
            raise Refused(f"policy: putting a rule in shadow needs the role {settings.role.value}")
        if not 0 < days <= settings.shadow_at_most_days:
            raise Refused(f"policy: a rule is in shadow for at most {settings.shadow_at_most_days:g} days")
        if settings.guards(parts[0]) and again != known:
            raise Refused(
                f"policy: {parts[0].value} guards the fleet, and a fault that nobody is told of goes on; who "
                "means it names the rule a second time"
            )
        now_ns = self._time.now_ns()
        until_ns = now_ns + int(days * _NS_PER_DAY)
        kept = Shadow(person=person, reason=_stated(reason), since_ns=now_ns, until_ns=until_ns)
        work = partial(triage.shadow, name=known, kept=kept, policy=self._policy, now_ns=now_ns)
        self._touched(await self._write(work))
        return await self.rule(known)

    async def unshadow(self, name: str, *, person: str, reason: str) -> RuleState:
        """Take a rule out of its shadow."""
        known, now_ns = _known(name), self._time.now_ns()
        work = partial(
            triage.unshadow,
            name=known,
            person=person,
            reason=_stated(reason),
            policy=self._policy,
            now_ns=now_ns,
        )
        self._touched(await self._write(work))
        return await self.rule(known)

    async def _write(self, work: Callable[[Ledger], T]) -> T:
        if self._routing is not None:
            work = telling(work, routing=self._routing, now_ns=self._time.now_ns())
        try:
            return await self._store.write(work)
        except StoreError as error:
            raise Unavailable(f"nothing was kept: {error}") from error

    async def _read(self, work: Callable[[Ledger], T]) -> T:
        try:
            return await self._store.read(work)
        except StoreError as error:
            raise Unavailable(f"nothing can be read now: {error}") from error


def _judge(ledger: Ledger, *, entry_id: str, verdict: Verdict, now_ns: int) -> tuple[Incident, steps.Changed]:
    incident = triage.judge(ledger, entry_id, verdict, now_ns=now_ns)
    newest = ledger.recommendations(incident.id)[-1:]
    return incident, frozenset(each.id for each in newest)


def _known(name: str) -> RuleName:
    if parts_of(name) is None:
        raise NotFound("there is no rule of this name")
    return RuleName(name)


def _stated(reason: str) -> str:
    stated = reason.strip()
    if not stated:
        raise Refused("it needs a reason")
    if "\0" in stated or len(stated) > REASON_LIMIT:
        raise Refused(f"a reason has at most {REASON_LIMIT} characters, and no NUL")
    return stated
