"""Declared scopes on the real kernel: what is outside one is told, and refused where root said so."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from probes import registry
from probes.host.clock import now
from probes.kernel.libbpf import Libbpf, Map
from probes.kernel.scope import NAME, ScopeSensor
from probes.observation import BlindReason, Observation
from probes.observed.scope import BreachKind, ScopeBreached
from probes.registry import SENSORS
from probes.scopes import ScopeMode, ScopeRule
from tests.kernel.conftest import AS_IN_ITS_UNIT, Cgroups, LoadRun, run_loader

pytestmark = [pytest.mark.root, pytest.mark.ebpf]

_AGENT_UID = 64123
_PYTHON = os.path.realpath(sys.executable)
_CONNECT = """
import socket, sys
kind = socket.AF_INET6 if ":" in {host!r} else socket.AF_INET
for _ in range({times}):
    with socket.socket(kind) as s:
        try:
            s.connect(({host!r}, {port}))
            print("connected")
        except OSError as error:
            print(error.errno)
"""
_BIND = """
import socket
with socket.socket(socket.AF_INET, socket.{kind}) as s:
    try:
        s.bind(("127.0.0.1", {port}))
        print("bound")
    except OSError as error:
        print(error.errno)
"""


@dataclass
class Host:
    """Two scopes of the same rules, one audited and one denied, and what they speak to."""

    run: LoadRun
    rules: dict[str, ScopeRule]
    allowed: int
    forbidden: int
    agents: int
    free: tuple[int, int]
    root: Path
    seconds: float = 0.0
    sensors: list[ScopeSensor] = field(default_factory=list)

    def sensor(self) -> ScopeSensor:
        """Open a sensor on the handover, with a clock that moves only when it is told to."""
        host = registry.surroundings(self.run.handover)
        sensor = ScopeSensor(
            handover=host.handover,
            identifier=host.identifier,
            rules=tuple(self.rules.values()),
            root=self.root,
            monotonic=lambda: self.seconds,
        )
        sensor.open()
        self.sensors.append(sensor)
        sensor.read(now())
        return sensor

    def enter(self, name: str, below: str = "") -> Cgroups:
        """Return the cgroup of a scope, made anew if it is not there."""
        path = f"{self.rules[name].cgroup}{below}"
        folder = Path(f"{self.root}{path}")
        folder.mkdir(exist_ok=True)
        inode = folder.stat().st_ino
        return Cgroups(path, inode, {"": folder})  # type: ignore[arg-type]

    def look_again(self, sensor: ScopeSensor) -> None:
        """Let the second pass after which a sensor looks for cgroups again."""
        self.seconds += 2.0
        sensor.read(now())


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Load the program alone, with the capabilities of the loader's unit and not one more."""
    root = registry.find_mounts().unified
    if root is None:
        pytest.skip("needs a cgroup v2 hierarchy")
    sockets = [socket.create_server(("127.0.0.1", 0), backlog=4096) for _ in range(5)]
    allowed, forbidden, agents, *free = (s.getsockname()[1] for s in sockets)
    for unused in sockets[3:]:
        unused.close()
    rules = {
        mode.value: ScopeRule(
            name=name,
            cgroup=f"/nanobot-scope-{os.getpid()}-{mode.value}",
            mode=mode,
            executables=(_PYTHON, "/usr/bin/true"),
            destinations=(f"127.0.0.0/8:{allowed}", f"[::1]:{allowed}", "10.11.0.0/16", f"[::/0]:{free[1]}"),
            listeners=(free[0],),
        )
        for name, mode in (("audited", ScopeMode.AUDIT), ("denied", ScopeMode.DENY))
    }
    other = [f'"{spec.name}"' for spec in SENSORS if spec.program is not None and spec.name != NAME]
    config = f"disabled = [{', '.join(other)}]\n[metrics]\nport = {agents}\n"
    for rule in rules.values():
        config += f'[[scope]]\nname = "{rule.name}"\ncgroup = "{rule.cgroup}"\nmode = "{rule.mode.value}"\n'
        config += f"executables = {list(rule.executables or ())}\nlisteners = {list(rule.listeners or ())}\n"
        config += f"destinations = {list(rule.destinations or ())}\n"
    run = run_loader(
        tmp_path_factory.mktemp("scope"),
        config=config,
        prefix=AS_IN_ITS_UNIT,
        agent_user=str(_AGENT_UID),
    )
    found = Host(run, rules, allowed, forbidden, agents, (free[0], free[1]), root)
    for name in rules:
        found.enter(name)
    yield found
    for sensor in found.sensors:
        sensor.close()
    run.handover.close()
    for left in sockets[:3]:
        left.close()
    for name in rules:
        _remove(found.enter(name))


