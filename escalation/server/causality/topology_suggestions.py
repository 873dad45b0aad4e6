"""What was seen and is not in the declared map, as questions to whoever keeps it; nothing is taken over."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from escalation.inert import harmless
from escalation.model import AgentId
from escalation.server.causality import topology
from escalation.server.causality.observed import Reached, Served
from escalation.server.causality.topology import Declared
from escalation.server.playbook.serving import ENGINES, ROUTERS


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One thing that the map does not say: why, and the lines that would say it, where those can be told."""

    why: str
    lines: tuple[str, ...] = ()


def suggestions(
    declared: Declared, *, heard: Iterable[AgentId], served: Sequence[Served], reached: Sequence[Reached]
) -> tuple[Suggestion, ...]:
    """Return what was seen and is not declared: hosts, addresses, routes, models that several hosts serve."""
    return (
        *_hosts(declared, heard),
        *_addresses(declared, reached),
        *_routes(declared, served),
        *_several(declared, served),
    )


def _hosts(declared: Declared, heard: Iterable[AgentId]) -> Iterator[Suggestion]:
    known = {each.name for each in declared.host}
    for host in sorted(set(heard) - known):
        lines = ("[[topology.host]]", f"name = {_text(host)}", "addresses = []")
        yield Suggestion(f"{host} reports and is not in the map", lines)


def _addresses(declared: Declared, reached: Sequence[Reached]) -> Iterator[Suggestion]:
    owners = topology.owners(declared)
    callers: dict[topology.Address, set[str]] = {}
    for each in reached:
        address = topology.address_of(each.address)
        if address is None or address.is_loopback or address.is_unspecified or address.is_link_local:
            continue
        if address not in owners:
            callers.setdefault(address, set()).add(each.host)
    for address, hosts in sorted(callers.items(), key=lambda item: (item[0].version, item[0].packed)):
        yield Suggestion(f"{', '.join(sorted(hosts))} could not reach {address}: of no declared host")


def _routes(declared: Declared, served: Sequence[Served]) -> Iterator[Suggestion]:
    routes = dict.fromkeys((each.host, each.model) for each in served if each.kind in ROUTERS and each.model)
    for host, model in sorted(routes):
        if topology.route_at(declared, router=host, name=model) is not None:
            continue
        lines: list[str] = []
        if harmless(model):
            lines += ["[[topology.route]]", f"name = {_text(model)}", f"router = {_text(host)}"]
            for each in served:
                if each.kind in ENGINES and each.model == model and each.host != host:
                    lines += [
                        "[[topology.route.engine]]",
                        f"host = {_text(each.host)}",
                        f"port = {each.port}",
                    ]
            if len(lines) == 3:
                lines.append("# [[topology.route.engine]]: no host was seen to serve a model of this name")
        yield Suggestion(f"{host} routes to {model}, and the map does not say where it leads", tuple(lines))


def _several(declared: Declared, served: Sequence[Served]) -> Iterator[Suggestion]:
    """Yield the models that several hosts serve, of which the map says neither ranks nor replicas."""
    hosts: dict[str, set[str]] = {}
    for each in served:
        if each.kind in ENGINES and each.model:
            hosts.setdefault(each.model, set()).add(each.host)
    pairs = {each.model for each in declared.pair}
    routes = {
        each.model or each.name for each in declared.route if len({one.host for one in each.engine}) > 1
    }
    for model, where in sorted(hosts.items()):
        if len(where) > 1 and model not in pairs | routes:
            lines: tuple[str, ...] = ()
            if harmless(model):
                ranks = ", ".join(map(_text, sorted(where)))
                lines = ("[[topology.pair]]", f"model = {_text(model)}", f"ranks = [{ranks}]")
            why = f"{', '.join(sorted(where))} serve {model}: ranks of one model, or engines of one route?"
            yield Suggestion(why, lines)


def _text(name: str) -> str:
    """Return a name that is harmless as a string of TOML."""
    return json.dumps(name, ensure_ascii=False)
