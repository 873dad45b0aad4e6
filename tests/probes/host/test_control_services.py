"""Control services by port and process, published ports by their proxies: real processes and hostile ones."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from probes.host.cgroups import CgroupPaths
from probes.host.control_services import (
    connected_to,
    names_of,
    parse_connection,
    recognised,
    service_at,
)
from probes.host.identity import Identifier
from probes.host.listeners import NAME, HostListeners
from probes.host.publications import PROXIES_MAX, Publications, parse_proxy, publications
from probes.host.sockets import ListeningSocket
from probes.observation import (
    ControlListeners,
    ControlService,
    Instant,
    ListenerInventory,
    PublishedPort,
    PublishedPorts,
)


def process(proc: Path, pid: int, name: str, *arguments: str) -> None:
    """Put a process into a made-up /proc."""
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "comm").write_text(f"{name}\n")
    (folder / "cmdline").write_text("\0".join(arguments) + "\0")


@pytest.mark.parametrize(
    ("service", "name", "arguments"),
    [
        (ControlService.RAY_DASHBOARD, "gcs_server", ("/opt/ray/core/src/ray/gcs/gcs_server", "--port=6379")),
        (ControlService.RAY_GCS, "raylet", ("/opt/ray/core/src/ray/raylet/raylet",)),
        (ControlService.DOCKER_API, "dockerd", ("/usr/bin/dockerd", "-H", "tcp://0.0.0.0:2375")),
        (ControlService.POSTGRESQL, "postgres", ("postgres", "-D", "/var/lib/postgresql/data")),
        (ControlService.REDIS, "redis-server", ("redis-server *:6379",)),
        (ControlService.OLLAMA, "ollama", ("/bin/ollama", "serve")),
        (ControlService.JUPYTER, "jupyter-lab", ("/opt/venv/bin/python3", "/opt/venv/bin/jupyter-lab")),
        (
            ControlService.OPENCLAW,
            "node",
            ("node", "/usr/lib/openclaw/dist/index.js", "gateway"),
        ),
        (ControlService.ETCD, "etcd", ("etcd", "--listen-client-urls", "http://0.0.0.0:2379")),
        (ControlService.KUBELET, "kubelet", ("/usr/bin/kubelet",)),
    ],
)
def test_a_service_is_recognised_by_its_processes(
    tmp_path: Path, service: ControlService, name: str, arguments: tuple[str, ...]
) -> None:
    """By how it calls itself, or by what an interpreter runs; among others in its cgroup."""
    process(tmp_path, 1, "sleep", "sleep", "60")
    process(tmp_path, 2, name, *arguments)
    assert recognised(service, names_of(tmp_path, [1, 2])) is True


@pytest.mark.parametrize(
    "arguments",
    [
        ("less", "/etc/postgres.conf"),
        ("/usr/sbin/nginx", "-g", "postgres"),
        ("python3", "--option", "-c", "x"),
        ("bash", "-c", "ls /postgres"),
        ("",),
    ],
)
def test_others_that_only_speak_of_it_are_not(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """A name in some argument is nobody's trade."""
    process(tmp_path, 1, "other", *arguments)
    assert recognised(ControlService.POSTGRESQL, names_of(tmp_path, [1])) is False


def test_nobody_to_look_at_is_unknown(tmp_path: Path) -> None:
    """Processes that are gone, or none."""
    assert recognised(ControlService.REDIS, names_of(tmp_path, [7])) is None
    assert recognised(ControlService.REDIS, ()) is None


def test_one_port_of_two_services_is_told_by_the_process() -> None:
    """Ray's global store and Redis both listen on 6379."""
    assert service_at(6379, ("raylet",)) is ControlService.RAY_GCS
    assert service_at(6379, ("redis-server",)) is ControlService.REDIS
    assert service_at(6379, ()) is ControlService.REDIS
    assert service_at(8080, ("raylet",)) is None