@pytest.fixture
def sensor(host: Host) -> ScopeSensor:
    """A sensor that knows both cgroups and has told what was before."""
    opened = host.sensor()
    host.look_again(opened)
    return opened


def _breaches(sensor: ScopeSensor) -> list[ScopeBreached]:
    found: list[Observation] = list(sensor.read(now()))
    assert all(isinstance(seen, ScopeBreached) for seen in found), found
    return [seen for seen in found if isinstance(seen, ScopeBreached)]


def _connect(group: Cgroups, port: int, *, host: str = "127.0.0.1", times: int = 1) -> list[str]:
    done = group.run([_PYTHON, "-I", "-S", "-c", _CONNECT.format(host=host, port=port, times=times)])
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def _bind(group: Cgroups, port: int, kind: str = "SOCK_STREAM") -> str:
    done = group.run([_PYTHON, "-I", "-S", "-c", _BIND.format(port=port, kind=kind)])
    return done.stdout.strip()


def _remove(group: Cgroups) -> None:
    for folder in (group.folders[""] / "below", group.folders[""]):
        end = time.monotonic() + 5
        while folder.exists() and time.monotonic() < end:
            with contextlib.suppress(OSError):  # what died in there a moment ago is still being counted
                folder.rmdir()


def test_the_program_attaches_with_the_units_capabilities(host: Host) -> None:
    """Tracepoints of exec and fork, and six links at the root of the cgroups."""
    entry = host.run.handover.entry(NAME)
    assert entry is not None
    assert entry.blind is None, entry.blind
    assert len(entry.attachments) == 8
    assert host.run.status == 0, host.run.said


def test_nothing_is_attached_where_no_scope_is_declared(loaded: LoadRun) -> None:
    """A host without scopes pays nothing for them."""
    entry = loaded.handover.entry(NAME)
    assert entry is not None
    assert entry.blind is not None
    assert entry.blind.reason is BlindReason.DISABLED
    assert entry.maps == ()
    assert entry.attachments == ()


def test_audit_lets_a_connection_pass_and_tells_it(host: Host, sensor: ScopeSensor) -> None:
    """The process, its cgroup, the scope, and where it went."""
    group = host.enter("audit")
    assert _connect(group, host.forbidden) == ["connected"]
    (breach,) = _breaches(sensor)
    assert (breach.scope, breach.kind, breach.denied) == ("audited", BreachKind.DESTINATION, False)
    assert (breach.address, breach.port, breach.count) == ("127.0.0.1", host.forbidden, 1)
    assert breach.origin.cgroup_id == group.id
    assert breach.origin.cgroup_path == group.name
    assert breach.executable == ""


def test_deny_refuses_a_connection_and_tells_it(host: Host, sensor: ScopeSensor) -> None:
    """EPERM, and a breach that says so."""
    assert _connect(host.enter("deny"), host.forbidden) == [str(errno.EPERM)]
    (breach,) = _breaches(sensor)
    assert (breach.scope, breach.denied, breach.port) == ("denied", True, host.forbidden)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("name", ["audit", "deny"])
def test_what_is_allowed_is_quiet(host: Host, sensor: ScopeSensor, name: str, address: str) -> None:
    """A network and its port, spoken to by a socket of either family."""
    answer = str(errno.ECONNREFUSED) if address == "127.9.9.9" else "connected"  # nobody listens there
    assert _connect(host.enter(name), host.allowed, host=address) == [answer]
    assert _breaches(sensor) == []


