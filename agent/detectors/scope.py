"""F45 scope.violation: something leaves its declared scope, or carries a secret where everybody can read it.

A scope is what an operator declares of a unit or a cgroup: what it may execute, connect to and listen on.
The kernel holds it against every call of its processes; the host's table of sockets is a second layer for
ports, and sees what began to listen before the scope was loaded. Outside of declared scopes nothing is
judged: a package manager, a build or an administrator may do what they like.

Secrets are looked for on the command lines of model servers and of processes in a scope. What is told is a
word of a closed list; a value that stands for no secret (a documented dummy, a variable, a path) is quiet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Self, assert_never

from msgspec import Meta

from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick, quiet_for_s, sight_after
from agent.finding import Finding, Hysteresis, OpenCase, Verdict, absent, unknown
from agent.subjects import cut, incarnation_of, place_of, process_name, subject_of, target_of
from escalation.model import (
    Evidence,
    FaultClass,
    Reason,
    ReasonCode,
    ScopeBreach,
    ScopeEvidence,
    Severity,
    Subject,
    SubjectKind,
)
from probes.observation import (
    Blind,
    CommandLine,
    CommandLines,
    Gap,
    Instant,
    Listener,
    ListenerInventory,
    ListenerOpened,
    Observation,
    Origin,
    ScopeBreached,
    SensorName,
)
from probes.observed.scope import BreachKind
from probes.scopes import ScopeRule

KERNEL: Final = SensorName("kernel.scope")
LINES: Final = SensorName("host.command_lines")
INVENTORY: Final = SensorName("host.listeners")
EVENTS: Final = SensorName("kernel.listener")
_FAULT = FaultClass.SCOPE_VIOLATION
_TEXT: Final = 64
_EVIDENCE_MAX: Final = 4


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long a scope has to be kept again."""

    clear_after_s: Annotated[float, Meta(ge=1)] = 600.0


@dataclass(frozen=True, slots=True)
class _Look:
    """What the last look at command lines found: who carries a secret, and whether all were looked at."""

    at: Instant
    carriers: frozenset[Subject]
    complete: bool


