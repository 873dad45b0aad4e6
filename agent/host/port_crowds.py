"""Which listeners have a case of their own, and which are told together, by who holds them.

A program that opens thousands of ports is one thing to look at, and as many cases would leave no place for
any other fault. So the first ports of a holder (a container, a unit, a cgroup) have a case each, and all
further ones are one case of that holder. Who has a place keeps it until it is closed, so no case moves from
one to the other while a holder is near the limit. Rejected: one case of all its ports from a number on, which
would clear and open cases of ports that stand open all the while.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

from agent.finding import Finding
from escalation.model import SEVERITY_ORDER, ListenerEvidence, Subject
from probes.observation import Instant

OWN_MAX: Final = 256
"""Listeners with a case of their own on one host, whoever holds them."""

CROWDS_MAX: Final = 128
"""Holders whose further ports are told together; those of more holders are told of the host."""

SHOWN: Final = 4
"""Ports of a crowd that are told one by one, the first of them; as many as a case keeps."""


@dataclass(slots=True)
class _Crowd:
    """The further ports of one holder: all, the first of them as they were judged, how many are untold."""

    members: dict[Subject, None] = field(default_factory=dict)
    first: dict[Subject, Finding] = field(default_factory=dict)
    fresh: int = 0


class PortCrowds:
    """Deals listeners out."""

    def __init__(self, *, each: int, host: Subject) -> None:
        """`each` ports of one holder have a case of their own."""
        self._each = each
        self._host = host
        self._own: dict[Subject, Subject] = {}
        self._held: Counter[Subject] = Counter()
        self._crowds: dict[Subject, _Crowd] = {}
        self._crowd_of: dict[Subject, Subject] = {}

    def __repr__(self) -> str:
        return f"PortCrowds(own={len(self._own)}, crowds={len(self._crowds)}, in them={len(self._crowd_of)})"

    def __contains__(self, holder: Subject) -> bool:
        """Return whether further ports of `holder` are open."""
        return holder in self._crowds

    def has_own(self, listener: Subject, holder: Subject) -> bool:
        """Return whether `listener` has a case of its own; give it one where there is a place."""
        if listener in self._own:
            return True
        if self._held[holder] >= self._each or len(self._own) >= OWN_MAX:
            return False
        self.leave(listener)
        self._own[listener] = holder
        self._held[holder] += 1
        return True

    def join(self, listener: Subject, holder: Subject, found: Finding) -> Subject:
        """Tell `listener` together with others; return whose case that is."""
        known = self._crowd_of.get(listener)
        if known is None:
            known = holder if holder in self._crowds or len(self._crowds) < CROWDS_MAX else self._host
            self._crowd_of[listener] = known
        crowd = self._crowds.setdefault(known, _Crowd())
        crowd.fresh += listener not in crowd.members
        crowd.members[listener] = None
        if listener in crowd.first or len(crowd.first) < SHOWN:
            crowd.first[listener] = found
        return known

    def leave(self, listener: Subject) -> Subject | None:
        """Forget `listener`; return whose case is over because it was the last of its crowd."""
        holder = self._own.pop(listener, None)
        if holder is not None:
            self._held[holder] -= 1
            if not self._held[holder]:
                del self._held[holder]
        known = self._crowd_of.pop(listener, None)
        if known is None:
            return None
        crowd = self._crowds[known]
        del crowd.members[listener]
        crowd.first.pop(listener, None)
        if crowd.members:
            return None
        del self._crowds[known]
        return known

    def keep(self, listeners: AbstractSet[Subject]) -> None:
        """Forget every listener but `listeners`."""
        for gone in [one for one in (*self._own, *self._crowd_of) if one not in listeners]:
            self.leave(gone)

    def told(self, holder: Subject, at: Instant) -> Finding | None:
        """Return what there is to say of the further ports of `holder`: the first, and how many more."""
        crowd = self._crowds.get(holder)
        if crowd is None or not crowd.first:
            return None
        worst = max(crowd.first.values(), key=lambda found: SEVERITY_ORDER.index(found.severity))
        shown = [each for found in crowd.first.values() for each in found.evidence]
        further = len(crowd.members) - len(crowd.first)
        evidence = tuple(
            replace(each, further=further) if isinstance(each, ListenerEvidence) and not place else each
            for place, each in enumerate(islice(shown, SHOWN))
        )
        fresh, crowd.fresh = crowd.fresh, 0
        of_many = holder == self._host
        return replace(
            worst,
            subject=holder,
            target=None if of_many or worst.target == holder else worst.target,
            incarnation=None if of_many else worst.incarnation,
            place=None if of_many else worst.place,
            at=at,
            count=fresh,
            reasons=tuple(
                replace(reason, count=len(crowd.members)) if not place else reason
                for place, reason in enumerate(worst.reasons)
            ),
            evidence=evidence,
        )
