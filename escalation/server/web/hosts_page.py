"""Which hosts stand on a page: those that nobody hears first, then those that are blind somewhere, by name.

Pure, over what is known of all of them; what any number of hosts, or one that makes things up, could make too
long has an end, and says how much is behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from escalation.view.entry import CoverageView, HostView

HOSTS_AT_ONCE: Final = 20
_SENSORS_AT_ONCE: Final = 40
_BLIND_AT_ONCE: Final = 40
_NAMES_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Blind:
    """A sensor that sees nothing for one reason: on which hosts, the first of them by name."""

    sensor: str
    words: str
    names: tuple[str, ...]
    more: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCard:
    """A host with its sensors, the first of each kind; `more` counts those that are left out."""

    host: HostView
    blind: tuple[CoverageView, ...]
    seeing: tuple[CoverageView, ...]
    more: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HostsPage:
    """One page of hosts; `blind` is of all hosts, what most of them cannot see first."""

    cards: tuple[HostCard, ...]
    page: int
    pages: int
    total: int
    silent: int
    blind: tuple[Blind, ...]
    more_blind: int


def arrange(hosts: Sequence[HostView], *, page: int) -> HostsPage:
    """Return page number `page`, or the last one there is."""
    pages = max(1, -(-len(hosts) // HOSTS_AT_ONCE))
    page = min(max(1, page), pages)
    ordered = sorted(hosts, key=lambda each: (not each.silent, not _is_blind(each), each.host))
    shown = ordered[(page - 1) * HOSTS_AT_ONCE : page * HOSTS_AT_ONCE]
    blind = _blind(hosts)
    return HostsPage(
        cards=tuple(map(_card, shown)),
        page=page,
        pages=pages,
        total=len(hosts),
        silent=sum(each.silent for each in hosts),
        blind=blind[:_BLIND_AT_ONCE],
        more_blind=max(0, len(blind) - _BLIND_AT_ONCE),
    )


def _is_blind(host: HostView) -> bool:
    return not host.coverage or not all(each.seeing for each in host.coverage)


def _card(host: HostView) -> HostCard:
    blind = [each for each in host.coverage if not each.seeing]
    seeing = [each for each in host.coverage if each.seeing]
    more = max(0, len(blind) - _SENSORS_AT_ONCE) + max(0, len(seeing) - _SENSORS_AT_ONCE)
    return HostCard(
        host=host,
        blind=tuple(blind[:_SENSORS_AT_ONCE]),
        seeing=tuple(seeing[:_SENSORS_AT_ONCE]),
        more=more,
    )


def _blind(hosts: Sequence[HostView]) -> tuple[Blind, ...]:
    found: dict[tuple[str, str], list[str]] = {}
    for host in hosts:
        for each in host.coverage:
            if not each.seeing:
                found.setdefault((each.sensor, each.words), []).append(host.host)
    ordered = sorted(found.items(), key=lambda each: (-len(each[1]), each[0]))
    return tuple(
        Blind(
            sensor=sensor,
            words=words,
            names=tuple(sorted(names)[:_NAMES_AT_ONCE]),
            more=max(0, len(names) - _NAMES_AT_ONCE),
        )
        for (sensor, words), names in ordered
    )
