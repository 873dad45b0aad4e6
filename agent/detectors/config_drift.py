"""F42 service.config_drift: a server came back otherwise than it had run well.

What is compared are keyed prints of command lines, whole and by parts; the lines never reach this detector.
The print that a server ran with for `well_s` is recorded, and outlives restarts of the agent. Another print
of the same server is a case, which ends when the recorded print is back, when a person accepts the change on
the host, or when the new one has run for `accept_after_s`.

A server is known by its unit; without one by its kind and port, since a container that is made anew has
another id. Two at once of one kind and port cannot be told apart, and are not judged. Of images nothing is
known here: a container's id is another at every run. A server whose settings come from its environment
(OLLAMA_CONTEXT_LENGTH) or from a file does not show a change of them on its command line.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Final, Self, assert_never

import msgspec
from msgspec import Meta

from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick
from agent.finding import Finding, Hysteresis, OpenCase, Verdict, absent, unknown
from agent.host.heard import Heard
from agent.subjects import cut, incarnation_of, place_of, subject_of, target_of
from escalation.model import (
    Change,
    DriftEvidence,
    FaultClass,
    Reason,
    ReasonCode,
    ServerKind as WireServer,
    Severity,
    Subject,
    SubjectKind,
)
from probes.observation import Blind, CommandLine, CommandLines, Gap, Instant, Observation, Origin, SensorName
from probes.observed.scope import CommandPart

SENSOR: Final = SensorName("host.command_lines")
_FAULT = FaultClass.SERVICE_CONFIG_DRIFT

SERVERS_MAX: Final = 128
_LONGEST_GAP_S: Final = 120.0
_LONGEST_S: Final = 10 * 365 * 86_400.0


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long a server has run well, is new, and is as it shall be after a change."""

    well_s: Annotated[float, Meta(ge=1)] = 600.0
    settle_s: Annotated[float, Meta(ge=0)] = 20.0
    accept_after_s: Annotated[float, Meta(ge=60)] = 86_400.0
    clear_hold_s: Annotated[float, Meta(ge=0)] = 60.0
    gone_clear_after_s: Annotated[float, Meta(gt=0)] = 86400.0


