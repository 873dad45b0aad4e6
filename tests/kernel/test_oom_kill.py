"""Out-of-memory kills, on real eBPF and a real memory cgroup."""

from __future__ import annotations

import select
import signal
from collections.abc import Callable

import pytest

from probes.host.clock import now
from probes.observation import Observation, OomKill, OomScope
from tests.kernel.conftest import Cgroups, Watch

pytestmark = [pytest.mark.root, pytest.mark.ebpf]

_LIMIT = 24 << 20
_EAT = "b = []\nwhile True:\n    b.append(bytearray(b'x') * (1 << 20))"


def _limit(group: Cgroups) -> None:
    (group.folders["memory"] / "memory.limit_in_bytes").write_text(str(_LIMIT))


def _of(found: list[Observation], group: Cgroups) -> list[OomKill]:
    return [o for o in found if isinstance(o, OomKill) and o.origin.cgroup_id == group.id]


def test_counts_a_prime_number_of_kills(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups]
) -> None:
    """Five processes over their cgroup's limit are five observations with the cgroup's own figures."""
    watching, group = watch("kernel.oom_kill"), cgroups("memory")
    _limit(group)
    for _ in range(5):
        assert group.python(_EAT).returncode == -signal.SIGKILL
    mine = _of(watching.until(lambda found: len(_of(found, group)) >= 5, 3), group)
    assert len(mine) == 5
    assert {(o.scope, o.limit_bytes) for o in mine} == {(OomScope.CGROUP, _LIMIT)}
    assert mine[-1].kills_in_cgroup == 5
    assert {o.origin.cgroup_path for o in mine} == {group.name}
    assert all(o.anon_rss_bytes is None or 0 < o.anon_rss_bytes <= _LIMIT for o in mine)
    assert watching.during(0.2) == []


def test_wakes_its_reader(watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups]) -> None:
    """A kill is told at once."""
    watching, group = watch("kernel.oom_kill"), cgroups("memory")
    _limit(group)
    descriptor = watching.sensor.wakeup_fd()
    assert descriptor is not None
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    group.python(_EAT)
    assert poller.poll(2000) != []
    assert len(_of(list(watching.sensor.read(now())), group)) == 1


def test_tells_a_threaded_victim_once(watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups]) -> None:
    """All threads get the signal; the process is killed once."""
    watching, group = watch("kernel.oom_kill"), cgroups("memory")
    _limit(group)
    code = (
        "import threading, time\n"
        "for _ in range(6): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "def eat():\n    b = []\n    while True: b.append(bytearray(b'x') * (1 << 20))\n"
        "t = threading.Thread(target=eat)\nt.start()\nt.join()"
    )
    assert group.python(code).returncode == -signal.SIGKILL
    assert len(_of(watching.during(0.4), group)) == 1


def test_finds_the_memory_cgroup_behind_another_path(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups]
) -> None:
    """Where the v2 path does not lead to the memory cgroup, the counter that rose does."""
    watching, group = watch("kernel.oom_kill"), cgroups("memory")
    elsewhere = cgroups()
    _limit(group)
    group.folders[""] = elsewhere.folders[""]
    assert group.python(_EAT).returncode == -signal.SIGKILL
    mine = _of(watching.during(0.4), elsewhere)
    assert [(o.scope, o.limit_bytes, o.kills_in_cgroup) for o in mine] == [(OomScope.CGROUP, _LIMIT, 1)]


def test_stays_quiet_when_a_person_kills(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups]
) -> None:
    """kill -9 marks no victim, though the cgroup has a limit."""
    watching, group = watch("kernel.oom_kill"), cgroups("memory")
    _limit(group)
    assert group.python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)").returncode == -9
    assert _of(watching.during(0.3), group) == []
