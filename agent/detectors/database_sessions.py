"""F48 database.connections_exhausted: a database turns clients away, because every session is taken.

The database's log says that it turned somebody away; that is one layer. The second is the host's own: the
socket table shows as many sessions as there ever were (the limit itself is the database's secret), or a
router refuses keys that it took a minute ago, which is how LiteLLM shows a database that it cannot ask.

Look-alikes stay quiet: a key that is simply bad (others go on working), a full pool of sessions while nobody
is turned away, a database that is starting, one role that has used up its own limit (a note). A case clears
on positive evidence: sessions well below what they were when clients were turned away and nobody turned away
since, or a database that started anew.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final, Self

from msgspec import Meta

from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick, quiet_for_s, sight_after
from agent.finding import Finding, Hysteresis, OpenCase, Verdict, absent, unknown
from agent.host.log_evidence import log_evidence
from agent.subjects import incarnation_of, place_of, service_of, target_of
from escalation.model import (
    FaultClass,
    Reason,
    ReasonCode,
    SessionsEvidence,
    Severity,
    Subject,
    SubjectKind,
)
from probes.http.facts import ErrorKind, ExchangeFacts
from probes.observation import (
    Blind,
    Exchange,
    Gap,
    Instant,
    LogLine,
    Observation,
    Origin,
    SensorName,
    ServerKind,
    Sessions,
)

JOURNAL: Final = SensorName("host.logs")
FILES: Final = SensorName("host.log_files")
SESSIONS: Final = SensorName("host.sessions")
_FAULT: Final = FaultClass.DATABASE_CONNECTIONS_EXHAUSTED
_PORT: Final = 5432
_TURNED_AWAY: Final = frozenset(
    {"postgresql.slots_reserved", "postgresql.too_many_clients", "postgresql.too_many_for_one"}
)
_ROUTERS: Final = frozenset({"litellm.models_lost", "litellm.pool_exhausted"})
_READY: Final = "postgresql.ready"
_LINES_MAX: Final = 256
_PORTS_MAX: Final = 16


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What agrees with a refusal, and what ends a case."""

    window_s: Annotated[float, Meta(gt=0)] = 60.0
    near_limit: Annotated[float, Meta(gt=0, le=1)] = 0.9
    sessions_min: Annotated[int, Meta(ge=1)] = 5
    fresh_s: Annotated[float, Meta(gt=0)] = 30.0
    keys_refused_min: Annotated[int, Meta(ge=1)] = 5
    keys_worked_min: Annotated[int, Meta(ge=1)] = 3
    keys_worked_s: Annotated[float, Meta(gt=0)] = 900.0
    free_again: Annotated[float, Meta(gt=0, lt=1)] = 0.9
    clear_after_s: Annotated[float, Meta(ge=0)] = 60.0
    clear_hold_s: Annotated[float, Meta(ge=0)] = 30.0
    gone_clear_after_s: Annotated[float, Meta(gt=0)] = 86400.0


@dataclass(frozen=True, slots=True)
class _Line:
    at: Instant
    told: LogLine


@dataclass(slots=True)
class _Table:
    """The sessions of the database as the host's socket table shows them."""

    last: Sessions | None = None
    most: int = 0
    at_refusal: int = 0


@dataclass(slots=True)
class _Router:
    """What a router does with keys: when it took one last, and what it has refused since."""

    worked: deque[Instant] = field(default_factory=lambda: deque(maxlen=16))
    refused: deque[Instant] = field(default_factory=lambda: deque(maxlen=64))


