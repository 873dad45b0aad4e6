"""Listening sockets, on real eBPF, held against the real socket table."""

from __future__ import annotations

import ctypes
import multiprocessing
import socket
from collections.abc import Callable

import pytest

from probes import registry
from probes.host.clock import now
from probes.observation import ListenerClosed, ListenerInventory, ListenerOpened, Observation
from tests.kernel.conftest import Cgroups, Watch

pytestmark = [pytest.mark.root, pytest.mark.ebpf]


def _opened(found: list[Observation], port: int) -> list[ListenerOpened]:
    return [o for o in found if isinstance(o, ListenerOpened) and o.listener.port == port]


def _closed(found: list[Observation], port: int) -> list[ListenerClosed]:
    return [o for o in found if isinstance(o, ListenerClosed) and o.listener.port == port]


@pytest.mark.parametrize(
    ("family", "address", "shown"),
    [
        (socket.AF_INET, "0.0.0.0", "0.0.0.0"),
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::", "::"),
        (socket.AF_INET6, "::ffff:127.0.0.1", "127.0.0.1"),
    ],
)
def test_tells_where_a_listener_is(
    watch: Callable[[str], Watch], family: int, address: str, shown: str
) -> None:
    """A host listener is told with its address, confirmed by the socket table, and again when gone."""
    watching = watch("kernel.listener")
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind((address, 0))
        port = listener.getsockname()[1]
        listener.listen()
        opened = _opened(watching.during(0.2), port)
    closed = _closed(watching.during(0.2), port)
    assert [(o.listener.address, o.confirmed) for o in opened] == [(shown, True)]
    assert [(o.listener.address, o.confirmed) for o in closed] == [(shown, True)]
    assert opened[0].listener.origin.process_name is not None


def test_counts_a_prime_number_of_listeners(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups]
) -> None:
    """997 sockets that listen and close are 997 of each, from the cgroup that made them."""
    watching, group = watch("kernel.listener"), cgroups()
    code = (
        "import socket\n"
        "for _ in range(997):\n"
        "    with socket.socket() as s:\n        s.bind(('127.0.0.1', 0)); s.listen()\n"
    )
    group.python(code)
    found = watching.during(0.5)
    mine = [o for o in found if isinstance(o, ListenerOpened) and o.listener.origin.cgroup_id == group.id]
    gone = [o for o in found if isinstance(o, ListenerClosed) and o.listener.origin.cgroup_id == group.id]
    assert (len(mine), len(gone)) == (997, 997)
    assert {o.confirmed for o in mine} == {False}  # closed before the table was read
    assert {o.confirmed for o in gone} == {True}


def _listen_apart(ready: object, done: object, port: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(0x40000000) == 0  # CLONE_NEWNET
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", port))
        listener.listen()
        ready.set()  # type: ignore[attr-defined]
        done.wait(20)  # type: ignore[attr-defined]


def test_a_container_s_own_namespace_is_not_the_host_s(watch: Callable[[str], Watch]) -> None:
    """A wildcard listener in another network namespace is told as unconfirmed."""
    watching = watch("kernel.listener")
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    child = context.Process(target=_listen_apart, args=(ready, done, 45677))
    child.start()
    assert ready.wait(10)
    opened = _opened(watching.during(0.2), 45677)
    done.set()
    child.join(10)
    assert [(o.listener.address, o.confirmed) for o in opened] == [("0.0.0.0", False)]


def test_connections_stay_quiet(watch: Callable[[str], Watch]) -> None:
    """A connection changes its state often and listens never."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        watching = watch("kernel.listener")
        for _ in range(50):
            with socket.create_connection(listener.getsockname()) as connection:
                accepted, _ = listener.accept()
                accepted.close()
                connection.recv(1)
        found = watching.during(0.2)
        assert _opened(found, listener.getsockname()[1]) == []
        assert _closed(found, listener.getsockname()[1]) == []


def test_the_inventory_names_the_cgroup(cgroups: Callable[..., Cgroups]) -> None:
    """The socket table tells which cgroup a listener belongs to, and the host's own addresses."""
    group = cgroups()
    code = (
        "import socket, subprocess, sys\n"
        "s = socket.socket(); s.bind(('0.0.0.0', 0)); s.listen(); print(s.getsockname()[1], flush=True)\n"
        "sys.stdin.read()"
    )
    child = group.start(code)
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        port = int(child.stdout.readline())
        sensor = next(s for s in registry.SENSORS if s.name == "host.listeners").build(
            registry.surroundings(None)
        )
        sensor.open()
        (inventory,) = sensor.read(now())
    finally:
        child.stdin.close()
        child.wait(10)
        child.stdout.close()
    assert isinstance(inventory, ListenerInventory)
    mine = [li for li in inventory.listeners if li.port == port]
    assert [(li.address, li.origin.cgroup_path) for li in mine] == [("0.0.0.0", group.name)]
    assert ("127.0.0.1", "lo") in inventory.host_addresses