def test_the_unspecified_address_is_this_host(host: Host, sensor: ScopeSensor) -> None:
    """0.0.0.0 is no way around a rule, and no breach where loopback is allowed."""
    assert _connect(host.enter("deny"), host.allowed, host="0.0.0.0") == ["connected"]
    assert _connect(host.enter("deny"), host.forbidden, host="0.0.0.0") == [str(errno.EPERM)]
    assert [breach.address for breach in _breaches(sensor)] == ["127.0.0.1"]


def test_a_socket_of_ipv6_is_held_too(host: Host, sensor: ScopeSensor) -> None:
    """By its own addresses, and by those of IPv4 written in its way."""
    group = host.enter("deny")
    assert _connect(group, host.forbidden, host="::1") == [str(errno.EPERM)]
    assert _connect(group, host.forbidden, host="::ffff:127.0.0.1") == [str(errno.EPERM)]
    assert [breach.address for breach in _breaches(sensor)] == ["::1", "127.0.0.1"]


def test_all_of_ipv6_is_nothing_of_ipv4(host: Host, sensor: ScopeSensor) -> None:
    """A scope that may speak IPv6 with everybody has no way to an address of IPv4, however it is written."""
    group, port = host.enter("deny"), host.free[1]
    assert _connect(group, port, host="::1") == [str(errno.ECONNREFUSED)]
    assert _connect(group, port, host="127.0.0.1") == [str(errno.EPERM)]
    assert _connect(group, port, host="::ffff:127.0.0.1") == [str(errno.EPERM)]
    assert [breach.address for breach in _breaches(sensor)] == ["127.0.0.1", "127.0.0.1"]


def test_others_are_not_held(host: Host, sensor: ScopeSensor, cgroups: Callable[..., Cgroups]) -> None:
    """A cgroup beside the scopes executes, connects and listens as it likes: a package manager's, say."""
    group = cgroups()
    assert _connect(group, host.forbidden) == ["connected"]
    assert group.run(["/usr/bin/env", "true"]).returncode == 0
    assert _bind(group, host.free[1]) == "bound"
    assert _breaches(sensor) == []


def test_a_cgroup_below_a_scope_is_held(host: Host, sensor: ScopeSensor) -> None:
    """A service that makes cgroups of its own does not leave its scope."""
    below = host.enter("deny", "/below")
    assert _connect(below, host.forbidden) == [str(errno.EPERM)]
    (breach,) = _breaches(sensor)
    assert breach.scope == "denied"
    assert breach.origin.cgroup_id == below.id


