"""What the tests of a whole host share: the installed product as a layer, built once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import booted_host, image
from tests.system.deployment import Deployment


@pytest.fixture(scope="session")
def product() -> Iterator[Path]:
    """The product, installed by its own install script, as a layer for hosts; skips where none can boot."""
    if reason := booted_host.why_not():
        pytest.skip(f"no host can be booted: {reason}")
    with image.installed() as layer:
        yield layer


@pytest.fixture(scope="module")
def deployment(product: Path, request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """A booted host with orchestrator, agent and loader running from their units; one for each module."""
    name = request.path.stem.removeprefix("test_").replace("_", "-")
    with booted_host.BootedHost(name=f"nanobot-{name}"[:32], layers=[product]) as host:
        deployed = Deployment(host=host)
        deployed.configure()
        deployed.start()
        yield deployed
