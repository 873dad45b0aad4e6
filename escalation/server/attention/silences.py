"""Silences: which incidents nobody is told of for a while, who said so, and why.

A silence is a set of matchers, all of which have to fit, with an author, a comment and an end. What it covers
is kept and shown as silenced; only the telling stops. Some classes are never covered by chance: that a model
server is exposed, or that the monitor is blind, is silenced only by who names that class.

Maintenance is a silence of another origin: started by hand for a host, or declared in the settings.

A matcher compares as equal, not equal, or with a pattern of `*` and `?`. There are no regular expressions: a
bad one takes a processor for ever.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, NewType, Protocol

from escalation.model import AgentId, FaultClass, Severity, Subject, SubjectKind
from escalation.server.clock import is_over
from escalation.server.storage.records import Kind

SilenceId = NewType("SilenceId", str)

LONGEST_S: Final = 30 * 86_400.0
COMMENT_LIMIT: Final = 2000
MATCHERS_AT_MOST: Final = 10
VALUE_LIMIT: Final = 200

GUARDED: Final = frozenset(
    {
        FaultClass.EXPOSURE_OFF_MESH_LISTENER,
        FaultClass.EXPOSURE_OPEN_CONTROL_PLANE,
        FaultClass.MONITOR_BLIND,
        FaultClass.SCOPE_VIOLATION,
    }
)
"""The classes that a silence covers only when it names them."""

_TEXT: Final = re.compile(r"(host|fault_class|subject_kind|subject_name|severity)(!=|=|~)(.+)", re.DOTALL)


MATCHER_PATTERN: Final = f"^{_TEXT.pattern}$"
"""How a matcher looks, for who describes it."""


class Field(enum.StrEnum):
    """What of an incident a matcher looks at."""

    HOST = "host"
    FAULT_CLASS = "fault_class"
    SUBJECT_KIND = "subject_kind"
    SUBJECT_NAME = "subject_name"
    SEVERITY = "severity"


class Coverable(Protocol):
    """What of an incident matchers look at; the incident itself, or what is read of it alone."""

    @property
    def agent_id(self) -> AgentId:
        """Return whose it is."""

    @property
    def fault_class(self) -> FaultClass:
        """Return what is at fault."""

    @property
    def subject(self) -> Subject:
        """Return whom it hit."""

    @property
    def severity(self) -> Severity:
        """Return how bad it is."""


class Test(enum.StrEnum):
    """How a matcher compares. FITS: with a pattern, in which `*` is any text and `?` any character."""

    IS = "="
    IS_NOT = "!="
    FITS = "~"


class Origin(enum.StrEnum):
    """Where a silence comes from: a person, a person who works on a host, the settings."""

    SILENCE = "silence"
    MAINTENANCE = "maintenance"
    DECLARED = "declared"


class Phase(enum.StrEnum):
    """Where a silence stands."""

    PENDING = "pending"
    ACTIVE = "active"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Matcher:
    """One comparison; a ValueError says what is wrong with one that could never mean anything."""

    field: Field
    test: Test
    value: str

    def __post_init__(self) -> None:
        """Refuse an empty or overlong value, and a name that nothing of ours has."""
        if not 0 < len(self.value) <= VALUE_LIMIT or "\0" in self.value:
            raise ValueError(f"a matcher's value has 1 to {VALUE_LIMIT} characters and no NUL")
        known = _NAMES.get(self.field)
        if known is not None and self.test is not Test.FITS and self.value not in known:
            raise ValueError(f"there is no {self.field.value} of that name")

    def __str__(self) -> str:
        return f"{self.field.value}{self.test.value}{self.value}"

    def fits(self, incident: Coverable) -> bool:
        """Return whether `incident` is one that this matcher means."""
        found = _READ[self.field](incident)
        if self.test is Test.FITS:
            return fits_pattern(self.value, found)
        return (found == self.value) is (self.test is Test.IS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """Who silenced what, why and until when; `incidents` and `notices` count what it has held back.

    `also` are guarded classes that it covers besides. `ended_by` says who ended it before its time, which was
    `planned_ns`, and `window` which declared window it is of.
    """

    id: SilenceId
    matchers: tuple[Matcher, ...]
    author: str
    comment: str
    created_ns: int
    starts_ns: int
    ends_ns: int
    origin: Origin = Origin.SILENCE
    also: tuple[FaultClass, ...] = ()
    ended_by: str | None = None
    planned_ns: int | None = None
    window: str | None = None
    incidents: int = 0
    notices: int = 0

    def phase(self, now_ns: int) -> Phase:
        """Return where it stands; a clock that went back ends it, and never begins it anew."""
        if is_over(started_ns=self.created_ns, ends_ns=self.ends_ns, now_ns=now_ns):
            return Phase.OVER
        return Phase.ACTIVE if now_ns >= self.starts_ns else Phase.PENDING

    def names(self, fault_class: FaultClass) -> bool:
        """Return whether it names this class outright: by a matcher that is equal, or among `also`."""
        named = Matcher(Field.FAULT_CLASS, Test.IS, fault_class.value)
        return named in self.matchers or fault_class in self.also

    def covers(self, incident: Coverable) -> bool:
        """Return whether it is meant for `incident`, whenever."""
        if incident.fault_class in GUARDED and not self.names(incident.fault_class):
            return False
        for each in self.matchers:  # noqa: SIM110 -- half the time of all()
            if not each.fits(incident):
                return False
        return True

    def ended(self, *, person: str, now_ns: int) -> Silence:
        """Return it ended now, by `person`."""
        ends_ns = max(self.created_ns, min(now_ns, self.ends_ns))
        return replace(self, ends_ns=ends_ns, ended_by=person, planned_ns=self.ends_ns)


ACTIVE: Final = Kind("silence", Silence)
"""Silences that are not over, by id: few, and read with every notice."""

OVER: Final = Kind("silence_over", Silence)
"""Silences that are over, by their end and id."""


@dataclass(frozen=True, slots=True)
class HeldBack:
    """That a silence holds an incident back: since when, and what would have been told of it.

    Each of `untold` is an event and its occasion.
    """

    at_ns: int
    untold: tuple[tuple[str, str], ...] = ()


HELD: Final = Kind("silenced", HeldBack)
"""What a silence held back: owned by the silence's id, by the incident's id."""


def parse(text: str) -> Matcher:
    """Read a matcher as people write it: `host=spark-1`, `subject_name!=a`, `fault_class~gpu.*`."""
    found = _TEXT.fullmatch(text)
    if found is None:
        names = ", ".join(each.value for each in Field)
        raise ValueError(f"a matcher is FIELD=VALUE, FIELD!=VALUE or FIELD~PATTERN; fields are {names}")
    return Matcher(Field(found[1]), Test(found[2]), found[3])


def checked(matchers: Iterable[Matcher]) -> tuple[Matcher, ...]:
    """Return matchers in one order; a ValueError says what is wrong with all of them together."""
    ordered = tuple(sorted(set(matchers), key=lambda each: (each.field, each.test, each.value)))
    if not 0 < len(ordered) <= MATCHERS_AT_MOST:
        raise ValueError(f"a silence has 1 to {MATCHERS_AT_MOST} matchers")
    if not any(map(_says_what, ordered)):
        raise ValueError("this would silence almost everything; say what is meant, not only what is not")
    return ordered


def _says_what(matcher: Matcher) -> bool:
    """Return whether a matcher names something; a pattern of wildcards and what is not equal name nothing."""
    return matcher.test is Test.IS or (matcher.test is Test.FITS and bool(set(matcher.value) - set("*?")))


def for_host(host: str) -> Matcher:
    """Return the matcher of a host, or of those that a pattern fits."""
    return Matcher(Field.HOST, Test.FITS if set("*?") & set(host) else Test.IS, host)


def fits_pattern(pattern: str, text: str) -> bool:
    """Return whether the whole of `text` fits; at most their lengths' product in steps, whatever they are."""
    at_pattern = at_text = 0
    star, resume = -1, 0
    while at_text < len(text):
        char = pattern[at_pattern] if at_pattern < len(pattern) else ""
        if char == "*":
            star, resume = at_pattern, at_text
            at_pattern += 1
        elif char in {"?", text[at_text]}:
            at_pattern += 1
            at_text += 1
        elif star >= 0:
            resume += 1
            at_pattern, at_text = star + 1, resume
        else:
            return False
    return not pattern[at_pattern:].strip("*")


_READ: Final[Mapping[Field, Callable[[Coverable], str]]] = {
    Field.HOST: lambda incident: incident.agent_id,
    Field.FAULT_CLASS: lambda incident: incident.fault_class.value,
    Field.SUBJECT_KIND: lambda incident: incident.subject.kind.value,
    Field.SUBJECT_NAME: lambda incident: incident.subject.name,
    Field.SEVERITY: lambda incident: incident.severity.value,
}
"""A table, because every open incident is held against every silence each second."""

_NAMES: Final = {
    Field.FAULT_CLASS: frozenset(each.value for each in FaultClass),
    Field.SUBJECT_KIND: frozenset(each.value for each in SubjectKind),
    Field.SEVERITY: frozenset(each.value for each in Severity),
}