class ScopeViolation:
    """Says which scope is left, and which process carries a secret."""

    NAME: ClassVar[str] = "scope"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.MEDIUM,),
            sensors=(KERNEL, LINES, INVENTORY, EVENTS),
            opens="A process of a declared scope executes, connects to or listens on what the scope does not "
            "allow; or a model server, or a process of a scope, has a secret on its command line.",
            quiet="Everything outside of declared scopes, package managers among it; what a scope allows; "
            "ports that the kernel chooses; values that stand for no secret: documented dummies, variables, "
            "paths of files.",
            clears="Nothing left the scope for `clear_after_s` while the kernel watched and no port is open "
            "that it does not allow; a later look at all command lines finds no secret of that subject.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._around = surroundings
        self._seeing_since: Instant | None = None
        self._ports: frozenset[tuple[str, int]] | None = None
        self._look: _Look | None = None

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Open at once; the quiet time was waited for here."""
        return {_FAULT: Hysteresis(clear_hold_s=0.0)}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Judge one breach, one listener or table of them, or one look at all command lines."""
        match observation:
            case ScopeBreached():
                return (self._breach(observation),)
            case ListenerOpened(listener=listener, at=at, confirmed=confirmed) if confirmed is not False:
                scope = self._forbids(listener)
                return () if scope is None else (self._listens(listener, scope, at, confirmed=confirmed),)
            case ListenerInventory():
                return self._table(observation)
            case CommandLines():
                return self._carriers(observation)
            case Gap():
                self._sight(observation)
            case _:
                pass
        return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """End what is over, and say unknown of what cannot be seen."""
        found = []
        for case in tick.open_cases:
            if case.subject.kind is SubjectKind.SCOPE:
                over = self._scope_over(case, tick.now)
            else:
                over = self._secret_over(case, tick.now)
            if over is not None:
                found.append(over)
        return found

    def _sight(self, gap: Gap) -> None:
        if gap.sensor == KERNEL:
            self._seeing_since = sight_after(self._seeing_since, gap)
        elif isinstance(gap.coverage, Blind):
            self._ports = None if gap.sensor == INVENTORY else self._ports
            self._look = None if gap.sensor == LINES else self._look

    def _breach(self, breach: ScopeBreached) -> Finding:
        kind, code = _words(breach.kind)
        reasons = [Reason(code, count=breach.count)]
        if breach.denied:
            reasons.append(Reason(ReasonCode.CONNECTION_DENIED, count=breach.count))
        evidence = ScopeEvidence(
            scope=cut(breach.scope, _TEXT),
            breach=kind,
            process_name=process_name(breach.origin),
            pid=breach.origin.pid,
            executable=cut(breach.executable, _TEXT),
            address=cut(breach.address, _TEXT),
            port=breach.port,
            count=breach.count,
            denied=breach.denied,
        )
        return self._present(breach.origin, breach.at, breach.count, tuple(reasons), evidence)

    def _table(self, inventory: ListenerInventory) -> list[Finding]:
        known = self._ports or frozenset()
        seen: dict[tuple[str, int], Listener] = {}
        for listener in inventory.listeners:
            scope = self._forbids(listener)
            if scope is not None:
                seen.setdefault((scope, listener.port), listener)
        self._ports = frozenset(seen)
        return [
            self._listens(
                listener, scope, inventory.at, confirmed=True, count=int((scope, port) not in known)
            )
            for (scope, port), listener in seen.items()
        ]

    def _forbids(self, listener: Listener) -> str | None:
        """Return the scope that does not allow this listener; the nearest of several decides."""
        rules = [rule for rule in self._around.scopes if _holds(rule, listener.origin)]
        if not rules:
            return None
        path = listener.origin.cgroup_path or ""
        rule = max(rules, key=lambda rule: path.find(rule.unit) if rule.unit else len(rule.cgroup))
        allowed = rule.listeners is None or listener.port in rule.listeners
        return None if allowed else rule.name

    def _listens(
        self, listener: Listener, scope: str, at: Instant, *, confirmed: bool | None, count: int = 1
    ) -> Finding:
        second = ReasonCode.SOCKET_TABLE_AGREES if confirmed else ReasonCode.SECOND_LAYER_UNKNOWN
        reasons = (
            Reason(ReasonCode.LISTENER_NOT_ALLOWED, count=1),
            Reason(second, count=int(bool(confirmed))),
        )
        evidence = ScopeEvidence(
            scope=cut(scope, _TEXT),
            breach=ScopeBreach.LISTENER,
            process_name=process_name(listener.origin),
            pid=listener.origin.pid,
            executable="",
            address=cut(listener.address, _TEXT),
            port=listener.port,
            count=1,
            denied=False,
        )
        return self._present(listener.origin, at, count, reasons, evidence)

    def _present(
        self,
        origin: Origin,
        at: Instant,
        count: int,
        reasons: tuple[Reason, ...],
        evidence: ScopeEvidence,
    ) -> Finding:
        subject = Subject(SubjectKind.SCOPE, evidence.scope)
        return Finding(
            verdict=Verdict.PRESENT,
            fault_class=_FAULT,
            subject=subject,
            target=target_of(origin, subject),
            at=at,
            severity=Severity.MEDIUM,
            incarnation=incarnation_of(origin, self._around.kernel_boot_id),
            count=count,
            reasons=reasons,
            evidence=(evidence,),
        )

    def _carriers(self, seen: CommandLines) -> list[Finding]:
        known = self._look.carriers if self._look is not None else frozenset()
        carriers: dict[Subject, CommandLine] = {}
        for line in seen.lines:
            if line.secrets:
                carriers.setdefault(subject_of(line.origin), line)
        self._look = _Look(seen.at, frozenset(carriers), seen.complete)
        return [
            self._secret(subject, line, seen.at, count=0 if subject in known else 1)
            for subject, line in carriers.items()
        ]

    def _secret(self, subject: Subject, line: CommandLine, at: Instant, *, count: int) -> Finding:
        evidence: tuple[Evidence, ...] = tuple(
            ScopeEvidence(
                scope=cut(line.scope, _TEXT),
                breach=ScopeBreach.SECRET,
                process_name=process_name(line.origin),
                pid=line.origin.pid,
                executable="",
                address="",
                port=0,
                count=1,
                denied=False,
                option=word.value,
            )
            for word in line.secrets[:_EVIDENCE_MAX]
        )
        return Finding(
            verdict=Verdict.PRESENT,
            fault_class=_FAULT,
            subject=subject,
            target=target_of(line.origin, subject),
            at=at,
            severity=Severity.MEDIUM,
            incarnation=incarnation_of(line.origin, self._around.kernel_boot_id),
            place=place_of(line.origin),
            lifebound=subject.kind in {SubjectKind.CGROUP, SubjectKind.PROCESS},
            count=count,
            reasons=(Reason(ReasonCode.SECRET_ON_COMMAND_LINE, count=len(line.secrets)),),
            evidence=evidence,
        )

    def _scope_over(self, case: OpenCase, now: Instant) -> Finding | None:
        rules = [rule for rule in self._around.scopes if rule.name == case.subject.name]
        declared, of_ports = bool(rules), any(rule.listeners is not None for rule in rules)
        if declared and (self._seeing_since is None or (of_ports and self._ports is None)):
            return unknown(_FAULT, now, case.subject)
        listens = any(scope == case.subject.name for scope, _ in self._ports or ())
        quiet_s = quiet_for_s(self._seeing_since, case.last_seen, now)
        if declared and (listens or quiet_s < self._config.clear_after_s):
            return None
        reason = Reason(
            ReasonCode.NO_VIOLATION_SINCE, threshold=self._config.clear_after_s, window_s=round(quiet_s, 3)
        )
        return absent(_FAULT, case.subject, now, reason)

    def _secret_over(self, case: OpenCase, now: Instant) -> Finding | None:
        look = self._look
        if look is None or not look.complete:
            return unknown(_FAULT, now, case.subject)
        if case.subject in look.carriers or look.at.boot_ns <= case.last_seen.boot_ns:
            return None
        return absent(_FAULT, case.subject, now, Reason(ReasonCode.SECRET_GONE, count=1))


def _holds(rule: ScopeRule, origin: Origin) -> bool:
    path = origin.cgroup_path or ""
    if rule.unit:
        return origin.unit == rule.unit or rule.unit in path.split("/")
    return path == rule.cgroup or path.startswith(f"{rule.cgroup}/")


def _words(kind: BreachKind) -> tuple[ScopeBreach, ReasonCode]:
    match kind:
        case BreachKind.EXECUTABLE:
            return ScopeBreach.EXECUTABLE, ReasonCode.EXECUTABLE_NOT_ALLOWED
        case BreachKind.DESTINATION:
            return ScopeBreach.DESTINATION, ReasonCode.DESTINATION_NOT_ALLOWED
        case BreachKind.LISTENER:
            return ScopeBreach.LISTENER, ReasonCode.LISTENER_NOT_ALLOWED
        case _:
            assert_never(kind)
