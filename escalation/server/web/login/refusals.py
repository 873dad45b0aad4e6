"""Why somebody did not get in, in words for them that tell nothing about the account.

Error tree: `LoginRefused` > `WrongCredentials`, `TooManyAttempts`, `LoginBusy`.
"""

from __future__ import annotations


class LoginRefused(Exception):
    """Somebody did not get in, or what they asked for will not do."""


class WrongCredentials(LoginRefused):
    """These fit nobody."""


class TooManyAttempts(LoginRefused):
    """There were too many; try later."""


class LoginBusy(LoginRefused):
    """It cannot be checked or kept now; try again in a moment."""
