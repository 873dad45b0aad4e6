"""Processes that run out of descriptors, on real eBPF."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from probes.observation import DescriptorsRefused, DescriptorUser, Observation
from tests.kernel.conftest import Cgroups, Watch

pytestmark = [pytest.mark.root, pytest.mark.ebpf]

_STARVE = """
import os, resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 64))
server = socket.create_server(("127.0.0.1", 0), backlog=16)
client = socket.create_connection(server.getsockname())
held = []
try:
    while True: held.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    assert error.errno == 24, error
"""
_FAIL = """
for _ in range({count}):
    try: {call}
    except OSError as error: assert error.errno == 24, error
"""
_WAIT = "\nprint(flush=True)\nsys.stdin.readline()\n"


def refusals(watching: Watch, group: Cgroups, count: int) -> list[DescriptorsRefused]:
    """Return what was told of a group, once it adds up."""

    def mine(found: Sequence[Observation]) -> list[DescriptorsRefused]:
        return [o for o in found if isinstance(o, DescriptorsRefused) and o.origin.cgroup_id == group.id]

    return mine(watching.until(lambda found: sum(o.count for o in mine(found)) >= count))


def test_counts_a_prime_number_of_refusals_by_call(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups]
) -> None:
    """Opens, accepts and sockets of one process, each counted by itself, with the limit that was reached."""
    watching, group = watch("kernel.descriptors"), cgroups()
    code = (
        _STARVE
        + _FAIL.format(count=6, call='os.open("/dev/null", os.O_RDONLY)')
        + _FAIL.format(count=11, call="server.accept()")
        + _FAIL.format(count=13, call="socket.socket()")
        + _WAIT
    )
    process = group.start(code)
    assert process.stdout
    process.stdout.readline()
    told = refusals(watching, group, 31)
    process.communicate("\n")
    counts = dict.fromkeys(DescriptorUser, 0)
    for one in told:
        counts[one.call] += one.count
    assert counts == {DescriptorUser.OPEN: 7, DescriptorUser.ACCEPT: 11, DescriptorUser.SOCKET: 13}
    assert {(o.limit, o.host_wide, o.origin.pid) for o in told} == {(32, False, process.pid)}
    assert process.returncode == 0


def test_other_errors_stay_quiet(watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups]) -> None:
    """A file that is not there, a socket that has nobody to accept: no want of descriptors."""
    watching, group = watch("kernel.descriptors"), cgroups()
    done = group.python(
        "import os, socket\n"
        "server = socket.create_server(('127.0.0.1', 0)); server.setblocking(False)\n"
        "for call in (lambda: os.open('/nowhere', 0), server.accept, lambda: socket.socket(99)):\n"
        "    try: call()\n"
        "    except OSError: pass\n"
    )
    assert done.returncode == 0, done.stderr
    told = [o for o in watching.during(0.3) if isinstance(o, DescriptorsRefused)]
    assert [o for o in told if o.origin.cgroup_id == group.id] == []


def test_what_was_before_is_not_told_again(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups]
) -> None:
    """A sensor that opens takes the table as it stands; a process that is gone has no limit to read."""
    group = cgroups()
    assert group.python(_STARVE).returncode == 0
    watching = watch("kernel.descriptors")
    assert watching.during(0.3) == []
    assert group.python(_STARVE).returncode == 0
    (told,) = refusals(watching, group, 1)
    assert (told.call, told.count, told.limit) == (DescriptorUser.OPEN, 1, None)
