"""The two clocks of an Instant, read together."""

from __future__ import annotations

import sys
import time

from probes.observation import Instant

_BOOT = getattr(time, "CLOCK_BOOTTIME", None)


def now() -> Instant:
    """Return this moment; where the system has no boot clock (macOS) the monotonic one stands in."""
    boot = (
        time.clock_gettime_ns(_BOOT) if _BOOT is not None and sys.platform == "linux" else time.monotonic_ns()
    )
    return Instant(boot_ns=boot, unix_ns=time.time_ns())


def at_boot_ns(boot_ns: int, now_: Instant) -> Instant:
    """Return the Instant of an earlier boot-clock reading, as wall time stood at `now_`."""
    return Instant(boot_ns=boot_ns, unix_ns=now_.unix_ns - (now_.boot_ns - boot_ns))
