"""One of each server for the whole run, playing every scenario."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from dev.processes import Processes
from dev.setup_files import Ports
from probes.kernel.handover import Handover
from tests.routes.observing import load_capture
from tests.routes.product import Product, running
from tests.routes.serving import Server, Servers


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A place to start servers; all are ended with the run."""
    with Processes() as processes:
        yield Servers(tmp_path_factory.mktemp("routes"), processes)


@pytest.fixture(scope="session")
def handed(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handover]:
    """The capture, attached to every port that a server of this run can have."""
    taken = load_capture(tmp_path_factory.mktemp("capture"), servers.ports)
    yield taken
    taken.close()


@pytest.fixture(scope="session")
def serve(servers: Servers) -> Callable[[str], Server]:
    """Return the server of a kind, started once."""
    started: dict[str, Server] = {}

    def of(kind: str) -> Server:
        if kind not in started:
            started[kind] = servers.start(kind)
        return started[kind]

    return of


@pytest.fixture(scope="module")
def product(servers: Servers) -> Iterator[Product]:
    """The whole product, watching every port that a server of this run can have.

    A new one for each file of tests: the agent tells some hundreds of routes apart and folds what is more,
    and all tests together ask for more.
    """
    ports = Ports(*(servers.unused_port() for _ in range(3)))
    with running(servers.ports, ports) as product:
        yield product
