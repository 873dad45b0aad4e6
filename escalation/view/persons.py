"""What an administrator is told of persons: how each may log in, an invitation, how much was ended."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonView:
    """A person of the settings, and how they may log in on the page."""

    name: str
    role: str
    token: bool
    password: bool
    passkeys: int
    sessions: int
    invited: bool


@dataclass(frozen=True, slots=True)
class PersonList:
    """Every person of the settings, by name."""

    persons: tuple[PersonView, ...]


@dataclass(frozen=True, slots=True)
class InvitationView:
    """What is given to whoever was invited: a code that is good once, and a link whose fragment it is."""

    code: str
    url: str
    until: str


@dataclass(frozen=True, slots=True)
class Ended:
    """How many there were."""

    count: int
