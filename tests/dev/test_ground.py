"""What a machine allows a development run."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from dev.folder import claimed
from dev.ground import GroundError, require_free_ports
from dev.setup_files import Ports, host_name


def test_names_the_port_that_is_taken() -> None:
    """A second run on one machine is told which port is held and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        with pytest.raises(GroundError, match=rf"port {port} on 127\.0\.0\.1 is taken .*--first-port"):
            require_free_ports((port,))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("GPU-1", "gpu-1"),
        ("büro_rechner", "b-ro-rechner"),
        ("---", "localhost"),
        ("a" * 80, "a" * 63),
        ("", "localhost"),
    ],
)
def test_any_host_name_becomes_an_agent_id(name: str, expected: str) -> None:
    """A machine whose name no certificate could carry still runs."""
    assert host_name(name) == expected


def test_a_clone_is_run_once_at_a_time(tmp_path: Path) -> None:
    """A second run would take the first one's files away; it is refused until the first has ended."""
    with claimed(tmp_path), pytest.raises(GroundError, match="is run already"), claimed(tmp_path):
        pytest.fail("two runs have one clone")
    with claimed(tmp_path):
        pass


def test_ports_are_three_in_a_row() -> None:
    """One option moves all of them."""
    assert Ports.from_first(9735).all == (9735, 9736, 9737)
