"""What a person weighs before deciding: other ways, what has to hold, the price, and how it went before."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from escalation.model.names import AgentId


class Way(enum.StrEnum):
    """What else could be done instead of the action that is recommended."""

    DO_NOTHING = "do_nothing"
    WAIT = "wait"
    RESTART = "restart"
    REMOVE_ROUTE = "remove_route"
    LESS_LOAD = "less_load"
    LOOK_FIRST = "look_first"
    BY_HAND = "by_hand"


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another way: what it is, what it costs, and why it is not the first choice."""

    way: Way
    words: str
    costs: str
    why_not: str


class Condition(enum.StrEnum):
    """What has to hold for an action to be right, at its proposal and again when it is approved."""

    SAME_LIFE = "same_life"
    NOT_BUSY = "not_busy"
    OTHER_REPLICA = "other_replica"
    OTHERS_TAKE_LOAD = "others_take_load"
    RANKS_FRESH = "ranks_fresh"
    EVIDENCE_FRESH = "evidence_fresh"
    BUDGET_LEFT = "budget_left"
    NO_MAINTENANCE = "no_maintenance"


class Result(enum.StrEnum):
    """What became of a condition. Unknown is not the same as holding."""

    HOLDS = "holds"
    FAILS = "fails"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Check:
    """One condition as it was found by the newest facts, in words.

    `in_the_way` is whether policy refuses the approval for it, `may_be_set_aside` whether a person may set it
    aside by name.
    """

    condition: Condition
    result: Result
    words: str
    in_the_way: bool = False
    may_be_set_aside: bool = False


@dataclass(frozen=True, slots=True)
class Override:
    """A condition that a person set aside, and why."""

    condition: Condition
    reason: str


class Step(enum.StrEnum):
    """When something was weighed."""

    APPROVED = "approved"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Weighed:
    """The conditions as they were found at one step, and which of them `person` set aside, and why."""

    step: Step
    person: str
    at_ns: int
    checks: tuple[Check, ...]
    overrides: tuple[Override, ...] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    """Something that was measured `count` times: the median and the longest, in seconds."""

    median_s: float
    longest_s: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What the action interrupts, by the newest facts; None is not known, and never nothing.

    `requests` are under way, `waiting` of them without a first byte; `exchanges` were made in `window_s`
    seconds, at least `streamed` of them as streams. All were true at `seen_ns`. `reload` is how long this
    target took to serve again after earlier restarts. `also_ends` are other things that end with it.
    """

    requests: int | None = None
    waiting: int | None = None
    exchanges: int | None = None
    streamed: int | None = None
    window_s: float | None = None
    seen_ns: int | None = None
    reload: Measured | None = None
    also_ends: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tally:
    """How often something cured, of how often it was tried."""

    cured: int
    tried: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """One earlier use of a remedy: where, who approved it, and how it ended."""

    at_ns: int
    host: AgentId
    target: str
    cured: bool
    approved_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class History:
    """How this kind of action ended for this fault class: on this host, in the fleet, and the last times."""

    here: Tally
    fleet: Tally
    last: tuple[Past, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a person says of an incident: whether there was a fault, and why."""

    fault: bool
    person: str
    at_ns: int
    reason: str
