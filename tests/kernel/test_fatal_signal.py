"""Deaths by a fault signal, on real eBPF."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from probes.observation import FatalSignal
from tests.kernel.conftest import Cgroups, Watch

pytestmark = [pytest.mark.root, pytest.mark.ebpf]

_DIE = (
    "import os, signal, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.kill(os.getpid(), {})"
)
_CRASH = "import ctypes, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); ctypes.string_at(8)"


def test_counts_a_prime_number_of_crashes(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups]
) -> None:
    """Seven processes that touch bad memory are seven observations, with cgroup and code."""
    watching, group = watch("kernel.fatal_signal"), cgroups()
    for _ in range(7):
        assert group.python(_CRASH).returncode == -signal.SIGSEGV
    mine = [o for o in watching.during(0.3) if isinstance(o, FatalSignal) and o.origin.cgroup_id == group.id]
    assert [(o.signal, o.code) for o in mine] == [(signal.SIGSEGV, 1)] * 7  # SEGV_MAPERR
    assert {o.origin.cgroup_path for o in mine} == {group.name}
    assert len({o.origin.pid for o in mine}) == 7
    assert all((o.origin.process_name or "").startswith("python") for o in mine)


@pytest.mark.parametrize(
    "number", [signal.SIGILL, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV]
)
def test_tells_a_fault_signal_that_a_process_sent(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups], number: signal.Signals
) -> None:
    """Each fault signal is told once, and a code of 0 says that a process sent it."""
    watching, group = watch("kernel.fatal_signal"), cgroups()
    assert group.python(_DIE.format(int(number))).returncode == -number
    mine = [o for o in watching.during(0.3) if isinstance(o, FatalSignal) and o.origin.cgroup_id == group.id]
    assert [(o.signal, o.code) for o in mine] == [(number, 0)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_stays_quiet_when_an_operator_stops_it(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups], number: signal.Signals
) -> None:
    """TERM, INT and KILL are how people and supervisors stop things."""
    watching, group = watch("kernel.fatal_signal"), cgroups()
    assert (
        group.python(
            "import signal; signal.signal(2, signal.SIG_DFL); " + _DIE.format(int(number))
        ).returncode
        == -number
    )
    assert [
        o for o in watching.during(0.3) if isinstance(o, FatalSignal) and o.origin.cgroup_id == group.id
    ] == []


def test_stays_quiet_when_the_process_handles_it(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups]
) -> None:
    """A handled fault signal ends nobody."""
    watching, group = watch("kernel.fatal_signal"), cgroups()
    code = "import os, signal; signal.signal(11, lambda *_: None); os.kill(os.getpid(), 11)"
    assert group.python(code).returncode == 0
    assert [
        o for o in watching.during(0.3) if isinstance(o, FatalSignal) and o.origin.cgroup_id == group.id
    ] == []


def test_tells_two_threads_that_crash_together_once(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups]
) -> None:
    """A process dies once, however many of its threads fault."""
    watching, group = watch("kernel.fatal_signal"), cgroups()
    code = (
        "import ctypes, threading, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0));"
        "b = threading.Barrier(8);"
        "[threading.Thread(target=lambda: (b.wait(), ctypes.string_at(8))).start() for _ in range(8)]"
    )
    assert group.python(code).returncode == -signal.SIGSEGV
    mine = [o for o in watching.during(0.3) if isinstance(o, FatalSignal) and o.origin.cgroup_id == group.id]
    assert len(mine) == 1
