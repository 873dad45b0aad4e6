"""The orchestrator that the security tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.escalation.server.site import Authority
from tests.security.house import House, Told, living, receiver


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that lives as long as the tests."""
    return Authority(tmp_path_factory.mktemp("security-pki"))


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[House]:
    """A running orchestrator that lives as long as the tests."""
    told = Told()
    folder = tmp_path_factory.mktemp("house")
    with (
        receiver(told, b'{"action": "approve", "state": "approved"}') as hook,
        living(House(folder, authority, told, hook)) as running,
    ):
        yield running


@pytest.fixture
def another(tmp_path: Path, authority: Authority) -> Iterator[House]:
    """The files of an orchestrator of one test, which starts and stops it."""
    told = Told()
    with receiver(told) as hook:
        yield House(tmp_path, authority, told, hook)