class DatabaseSessions:
    """Says that a database has no session left for those who ask."""

    NAME: ClassVar[str] = "database_sessions"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.NOTE, Severity.HIGH),
            sensors=(JOURNAL, FILES, SESSIONS, SensorName("http.routes")),
            opens="PostgreSQL logs that it turned a client away, or a router that it could not read its "
            "models. A note alone; high together with sessions at `near_limit` of the most there ever were, "
            "or with `keys_refused_min` keys refused by a router that had taken `keys_worked_min` before and "
            "takes none any more.",
            quiet="Refused keys without a word of the database; many sessions while nobody is turned away. "
            "A role or database at its own limit is a note.",
            clears="Nobody was turned away for `clear_after_s` while the logs were seen, and sessions are "
            "below `free_again` of what they were then; or the database started anew; or nobody was for "
            "`gone_clear_after_s`, and its port is closed, or it is not known what they were then.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._around = surroundings
        self._lines: deque[_Line] = deque(maxlen=_LINES_MAX)
        self._table = _Table()
        self._routers: OrderedDict[int, _Router] = OrderedDict()
        self._ready_at: Instant | None = None
        self._told: Instant | None = None
        self._sight: dict[SensorName, Instant | None] = {JOURNAL: None, FILES: None, SESSIONS: None}

    def __repr__(self) -> str:
        return f"DatabaseSessions({len(self._lines)} lines, {self._table})"

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Open at once: a database that turns clients away does harm with the first."""
        return {_FAULT: Hysteresis(clear_hold_s=self._config.clear_hold_s)}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Follow the database's log, its sessions, and what routers do with keys."""
        match observation:
            case LogLine(pattern=pattern) if pattern in _TURNED_AWAY or pattern in _ROUTERS:
                return self._refused(observation)
            case LogLine(pattern=pattern) if pattern == _READY:
                self._ready_at = observation.at
            case Sessions(port=port) if port == _PORT:
                return self._counted(observation)
            case Exchange():
                return self._asked(observation.origin, observation.facts, observation.at)
            case Gap(sensor=sensor) if sensor in self._sight:
                self._sight[sensor] = sight_after(self._sight[sensor], observation)
                if isinstance(observation.coverage, Blind) and not self._sees_logs():
                    return (unknown(_FAULT, observation.at),)
            case _:
                pass
        return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Clear what is over."""
        return [over for case in tick.open_cases if (over := self._over(case, tick.now)) is not None]

    def _refused(self, told: LogLine) -> Sequence[Finding]:
        self._lines.append(_Line(told.at, told))
        self._told = told.at
        if self._table.last is not None:
            self._table.at_refusal = max(self._table.at_refusal, self._table.last.sessions)
        return (self._finding(told.at, count=told.count),)

    def _counted(self, told: Sessions) -> Sequence[Finding]:
        self._table.last = told
        self._table.most = max(self._table.most, told.sessions)
        if not self._recent(told.at):
            return ()
        self._table.at_refusal = max(self._table.at_refusal, told.sessions)
        return (self._finding(told.at, count=0),) if self._near_limit(told.at) else ()

    def _asked(self, origin: Origin, facts: ExchangeFacts, at: Instant) -> Sequence[Finding]:
        if origin.server is not ServerKind.LITELLM:
            return ()
        router = self._routers.setdefault(facts.name.port, _Router())
        while len(self._routers) > _PORTS_MAX:
            self._routers.popitem(last=False)
        if facts.error is ErrorKind.UNAUTHORIZED:
            router.refused.append(at)
            known = len(router.refused) == self._config.keys_refused_min
            return (self._finding(at, count=0),) if known and self._recent(at) else ()
        if 0 < facts.status < 400:
            router.worked.append(at)
            router.refused.clear()
        return ()

    def _finding(self, at: Instant, *, count: int) -> Finding:
        lines = self._recent(at)
        told = lines[-1].told
        refused = sum(line.told.count for line in lines if line.told.pattern in _TURNED_AWAY)
        reasons = [
            Reason(
                ReasonCode.SESSIONS_REFUSED if refused else ReasonCode.LOG_LINE_MATCHES,
                count=refused or sum(line.told.count for line in lines),
                window_s=self._config.window_s,
            )
        ]
        second = [*self._reason_of_sessions(at), *self._reason_of_keys(at)]
        one_role = all(line.told.pattern == "postgresql.too_many_for_one" for line in lines)
        certain = bool(second) and not one_role
        reasons += second or [Reason(ReasonCode.SECOND_LAYER_UNKNOWN)]
        origin = self._database(told)
        subject = service_of(origin) if origin is not None else Subject(SubjectKind.HOST, self._around.host)
        written = sum(line.told.count for line in lines if line.told.pattern == told.pattern)
        evidence = log_evidence(told, count=written, window_s=self._config.window_s)
        return Finding(
            verdict=Verdict.PRESENT,
            fault_class=_FAULT,
            subject=subject,
            target=target_of(origin, subject) if origin is not None else None,
            at=at,
            severity=Severity.HIGH if certain else Severity.NOTE,
            incarnation=incarnation_of(origin or Origin(), self._around.kernel_boot_id),
            place=place_of(origin) if origin is not None else None,
            count=count,
            reasons=tuple(reasons),
            evidence=(self._sessions_evidence(refused), evidence),
        )

    def _sessions_evidence(self, refused: int) -> SessionsEvidence:
        last = self._table.last
        return SessionsEvidence(
            port=_PORT,
            sessions=last.sessions if last is not None else 0,
            limit=None,
            refused=refused,
            window_s=self._config.window_s,
        )

    def _database(self, told: LogLine) -> Origin | None:
        """Return who the database is: the one that listens, else the one that wrote; None for neither."""
        last = self._table.last
        listens = last.origin if last is not None else Origin()
        if listens.unit or listens.container_id:
            return listens
        if told.pattern in _TURNED_AWAY and (told.origin.unit or told.origin.container_id):
            return told.origin
        return listens if listens.process_name else None

    def _recent(self, at: Instant) -> list[_Line]:
        while self._lines and at.since_s(self._lines[0].at) > self._config.window_s:
            self._lines.popleft()
        return list(self._lines)

    def _near_limit(self, at: Instant) -> bool:
        last = self._table.last
        return (
            last is not None
            and at.since_s(last.at) <= self._config.fresh_s
            and last.sessions >= max(self._config.sessions_min, self._config.near_limit * self._table.most)
        )

    def _reason_of_sessions(self, at: Instant) -> list[Reason]:
        last = self._table.last
        if last is None or not self._near_limit(at):
            return []
        percent = round(100 * self._config.near_limit, 3)
        return [Reason(ReasonCode.SESSIONS_NEAR_LIMIT, count=last.sessions, threshold=percent)]

    def _reason_of_keys(self, at: Instant) -> list[Reason]:
        config = self._config
        for router in self._routers.values():
            refused = [each for each in router.refused if at.since_s(each) <= config.window_s]
            worked = [each for each in router.worked if at.since_s(each) <= config.keys_worked_s]
            if len(refused) >= config.keys_refused_min and len(worked) >= config.keys_worked_min:
                return [
                    Reason(
                        ReasonCode.KEYS_REFUSED_AT_ROUTER,
                        count=len(refused),
                        threshold=config.keys_refused_min,
                        window_s=config.window_s,
                    )
                ]
        return []

    def _sees_logs(self) -> bool:
        return self._sight[JOURNAL] is not None or self._sight[FILES] is not None

    def _over(self, case: OpenCase, now: Instant) -> Finding | None:
        if self._ready_at is not None and self._ready_at.boot_ns > case.last_seen.boot_ns:
            return self._absent(case, now, quiet_s=now.since_s(self._ready_at))
        sight = self._sight[SESSIONS]
        seeing = [since for name in (JOURNAL, FILES) if (since := self._sight[name]) is not None]
        if sight is None or not seeing:
            return None
        began = max((*seeing, case.last_seen, *((self._told,) if self._told else ())), key=_boot_ns)
        quiet_s = now.since_s(began)
        last = self._table.last
        if last is None or now.since_s(last.at) > self._config.fresh_s:
            # Nobody listens where a database would: what turns nobody away for so long is gone.
            gone_s = min(quiet_s, quiet_for_s(sight, last.at if last is not None else sight, now))
            return self._gone(case, now, gone_s) if gone_s >= self._config.gone_clear_after_s else None
        # What this process did not see, an earlier one may have: the case remembers.
        told = [each.sessions for each in case.evidence if isinstance(each, SessionsEvidence)]
        full = max(self._table.at_refusal, *told, 0)
        if quiet_s < self._config.clear_after_s:
            return None
        if last.sessions < self._config.free_again * (full or self._table.most):
            return self._absent(case, now, quiet_s=quiet_s)
        forgotten = not full and quiet_s >= self._config.gone_clear_after_s
        return self._gone(case, now, quiet_s) if forgotten else None

    def _gone(self, case: OpenCase, now: Instant, gone_s: float) -> Finding:
        threshold = self._config.gone_clear_after_s
        reason = Reason(ReasonCode.NOT_SEEN_SINCE, threshold=threshold, window_s=round(gone_s, 3))
        return absent(_FAULT, case.subject, now, reason)

    def _absent(self, case: OpenCase, now: Instant, *, quiet_s: float) -> Finding:
        self._table.at_refusal = 0
        last = self._table.last
        return absent(
            _FAULT,
            case.subject,
            now,
            Reason(
                ReasonCode.SESSIONS_FREE_AGAIN,
                count=last.sessions if last is not None else 0,
                threshold=self._config.clear_after_s,
                window_s=round(max(0.0, quiet_s), 3),
            ),
        )


def _boot_ns(at: Instant) -> int:
    return at.boot_ns
