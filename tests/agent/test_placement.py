"""Declared placement: the narrowest declaration counts, and a wrong one is refused with its place."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from agent.config import AgentSettings
from agent.gpus.placement import Placement, Placements, route_of
from agent.testing import CONTAINER, origin
from escalation.settings import SettingsError, parse
from probes.http.facts import Route, RouteName
from probes.observation import Origin

DECLARED = f"""
[[placement]]
unit = "ollama.service"
on = "gpu"
[[placement]]
container = "{CONTAINER[:12]}"
on = "partial"
[[placement]]
route = "11434"
on = "gpu"
[[placement]]
route = "11434/nomic-embed-text"
on = "cpu"
"""


@pytest.fixture
def declared() -> Placements:
    """What the settings above say."""
    return Placements.of(parse(DECLARED, AgentSettings, name="a.toml").placement)


def route(port: int, model: str | None) -> RouteName:
    """Return one route's name."""
    return RouteName(port, Route.OLLAMA_EMBED, model)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (route(11434, "nomic-embed-text"), Placement.CPU),
        (route(11434, "qwen3"), Placement.GPU),
        (route(11434, None), Placement.GPU),
        (route(8000, "nomic-embed-text"), None),
    ],
)
def test_the_model_goes_before_the_port(
    declared: Placements, name: RouteName, expected: Placement | None
) -> None:
    """A model that is declared by itself is not held to what its server is."""
    assert declared.of_route(name) is expected


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (origin(), Placement.PARTIAL),
        (origin(container=None, unit="ollama.service"), Placement.GPU),
        (origin(container=None, unit="vllm.service"), None),
        (origin(container="d" * 64), None),
        (Origin(), None),
    ],
)
def test_containers_and_units_are_found_by_their_names(
    declared: Placements, where: Origin, expected: Placement | None
) -> None:
    """A container by the beginning of its id, a unit by its whole name; what is not declared is None."""
    assert declared.of_origin(where) is expected


def test_the_route_goes_before_who_serves_it(declared: Placements) -> None:
    """An embedding model on the CPU behind a server that belongs on the GPU."""
    assert declared.of_exchange(origin(), route(11434, "nomic-embed-text")) is Placement.CPU
    assert declared.of_exchange(origin(), route(8000, "m")) is Placement.PARTIAL
    assert declared.of_server(origin(), 11434) is Placement.GPU
    assert declared.of_server(origin(), 8000) is Placement.PARTIAL


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[placement]]\non = 'gpu'\n", "a.toml:1: placement.0: exactly one of unit, container and route"),
        (
            "[[placement]]\nunit = 'a.service'\nroute = '8000'\non = 'gpu'\n",
            "a.toml:1: placement.0: exactly one of unit, container and route",
        ),
        ("[[placement]]\nunit = 'a.service'\n", "a.toml:1: placement.0"),
        ("[[placement]]\nunit = 'a.service'\non = 'tpu'\n", "a.toml:3: placement.0.on"),
        ("[[placement]]\nunit = 'a b'\non = 'gpu'\n", "a.toml:2: placement.0.unit"),
        ("[[placement]]\ncontainer = 'ollama'\non = 'gpu'\n", "a.toml:2: placement.0.container"),
        ("[[placement]]\nroute = '0'\non = 'gpu'\n", "a.toml:1: placement.0: '0' is no route"),
        ("[[placement]]\nroute = '65536/m'\non = 'gpu'\n", "a.toml:1: placement.0: '65536/m' is no route"),
        ("[[placement]]\nroute = '80/'\non = 'gpu'\n", "a.toml:1: placement.0: '80/' is no route"),
        ("[[placement]]\nport = 80\non = 'gpu'\n", "a.toml:2: placement.0.port: unknown key"),
    ],
)
def test_a_wrong_declaration_is_named_with_its_place(text: str, expected: str) -> None:
    """Each mistake is told, and nothing of the file is used."""
    with pytest.raises(SettingsError) as caught:
        parse(text, AgentSettings, name="a.toml")
    assert str(caught.value).startswith(expected)


def test_a_thing_that_is_declared_twice_is_refused() -> None:
    """One of the two would never count."""
    twice = "[[placement]]\nroute = '8000'\non = 'gpu'\n[[placement]]\nroute = '8000'\non = 'cpu'\n"
    with pytest.raises(SettingsError, match="'8000' is declared twice"):
        parse(twice, AgentSettings, name="a.toml")


@given(st.text(max_size=300))
def test_whatever_is_written_as_a_route_is_one_or_refused(text: str) -> None:
    """No text but a port, or a port and a model, is a route."""
    try:
        port, model = route_of(text)
    except ValueError:
        return
    assert 0 < port < 65536
    assert text == (str(port) if model is None else f"{port}/{model}")