class _Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a server was started: the print of all, of each part in the order of CommandPart, the context."""

    print: str
    parts: tuple[str, ...]
    context_tokens: int | None


class _Server(msgspec.Struct, forbid_unknown_fields=True):
    """What is known of one server; this is what is kept across restarts of the agent.

    `other` is what it came back as, and `case` the subject of the case that was opened for that.
    """

    key: str
    record: _Shape | None = None
    ran_s: float = 0.0
    other: _Shape | None = None
    other_ran_s: float = 0.0
    case: tuple[str, str] | None = None


class ConfigDrift:
    """Says which server came back with another command line."""

    NAME: ClassVar[str] = "config_drift"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.MEDIUM,),
            sensors=(SENSOR,),
            opens="A model server, gateway or interface runs with another command line than the one with "
            "which it had run for `well_s`.",
            quiet="The same line in another notation (`--a=b`, `--a_b`); other secrets, temporary folders, "
            "UUIDs and ports that the kernel chose; a line that never ran for `well_s`; the first `settle_s` "
            "of a process, in which a shell may still become the server; two servers of one kind and port. "
            "Planned changes cannot be declared beforehand: they are accepted afterwards.",
            clears="The recorded command line is back; a person accepts the change (`nanobot-agent "
            "accept-drift`); it has run for `accept_after_s`; or the server has not been there for "
            "`gone_clear_after_s`. Held for `clear_hold_s`.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._heard = Heard(SENSOR)
        self._around = surroundings
        self._servers: OrderedDict[str, _Server] = OrderedDict()
        self._lives: dict[str, tuple[int | None, int | None, Instant]] = {}
        self._accepted: set[str] = set()
        self._sees = False

    def __repr__(self) -> str:
        return f"ConfigDrift(servers={len(self._servers)})"

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Open at the first sight of another command line."""
        return {_FAULT: Hysteresis(clear_hold_s=self._config.clear_hold_s)}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Judge every server of one look."""
        if isinstance(observation, Gap) and observation.sensor == SENSOR:
            self._sees = not isinstance(observation.coverage, Blind)
            self._heard.sight(observation)
            return ()
        if not isinstance(observation, CommandLines):
            return ()
        self._sees = True
        self._accepted |= set(observation.accepted[:SERVERS_MAX])
        lines = [(_name(line.origin, line.port), line) for line in observation.lines if line.print]
        several = Counter(name for name, _ in lines)
        if not observation.complete:
            self._heard.blur(observation.at)
        found = []
        for name, line in lines:
            self._heard.take(subject_of(line.origin), observation.at)
            age_s = observation.at.since_s(line.started)
            if several[name] == 1 and age_s >= self._config.settle_s:
                found += self._judged(name, line, observation, min(age_s, _LONGEST_S))
        return found

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """End what was accepted though its server is not there, and what is gone; unknown while blind."""
        if not self._sees:
            return [unknown(_FAULT, tick.now, case.subject) for case in tick.open_cases]
        accepted, self._accepted = self._accepted, set()
        over = (
            self._accept(case, tick.now)
            if self._is_named(case, accepted)
            else self._heard.gone(case, tick, self._config.gone_clear_after_s)
            for case in tick.open_cases
        )
        return [each for each in over if each is not None]

    def memory(self) -> dict[str, bytes]:
        """Return what each server was recorded with."""
        return {name: msgspec.json.encode(server) for name, server in self._servers.items()}

    def recall(self, memory: Mapping[str, bytes]) -> int:
        """Take up what `memory` returned before; return how many entries could not be read."""
        unreadable = 0
        for name, raw in list(memory.items())[:SERVERS_MAX]:
            try:
                self._servers[name] = msgspec.json.decode(raw, type=_Server)
            except (msgspec.MsgspecError, UnicodeError):
                unreadable += 1
        return unreadable

    def _judged(self, name: str, line: CommandLine, look: CommandLines, age_s: float) -> list[Finding]:
        server = self._server(name, look.key)
        passed_s = self._passed(name, line, look.at)
        shape = _Shape(line.print, tuple(part.print for part in line.parts), line.context_tokens)
        if server.record is None:
            if age_s >= self._config.well_s:
                server.record, server.ran_s = shape, age_s
            return []
        if shape.print == server.record.print:
            server.ran_s = max(server.ran_s, age_s)
            server.other = None
            return self._ended(server, look.at, ReasonCode.BACK_AS_RECORDED, of=subject_of(line.origin))
        fresh = server.other is None or server.other.print != shape.print
        if fresh:
            server.other, server.other_ran_s = shape, 0.0
        server.other_ran_s = max(server.other_ran_s + (0.0 if fresh else passed_s), age_s)
        names = {name, subject_of(line.origin).name}
        if names & self._accepted or server.other_ran_s >= self._config.accept_after_s:
            self._accepted -= names
            server.record, server.ran_s, server.other = shape, server.other_ran_s, None
            return self._ended(server, look.at, ReasonCode.CHANGE_ACCEPTED, of=subject_of(line.origin))
        return self._present(server, shape, line, look.at, count=int(fresh))

    def _server(self, name: str, key: str) -> _Server:
        server = self._servers.get(name)
        if server is None or server.key != key:  # prints of another key say nothing
            server = self._servers[name] = _Server(key=key, case=None if server is None else server.case)
        self._servers.move_to_end(name)
        while len(self._servers) > SERVERS_MAX:
            gone, _ = self._servers.popitem(last=False)
            self._lives.pop(gone, None)
        return server

    def _passed(self, name: str, line: CommandLine, at: Instant) -> float:
        """Return how long the same life of the server has gone on since the last look."""
        before = self._lives.get(name)
        self._lives[name] = (line.origin.pid, line.origin.start_ticks, at)
        if before is None or before[:2] != (line.origin.pid, line.origin.start_ticks):
            return 0.0
        return max(0.0, min(at.since_s(before[2]), _LONGEST_GAP_S))

    def _present(
        self, server: _Server, shape: _Shape, line: CommandLine, at: Instant, *, count: int
    ) -> list[Finding]:
        record, subject = server.record, subject_of(line.origin)
        assert record is not None, "only what is recorded can differ"
        over: list[Finding] = []
        told = server.case
        if told is not None and told != (subject.kind.value, subject.name):
            # The container that the case spoke of was made anew: the case goes on with its successor.
            over, count = self._ended(server, at, ReasonCode.CGROUP_GONE), 1
        server.case = (subject.kind.value, subject.name)
        changes = _changes(record, shape)
        codes = [ReasonCode.COMMAND_LINE_CHANGED]
        codes += [ReasonCode.MODEL_CHANGED] if Change.MODEL in changes else []
        codes += [ReasonCode.CONTEXT_CHANGED] if Change.CONTEXT in changes else []
        evidence = DriftEvidence(
            server=WireServer(line.origin.server.value),
            changes=changes,
            print_before=record.print,
            print_now=shape.print,
            context_before=record.context_tokens,
            context_now=shape.context_tokens,
            ran_s=round(server.ran_s, 3),
        )
        present = Finding(
            verdict=Verdict.PRESENT,
            fault_class=_FAULT,
            subject=subject,
            target=target_of(line.origin, subject),
            at=at,
            severity=Severity.MEDIUM,
            incarnation=incarnation_of(line.origin, self._around.kernel_boot_id),
            place=place_of(line.origin),
            count=count,
            reasons=tuple(Reason(code, count=1, window_s=round(server.ran_s, 3)) for code in codes),
            evidence=(evidence,),
        )
        return [*over, present]

    def _ended(
        self, server: _Server, at: Instant, code: ReasonCode, *, of: Subject | None = None
    ) -> list[Finding]:
        """Return that the case is over; `of` is whose it would be where it was not kept in mind."""
        told = Subject(SubjectKind(server.case[0]), server.case[1]) if server.case is not None else of
        if code is not ReasonCode.BACK_AS_RECORDED:
            server.case = None
        return [absent(_FAULT, told, at, Reason(code, count=1))] if told is not None else []

    def _is_named(self, case: OpenCase, accepted: set[str]) -> bool:
        key = (case.subject.kind.value, case.subject.name)
        names = {name for name, server in self._servers.items() if server.case == key}
        return case.subject.name in accepted or bool(names & accepted)

    def _accept(self, case: OpenCase, at: Instant) -> Finding:
        return absent(_FAULT, case.subject, at, Reason(ReasonCode.CHANGE_ACCEPTED, count=1))


def _name(origin: Origin, port: int) -> str:
    """Return what a server is known by across its lives."""
    unit = origin.unit or ""
    if unit.endswith(".service") and not unit.startswith("user@"):
        return cut(unit, 255)
    return f"{origin.server.value}:{port}"


def _changes(before: _Shape, now: _Shape) -> tuple[Change, ...]:
    if len(before.parts) != len(now.parts):
        return (Change.UNKNOWN,)
    pairs = zip(CommandPart, before.parts, now.parts, strict=False)
    return tuple(_word(part) for part, was, is_now in pairs if was != is_now) or (Change.OTHER_OPTION,)


def _word(part: CommandPart) -> Change:
    match part:
        case CommandPart.MODEL:
            return Change.MODEL
        case CommandPart.CONTEXT:
            return Change.CONTEXT
        case CommandPart.QUANTIZATION:
            return Change.QUANTIZATION
        case CommandPart.PARSER:
            return Change.PARSER
        case CommandPart.MEMORY:
            return Change.MEMORY
        case CommandPart.PARALLELISM:
            return Change.PARALLELISM
        case CommandPart.ADDRESS:
            return Change.ADDRESS
        case CommandPart.EXECUTABLE:
            return Change.EXECUTABLE
        case CommandPart.OTHER:
            return Change.OTHER_OPTION
        case _:
            assert_never(part)
