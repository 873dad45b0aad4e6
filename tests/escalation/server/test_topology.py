"""The declared map: what is refused, and what is found in it."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from escalation.model import AgentId, Subject, SubjectKind
from escalation.server.causality import topology
from escalation.server.causality.topology import Declared, Engine, Host, Pair, Route
from escalation.settings import SettingsError, parse

SPARK_1 = Host(name="spark-1", addresses=("100.64.0.11", "192.168.100.11"), mesh="spark-1.tail.ts.net")
SPARK_2 = Host(name="spark-2", addresses=("100.64.0.12",))
APP = Host(name="app-1", addresses=("100.64.0.20",))
VLLM = Engine(host="spark-1", unit="vllm.service", port=8000)
QWEN = Route(name="qwen3", router="app-1", model="Qwen/Qwen3-32B", engine=(VLLM,))
MAP = Declared(
    host=(SPARK_1, SPARK_2, APP), route=(QWEN,), pair=(Pair(model="big", ranks=("spark-1", "spark-2")),)
)

_TEXT = """
[[host]]
name = "spark-1"
addresses = ["100.64.0.11"]
mesh = "spark-1.tail.ts.net"

[[host]]
name = "app-1"

[[route]]
name = "qwen3"
router = "app-1"
model = "Qwen/Qwen3-32B"

[[route.engine]]
host = "spark-1"
unit = "vllm.service"
port = 8000

[[route]]
name = "chat"
via = "qwen3"
"""


def test_a_map_is_read_from_toml() -> None:
    """Hosts, routes with their engines, and a route that goes via another."""
    declared = parse(_TEXT, Declared, name="topology.toml")
    assert [each.name for each in declared.route] == ["qwen3", "chat"]
    assert topology.replicas(declared, router="anywhere", name="chat") == (
        topology.Replica(AgentId("spark-1"), Subject(SubjectKind.UNIT, "vllm.service"), 8000),
    )
    assert topology.model_at(declared, router="anywhere", name="chat") == "Qwen/Qwen3-32B"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (('host = "spark-1"\nunit', 'host = "spark-9"\nunit'), "there is no [[topology.host]] spark-9"),
        (('router = "app-1"', 'router = "app-7"'), "there is no [[topology.host]] app-7"),
        (('via = "qwen3"', 'via = "chat"'), "routes go in a circle: chat via chat"),
        (('via = "qwen3"', 'via = "qwen4"'), "goes via qwen4, which is no [[topology.route]]"),
        (('via = "qwen3"', ""), "either engines or another route"),
        (('name = "app-1"\n\n', 'name = "spark-1"\n\n'), "host spark-1 is there twice"),
        (
            ('name = "app-1"\n\n', 'name = "app-1"\naddresses = ["::ffff:100.64.0.11"]\n\n'),
            "address 100.64.0.11 is there twice",
        ),
        (('"100.64.0.11"', '"127.0.0.1"'), "not an address by which others reach this host"),
        (('"100.64.0.11"', '"spark-1.lan"'), "not an address by which others reach this host"),
        (('"vllm.service"', '"vllm; reboot"'), "not a service unit"),
        (("port = 8000", "port = 80000"), "port"),
        (('mesh = "spark-1', 'meshname = "spark-1'), "unknown key"),
    ],
)
def test_a_map_that_is_wrong_is_refused_with_what_is_wrong(change: tuple[str, str], complaint: str) -> None:
    """Unknown names, circles, doubles and what is no address or unit are named."""
    before, after = change
    assert before in _TEXT
    with pytest.raises(SettingsError) as caught:
        parse(_TEXT.replace(before, after, 1), Declared, name="topology.toml")
    assert complaint in str(caught.value)


def test_routes_that_go_via_each_other_are_refused() -> None:
    """A circle of several routes is shown whole."""
    routes = (Route(name="a", via="b"), Route(name="b", via="c"), Route(name="c", via="a"))
    with pytest.raises(ValueError, match="circle: a via b via c via a"):
        Declared(route=routes)


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from(["h1", "h2", None]), st.sampled_from("abcde")),
        max_size=8,
    )
)
def test_whatever_is_accepted_leads_to_engines(tables: list[tuple[str, str | None, str]]) -> None:
    """From each route of each map that is not refused a walk ends at engines."""
    hosts = (Host(name="h1"), Host(name="h2"))
    routes = tuple(
        Route(name=name, router=router, engine=(Engine(host="h1"),))
        if via == "e"
        else Route(name=name, router=router, via=via)
        for name, router, via in tables
    )
    try:
        declared = Declared(host=hosts, route=routes)
    except ValueError:
        return
    for route in routes:
        assert topology.last_of(declared, route).engine


def test_a_pair_is_two_different_hosts() -> None:
    """One host, or the same twice, is no pair."""
    for ranks in (("spark-1",), ("spark-1", "spark-1")):
        with pytest.raises(ValueError, match="two or more different hosts"):
            Pair(model="big", ranks=ranks)


def test_a_route_that_names_its_router_goes_before_one_for_all() -> None:
    """Two routers may call different models by one name."""
    everywhere = Route(name="qwen3", model="other", engine=(Engine(host="spark-2"),))
    declared = Declared(host=MAP.host, route=(everywhere, QWEN))
    assert topology.model_at(declared, router="app-1", name="qwen3") == "Qwen/Qwen3-32B"
    assert topology.model_at(declared, router="spark-2", name="qwen3") == "other"
    assert topology.model_at(declared, router="spark-2", name="else") == "else"


def test_an_address_is_found_however_it_is_written() -> None:
    """An IPv4 address in IPv6's notation is the same; a name is none."""
    owners = topology.owners(MAP)
    assert owners[topology.address_of("::ffff:100.64.0.11")] == "spark-1"  # type: ignore[index]
    assert topology.address_of("spark-1") is None
    assert topology.is_mesh("::ffff:100.64.0.11")
    assert not topology.is_mesh("192.168.100.11")


def test_the_other_ranks_are_those_of_the_model_or_of_all() -> None:
    """Who does not know of which model it speaks is joined to every rank beside it."""
    assert topology.other_ranks(MAP, host="spark-1", model="big") == ("spark-2",)
    assert topology.other_ranks(MAP, host="spark-2", model="") == ("spark-1",)
    assert topology.other_ranks(MAP, host="spark-1", model="small") == ()