def test_datagrams_are_held(host: Host, sensor: ScopeSensor) -> None:
    """UDP is refused when it connects and when it sends without."""
    code = (
        "import socket\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        f"for step in (lambda: s.sendto(b'x', ('127.0.0.1', {host.forbidden})),"
        f" lambda: s.connect(('127.0.0.1', {host.forbidden}))):\n"
        "    try:\n        step(); print('sent')\n    except OSError as error:\n        print(error.errno)\n"
    )
    done = host.enter("deny").run([_PYTHON, "-I", "-S", "-c", code])
    assert done.stdout.split() == [str(errno.EPERM)] * 2, done.stderr
    assert sum(breach.count for breach in _breaches(sensor)) == 2


def test_a_port_to_listen_on_is_held(host: Host, sensor: ScopeSensor) -> None:
    """Told where it is audited, refused where it is denied, quiet where it is allowed."""
    assert _bind(host.enter("deny"), host.free[0]) == "bound"
    assert _breaches(sensor) == []
    assert _bind(host.enter("audit"), host.free[1]) == "bound"
    assert _bind(host.enter("deny"), host.free[1]) == str(errno.EPERM)
    told = [(b.scope, b.kind, b.port, b.denied) for b in _breaches(sensor)]
    assert told == [
        ("audited", BreachKind.LISTENER, host.free[1], False),
        ("denied", BreachKind.LISTENER, host.free[1], True),
    ]


def test_a_port_that_the_kernel_or_a_datagram_takes_is_quiet(host: Host, sensor: ScopeSensor) -> None:
    """Clients bind too: to port 0, and UDP clients to one that they choose."""
    assert _bind(host.enter("deny"), 0) == "bound"
    assert _bind(host.enter("deny"), host.free[1], "SOCK_DGRAM") == "bound"
    assert _breaches(sensor) == []


def test_a_program_that_is_not_allowed_is_told_by_its_name_alone(host: Host, sensor: ScopeSensor) -> None:
    """The last part of its path, as it was written; execution is never refused."""
    group = host.enter("deny")
    assert group.run(["/usr/bin/true"]).returncode == 0
    assert _breaches(sensor) == []
    assert group.run(["/usr/bin/env", "-i", "secret-canary-argument=1", "/usr/bin/true"]).returncode == 0
    (breach,) = _breaches(sensor)
    assert (breach.kind, breach.executable, breach.denied) == (BreachKind.EXECUTABLE, "env", False)
    assert "canary" not in repr(breach)


def test_counts_a_prime_number_of_breaches(host: Host, sensor: ScopeSensor) -> None:
    """The ring hears of a few a second; the number is exact all the same."""
    assert _connect(host.enter("deny"), host.forbidden, times=997) == [str(errno.EPERM)] * 997
    told = [*_breaches(sensor), *_breaches(sensor)]
    assert sum(breach.count for breach in told) == 997
    assert len(told) <= 60
    assert not sensor.waiting()
    assert _breaches(sensor) == []


def test_a_scope_outlives_the_restart_of_its_unit(host: Host, sensor: ScopeSensor) -> None:
    """A unit that restarts is another cgroup of the same path; it is found within the second."""
    before = host.enter("deny")
    _remove(before)
    after = host.enter("deny")
    assert after.id != before.id
    assert _connect(after, host.forbidden) == ["connected"], "fails open until it is looked for"
    host.look_again(sensor)
    assert _bind(after, host.free[1]) == str(errno.EPERM)
    (breach,) = _breaches(sensor)
    assert breach.origin.cgroup_id == after.id


def test_a_new_reader_goes_on_with_the_scopes(host: Host, sensor: ScopeSensor) -> None:
    """While no agent runs, what was declared is still refused; its successor tells what waits in the ring."""
    sensor.close()
    assert _bind(host.enter("deny"), host.free[1]) == str(errno.EPERM)
    successor = ScopeSensor(
        handover=host.run.handover,
        identifier=registry.surroundings(None).identifier,
        rules=tuple(host.rules.values()),
        root=host.root,
    )
    successor.open()
    told = [seen for seen in successor.read(now()) if isinstance(seen, ScopeBreached)]
    assert [breach.count for breach in told] == [1]
    successor.close()


def test_the_agent_is_never_refused(host: Host, sensor: ScopeSensor) -> None:
    """Neither its account, in whatever cgroup, nor a connection to its own port on loopback."""
    group = host.enter("deny")
    assert _connect(group, host.agents) == ["connected"]
    as_agent = f"import os; os.setuid({_AGENT_UID})\n" + _CONNECT.format(
        host="127.0.0.1", port=host.forbidden, times=1
    )
    done_inside = group.run([_PYTHON, "-I", "-S", "-c", as_agent])
    assert done_inside.stdout.split() == ["connected"], done_inside.stderr
    told = [*_breaches(sensor), *_breaches(sensor)]
    assert sum(breach.count for breach in told) == 2
    assert not any(breach.denied for breach in told)


def test_a_scope_around_the_agent_ends_where_the_agent_is(host: Host, tmp_path: Path) -> None:
    """Its own cgroup is nobody's scope, whatever lies above it; that is taken back with the agent."""
    below = host.enter("deny", "/below")
    own = tmp_path / "cgroup"
    own.write_text(f"1:name=systemd:/x\n0::{below.name}\n")
    agent = ScopeSensor(
        handover=host.run.handover,
        identifier=registry.surroundings(None).identifier,
        rules=tuple(host.rules.values()),
        root=host.root,
        own_cgroup=own,
    )
    agent.open()
    assert _bind(below, host.free[1]) == "bound"
    assert _bind(host.enter("deny"), host.free[1]) == str(errno.EPERM)
    agent.close()
    host.look_again(host.sensor())
    assert _bind(below, host.free[1]) == str(errno.EPERM)


def test_nobody_can_change_a_rule(host: Host) -> None:
    """The table of rules is frozen: root itself cannot write it through the descriptor that the agent has."""
    handed = host.run.handover.maps(NAME)["scope_rules"]
    table = Map(
        libbpf=Libbpf(), fd=handed.fd, key_size=handed.entry.key_size, value_size=handed.entry.value_size
    )
    before = table.lookup(struct.pack("=i", 1))
    assert before is not None
    for slot in (1, 9):
        with pytest.raises(OSError, match="not permitted") as caught:
            table.update(struct.pack("=i", slot), b"\0" * handed.entry.value_size)
        assert caught.value.errno == errno.EPERM
    assert table.lookup(struct.pack("=i", 1)) == before


def test_no_table_of_what_is_allowed_is_handed_over(host: Host) -> None:
    """The agent gets names, cgroups and counts of scopes; the allow-lists stay in the kernel."""
    assert set(host.run.handover.maps(NAME)) == {
        "scope_members",
        "scope_rules",
        "scope_totals",
        "scope_events",
        "scope_ledger",
    }


_AS_MANAGER = """
import os, sys
sys.path.insert(0, sys.argv[1])
folder, cgroup, allowed = sys.argv[2:]
from probes.kernel import scope_rules
from probes.kernel.loader import load
from probes.kernel.scope import PROGRAM
from probes.kernel.scope_config import ScopeConfig
from probes.scopes import ScopeRule
import ctypes, mmap, struct
scope_rules.MANAGER_PID = os.getpid()
rule = ScopeRule(name="x", cgroup=cgroup, executables=(allowed,))
loaded = load((PROGRAM,), scopes=ScopeConfig(rules=(rule,)))
(entry,) = loaded.manifest.sensors
assert entry.blind is None, entry.blind
fds = {m.name: loaded.descriptors[m.fd] for m in entry.maps}
libbpf = ctypes.CDLL("libbpf.so.1")
member = struct.pack("=Q", os.stat(folder).st_ino)
assert libbpf.bpf_map_update_elem(fds["scope_members"], member, struct.pack("=I", 1), ctypes.c_uint64(0)) == 0
totals = mmap.mmap(fds["scope_totals"], mmap.PAGESIZE)
env = os.open("/usr/bin/env", os.O_RDONLY)
os.set_inheritable(env, True)

def told(again):
    before = struct.unpack_from("@Q", totals, 4 * 8)[0]
    child = os.fork()
    if child == 0:
        if again:
            child = os.fork()
            if child:
                os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        with open(folder + "/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))
        os.execv(f"/proc/self/fd/{env}", ["env", allowed])
    assert os.waitpid(child, 0)[1] == 0
    return struct.unpack_from("@Q", totals, 4 * 8)[0] - before

print(told(False), told(True))
"""


def test_the_service_managers_own_helper_is_quiet(cgroups: Callable[..., Cgroups]) -> None:
    """Executed by a descriptor, by who was forked by the manager, once; by a grandchild it is a breach."""
    group = cgroups()
    allowed = os.path.realpath("/usr/bin/true")
    code_root = Path(registry.__file__).parents[1]
    done = Cgroups("", group.id, {}).run(
        [
            *AS_IN_ITS_UNIT,
            "/usr/bin/python3",
            "-I",
            "-c",
            _AS_MANAGER,
            str(code_root),
            str(group.folders[""]),
            group.name,
            allowed,
        ]
    )
    assert done.stdout.split() == ["0", "1"], done.stdout + done.stderr
