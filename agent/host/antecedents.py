"""What may have taken a device away: a reload of the service manager, a sleep of the host.

Each is told by a sensor of its own, so it counts as a second layer beside the refusal that the kernel saw.
It counts only if it lies between the last success and the failure, and not too long before the failure.
"""

from __future__ import annotations

from typing import Final

from escalation.model import Reason, ReasonCode
from probes.observation import Instant, ManagerReloaded, Suspended

LATE_S: Final = 5.0
"""How long after a refusal a sensor may still tell of what came before it: longer than its period."""


class Antecedents:
    """The last reload and the last sleep."""

    def __init__(self, *, reload_window_s: float, sleep_window_s: float) -> None:
        self._reload_window_s = reload_window_s
        self._sleep_window_s = sleep_window_s
        self._reloaded_at: Instant | None = None
        self._woke_at: Instant | None = None

    def __repr__(self) -> str:
        return f"Antecedents(reloaded_at={self._reloaded_at}, woke_at={self._woke_at})"

    def take(self, event: ManagerReloaded | Suspended) -> None:
        """Take note. A sleep is told after the waking, so it counts from a little before it was told."""
        if isinstance(event, ManagerReloaded):
            self._reloaded_at = event.at
        else:
            late_ns = int(LATE_S * 1e9)
            self._woke_at = Instant(event.at.boot_ns - late_ns, event.at.unix_ns - late_ns)

    def reload_before(self, failure: Instant, *, last_success: Instant | None) -> Reason | None:
        """Return the reload since the last success as a reason, if there was one."""
        ago_s = _between(self._reloaded_at, last_success, failure)
        if ago_s is None or ago_s > self._reload_window_s:
            return None
        return Reason(ReasonCode.MANAGER_RELOADED_BEFORE, count=1, window_s=round(ago_s, 3))

    def sleep_before(self, failure: Instant, *, last_success: Instant | None) -> Reason | None:
        """Return the sleep since the last success as a reason, if there was one."""
        ago_s = _between(self._woke_at, last_success, failure)
        if ago_s is None or ago_s > self._sleep_window_s:
            return None
        return Reason(ReasonCode.HOST_SLEPT_BEFORE, count=1, window_s=round(ago_s, 3))


def _between(cause: Instant | None, last_success: Instant | None, failure: Instant) -> float | None:
    """Return for how long `cause` lay before `failure`; None unless it came after the last success."""
    if cause is None or cause.boot_ns > failure.boot_ns:
        return None
    if last_success is not None and last_success.boot_ns > cause.boot_ns:
        return None
    return failure.since_s(cause)