def test_real_connections_to_a_port_are_seen() -> None:
    """By the kernel's own table, once for each peer; those to other ports are not."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as other:
        port = listener.getsockname()[1]
        assert connected_to(port) == ()
        with socket.create_connection(listener.getsockname()), socket.create_connection(other.getsockname()):
            assert connected_to(port) == (("127.0.0.1", "127.0.0.1"),)


@given(kind=st.sampled_from([20, 2, 3]), body=st.binary(max_size=120))
def test_any_answer_of_the_kernel_is_read_or_left(kind: int, body: bytes) -> None:
    """Whatever a table holds."""
    assert len(list(parse_connection(kind, body, 6379))) <= 1


def test_a_connection_of_another_port_or_state_is_left() -> None:
    """The kernel is asked for one port; what it says beside is not taken."""

    def answer(state: int, port: int) -> bytes:
        ends = struct.pack(">HH", port, 50000) + socket.inet_aton("192.0.2.1").ljust(16, b"\0")
        ends += socket.inet_aton("192.0.2.9").ljust(16, b"\0")
        return struct.pack("=BBBB", socket.AF_INET, state, 0, 0) + ends + b"\0" * 32

    assert list(parse_connection(20, answer(1, 6379), 6379)) == [("192.0.2.1", "192.0.2.9")]
    assert list(parse_connection(20, answer(1, 22), 6379)) == []
    assert list(parse_connection(20, answer(10, 6379), 6379)) == []


PROXY = [
    *("/usr/bin/docker-proxy", "-proto", "tcp", "-host-ip", "0.0.0.0", "-host-port", "15432"),
    *("-container-ip", "172.17.0.2", "-container-port", "5432", "-use-listen-fd"),
]


def test_a_proxy_names_both_ends(tmp_path: Path) -> None:
    """With one dash or two, in any order; each port once."""
    process(tmp_path, 1, "dockerd", "/usr/bin/dockerd", "-H", "fd://")
    process(tmp_path, 2, "docker-proxy", *PROXY)
    process(tmp_path, 3, "docker-proxy", *[word.replace("-host", "--host") for word in PROXY])
    process(tmp_path, 4, "docker-proxy", *[word.replace("tcp", "udp") for word in PROXY])
    one = PublishedPort(address="0.0.0.0", port=15432, container_address="172.17.0.2", container_port=5432)
    told = publications([1, 2, 3, 4, 99], proc=tmp_path, settings=tmp_path / "none")
    assert told == Publications(known=True, ports=(one,))


@pytest.mark.parametrize("flag", ["--userland-proxy=false", "-userland-proxy=false"])
def test_an_engine_without_proxies_publishes_out_of_sight(tmp_path: Path, flag: str) -> None:
    """By its command line, or by its file; a file that cannot be read says nothing."""
    process(tmp_path, 1, "dockerd", "/usr/bin/dockerd", flag)
    process(tmp_path, 2, "dockerd", "/usr/bin/dockerd")
    settings = tmp_path / "daemon.json"
    assert publications([1], proc=tmp_path, settings=settings) == Publications(known=False, ports=())
    for text, known in (('{"userland-proxy": false}', False), ("{}", True), ("{", True), ("[" * 9000, True)):
        settings.write_text(text)
        assert publications([2], proc=tmp_path, settings=settings) == Publications(known=known, ports=())


def test_processes_that_are_no_engine_publish_nothing(tmp_path: Path) -> None:
    """Nothing is told of a host without one."""
    process(tmp_path, 1, "sleep", "sleep", "1")
    assert publications([1, 2], proc=tmp_path) is None


def test_a_storm_of_proxies_is_bounded(tmp_path: Path) -> None:
    """A range of ports is one proxy each."""
    for pid in range(1, PROXIES_MAX + 20):
        words = [str(20000 + pid) if word == "15432" else word for word in PROXY]
        process(tmp_path, pid, "docker-proxy", *words)
    told = publications(range(1, PROXIES_MAX + 20), proc=tmp_path)
    assert told is not None
    assert (len(told.ports), told.known) == (PROXIES_MAX, False)
    fewer = publications(range(1, 500), proc=tmp_path)
    assert fewer is not None
    assert (len(fewer.ports), fewer.known) == (499, True)


def test_an_engine_that_is_gone_publishes_nothing_any_more(tmp_path: Path) -> None:
    """Told once, so that nobody goes on believing its last word; a host without one hears nothing of it."""
    members = tmp_path / "cgroup/system.slice/docker.service/cgroup.procs"
    members.parent.mkdir(parents=True)
    members.write_text("1\n")
    process(tmp_path, 1, "docker-proxy", *PROXY)
    cgroups = CgroupPaths(root=None, monotonic=lambda: 0.0)
    sensor = HostListeners(
        identifier=Identifier(cgroups=cgroups, proc=tmp_path),
        root=tmp_path / "cgroup",
        proc=tmp_path,
        sockets=lambda: (ListeningSocket("0.0.0.0", 15432),),
        addresses=lambda: (),
        connected=lambda _: (("192.0.2.1", "192.0.2.9"),),
    )
    now = Instant(1, 1)
    ports, _, control = sensor.read(now)
    assert isinstance(ports, PublishedPorts)
    assert [one.port for one in ports.ports] == [15432]
    assert isinstance(control, ControlListeners)
    (one,) = control.listeners
    assert (one.service, one.recognised, one.published) == (ControlService.POSTGRESQL, None, True)
    assert one.peers == (("192.0.2.1", "192.0.2.9"),)
    members.write_text("")
    gone, _ = sensor.read(now)
    assert gone == PublishedPorts(sensor=NAME, at=now, known=True, ports=())
    assert [type(told) for told in sensor.read(now)] == [ListenerInventory]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("caddy",), "caddy"),
        (("nginx", "nginx", "nginx"), "nginx"),
        (("vllm", "VLLM::EngineCor"), None),
        ((), None),
        (("worker",) * 65, None),
    ],
)
def test_a_listener_has_the_name_that_all_processes_of_its_group_have(
    tmp_path: Path, names: tuple[str, ...], told: str | None
) -> None:
    """A socket names its group alone; where names differ, or are too many to look at, it is anybody's."""
    folder = tmp_path / "cgroup/system.slice/web.service"
    folder.mkdir(parents=True)
    (folder / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in range(1, len(names) + 1)))
    for pid, name in enumerate(names, start=1):
        process(tmp_path, pid, name)
    paths = CgroupPaths(root=tmp_path / "cgroup", monotonic=lambda: 0.0)
    group = paths.id_of("/system.slice/web.service")
    sensor = HostListeners(
        identifier=Identifier(cgroups=paths, proc=tmp_path),
        root=tmp_path / "cgroup",
        proc=tmp_path,
        sockets=lambda: (ListeningSocket("0.0.0.0", 443, group), ListeningSocket("::", 443, group)),
        addresses=lambda: (),
    )
    (seen,) = sensor.read(Instant(1, 1))
    assert isinstance(seen, ListenerInventory)
    found = [(one.origin.unit, one.origin.process_name) for one in seen.listeners]
    assert found == [("web.service", told)] * 2


