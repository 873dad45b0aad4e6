"""Passwords: argon2id, computed on threads of its own, of which there are few.

A guess costs whoever guesses and this processor the same; so how many are computed at once, and how many
wait, is bounded, and who comes when too many wait is told to try later. A name that nobody has costs as much
as a wrong password, because a hash is computed for it too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import Type

from escalation.server.web.login.refusals import LoginBusy

T = TypeVar("T")

LEAST_CHARACTERS: Final = 12
MOST_CHARACTERS: Final = 512

_THREADS: Final = 2
_WAITING: Final = 8
_MOST_MEMORY_KIB: Final = 1024 * 1024


class Passwords:
    """Makes and checks hashes of passwords."""

    def __init__(self, *, hasher: PasswordHasher | None = None) -> None:
        """Hash with `hasher`; without one as RFC 9106 advises where memory is scarce (64 MiB, 3 passes)."""
        self._hasher = hasher or PasswordHasher()
        self._nobodys = ""
        self._threads = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="password")
        self._asked = 0

    def __repr__(self) -> str:
        return f"Passwords(asked={self._asked})"

    async def fits(self, hashed: str | None, password: str) -> bool:
        """Return whether `password` is that of `hashed`; None fits nothing, as slowly. Raise LoginBusy."""
        if not self._nobodys:
            self._nobodys = await self.hash("the password of nobody")
        fits = await self._computed(self._verify, hashed or self._nobodys, password[: MOST_CHARACTERS + 1])
        return fits and hashed is not None and len(password) <= MOST_CHARACTERS

    async def hash(self, password: str) -> str:
        """Return the hash of a new password; raise LoginBusy."""
        return await self._computed(self._hash, password)

    async def _computed(self, work: Callable[..., T], *arguments: str) -> T:
        if self._asked >= _THREADS + _WAITING:
            raise LoginBusy("too many passwords are being checked; try again in a moment")
        self._asked += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        finally:
            self._asked -= 1

    def _verify(self, hashed: str, password: str) -> bool:
        try:
            return self._hasher.verify(hashed, password)
        except (VerificationError, InvalidHashError, UnicodeEncodeError):
            return False

    def _hash(self, password: str) -> str:
        return self._hasher.hash(password)


def refusal_of(password: str) -> str:
    """Return why this is no password to take, or nothing; length alone is asked for (NIST SP 800-63B)."""
    if not LEAST_CHARACTERS <= len(password) <= MOST_CHARACTERS:
        return f"a password has {LEAST_CHARACTERS} to {MOST_CHARACTERS} characters"
    if not password.isprintable():
        return "a password holds no control characters"
    return ""


def check_hash(hashed: str) -> None:
    """Raise ValueError unless this is a hash that `nanobotctl password hash` could have made."""
    try:
        parameters = extract_parameters(hashed)
    except (InvalidHashError, ValueError) as error:
        raise ValueError("password_hash is no argon2id hash; nanobotctl password hash makes one") from error
    if parameters.type is not Type.ID or parameters.memory_cost > _MOST_MEMORY_KIB:
        raise ValueError("password_hash is no argon2id hash of at most 1 GiB")
