"""What can go wrong for a person at the command line, and the exit code that says so to a script.

Error tree: `CtlError`, one class with an exit code: no caller inside tells kinds apart, scripts outside do.
"""

from __future__ import annotations

import enum
from typing import Final


class ExitCode(enum.IntEnum):
    """The contract with scripts."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_AUTHENTICATED = 4
    REFUSED = 5
    EXPIRED_OR_SUPERSEDED = 6
    STILL_PENDING = 7


MEANINGS: Final = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "failed; standard error says what, why and what to do next",
    ExitCode.USAGE: "the command line or the configuration is wrong",
    ExitCode.NOT_FOUND: "there is no such entry",
    ExitCode.NOT_AUTHENTICATED: "the token is missing, unusable or fits nobody",
    ExitCode.REFUSED: "the person's role, the entry's state or a policy forbids it",
    ExitCode.EXPIRED_OR_SUPERSEDED: "too late, or what was shown is not what stands there now",
    ExitCode.STILL_PENDING: "the time to wait is over and it is not finished",
}
"""What each code says to whoever reads the manual."""


class CtlError(Exception):
    """Something failed: what, and what to do next."""

    def __init__(self, what: str, *, code: ExitCode = ExitCode.FAILED, advice: str = "") -> None:
        """Say `what` failed and why in one sentence, and `advice` in another."""
        super().__init__(what)
        self.code = code
        self.advice = advice


_OF_API: Final = {
    "not_found": ExitCode.NOT_FOUND,
    "unauthenticated": ExitCode.NOT_AUTHENTICATED,
    "too_many_attempts": ExitCode.NOT_AUTHENTICATED,
    "forbidden": ExitCode.REFUSED,
    "not_fresh": ExitCode.REFUSED,
    "refused": ExitCode.REFUSED,
    "expired": ExitCode.EXPIRED_OR_SUPERSEDED,
    "superseded": ExitCode.EXPIRED_OR_SUPERSEDED,
}

_ADVICE: Final = {
    "unauthenticated": "check the token file, and that its person is in the orchestrator's settings",
    "forbidden": "ask a person with the role that it names",
    "superseded": "look at it again with `nanobotctl show`, then decide on what stands there now",
    "expired": "if the fault is still there, a new recommendation stands in `nanobotctl queue`",
}


_WHERE: Final = (
    (
        "/api/v1/queue/",
        "`nanobotctl queue --state all` lists ids, and `nanobotctl incidents` those of incidents",
    ),
    ("/api/v1/incidents/", "`nanobotctl incidents` lists ids"),
    ("/api/v1/notify/", "`nanobotctl notify status` lists receivers"),
    ("/api/v1/rules/", "`nanobotctl rules` lists rules"),
    ("/api/v1/silences/", "`nanobotctl silence list` lists ids"),
    ("/api/v1/maintenance/", "`nanobotctl maintenance list` lists ids"),
    ("/api/v1/person", "`nanobotctl person list` lists names"),
)
"""Where the names are listed of what was not found."""


def from_api(code: str, message: str, *, path: str) -> CtlError:
    """Return the error that an API's answer at `path` means."""
    advice = _ADVICE.get(code, "")
    if code == "not_found":
        advice = next((words for beginning, words in _WHERE if path.startswith(beginning)), "")
    return CtlError(message, code=_OF_API.get(code, ExitCode.FAILED), advice=advice)