def test_a_sandbox_without_netlink_knows_of_nobody_connected(tmp_path: Path) -> None:
    """The listener is told all the same; loopback is nobody's way in."""

    def refused(_: int) -> tuple[tuple[str, str], ...]:
        raise PermissionError("no netlink here")

    sensor = HostListeners(
        identifier=Identifier(cgroups=CgroupPaths(root=None, monotonic=lambda: 0.0), proc=tmp_path),
        sockets=lambda: (ListeningSocket("::", 2375), ListeningSocket("127.0.0.1", 2379)),
        addresses=lambda: (),
        connected=refused,
    )
    _, control = sensor.read(Instant(1, 1))
    assert isinstance(control, ControlListeners)
    assert [(one.port, one.peers, one.recognised) for one in control.listeners] == [(2375, (), None)]


_WORD = st.sampled_from([*PROXY, "", "-1", "70000", "٣", "9" * 5000]) | st.text(max_size=8)


@given(arguments=st.lists(_WORD, max_size=14))
def test_any_arguments_are_a_port_or_nothing(arguments: list[str]) -> None:
    """A process may call itself what it likes."""
    found = parse_proxy(arguments)
    assert found is None or (0 < found[1] < 65536 and 0 < found[3] < 65536)


def test_a_real_process_is_read_like_a_made_up_one() -> None:
    """Its own name and what it was called with, from the real /proc."""
    child = subprocess.Popen(
        ["docker-proxy", "-c", "import sys; print('runs', flush=True); sys.stdin.read()", *PROXY[1:]],
        executable="/usr/bin/python3",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline()
        told = publications([child.pid, os.getpid()])
        child.stdin.close()
    assert told is not None
    assert [(one.port, one.container_port) for one in told.ports] == [(15432, 5432)]
