"""nanobotctl incident and topology: what a person and a script see of where an incident is."""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from escalation.cli.incident_text import account_text, suggestion_lines
from escalation.cli.text import coloured, plain
from escalation.model import CasePhase, FaultClass, HostChange, HostChangeKind, Subject, SubjectKind
from escalation.server.causality.topology import Declared, Host
from escalation.server.incident.incident_desk import StoredIncidents
from escalation.server.testing import START_NS, FakeDesk, case_report
from escalation.view.incident import (
    ChangeView,
    MomentView,
    NodeView,
    SuggestionView,
    TopologyView,
    account_view,
)
from tests.escalation.cli.conftest import Ctl

GOLDEN = Path(__file__).parents[2] / "golden"
MINUTE_NS = 60 * 10**9


async def _site(desk: FakeDesk) -> str:
    """Let a GPU be taken away after a reload, with a consequence; return the incident's id."""
    await desk.service.declare(Declared(host=(Host(name="spark-1", mesh="spark-1.tail.ts.net"),)))
    whole = Subject(SubjectKind.HOST, "spark-1")
    await desk.report(HostChange(HostChangeKind.MANAGER_RELOADED, whole, START_NS - MINUTE_NS))
    entry = await desk.opened()
    await desk.report(case_report(CasePhase.OPENED, case_id="slow", fault_class=FaultClass.GPU_CPU_FALLBACK))
    stranger = Subject(SubjectKind.UNIT, "backup.service")
    await desk.report(
        case_report(
            CasePhase.OPENED, case_id="fd", fault_class=FaultClass.PROCESS_FD_EXHAUSTED, subject=stranger
        )
    )
    return entry.incident.id


async def test_an_incident_reads_as_reviewed() -> None:
    """The text of `incident` is the one in the golden file."""
    desk = FakeDesk()
    incident_id = await _site(desk)
    account = await StoredIncidents(store=desk.store, clock=desk.clock).account(incident_id)
    text = account_text(account_view(account))
    path = GOLDEN / "incident.txt"
    if os.environ.get("NANOBOT_WRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def test_an_incident_is_shown_by_any_of_its_ids(ctl: Ctl, served: Any) -> None:
    """By its own id, the beginning of it, and the id of its recommendation; as text and as JSON."""
    incident_id = served.call(_site(served.desk))
    shown = ctl("incident", incident_id, as_="viewer")
    assert shown.code == 0
    assert "the service manager read its units again (daemon-reload)" in shown.out
    assert ctl("incident", incident_id[:8]).out == shown.out
    body = ctl("incident", incident_id, "--json").json
    assert body["incident"]["id"] == incident_id
    assert [each["kind"] for each in body["path"] if each["here"]] == ["server"]
    assert ctl("incident", body["recommendations"][0]["id"]).out == shown.out
    consequence = body["consequences"][0]["incident_id"]
    assert f"nanobotctl incident {incident_id}" in ctl("incident", consequence[:12]).out
    assert ctl("incident", "nothing").code == 3


def test_the_topology_is_a_table_and_its_suggestions_are_toml(ctl: Ctl, served: Any) -> None:
    """Every node with what it needs; what is not declared as lines to put into the settings."""
    served.call(_site(served.desk))
    served.call(served.desk.opened(host="spark-2", case_id="other"))
    table = ctl("topology", "show", as_="viewer")
    assert table.code == 0
    assert any(line.split()[:2] == ["host", "spark-1"] for line in table.out.splitlines())
    assert ctl("topology", "show", "--json").json["links"]
    suggested = ctl("topology", "suggest")
    assert tomllib.loads(suggested.out)["topology"]["host"] == [{"name": "spark-2", "addresses": []}]
    assert "# spark-2 reports and is not in the map" in suggested.out
    lines = ctl("topology", "suggest", "-o", "jsonl").out.splitlines()
    assert [json.loads(line)["why"] for line in lines] == ["spark-2 reports and is not in the map"]


def test_nothing_to_suggest_is_said(ctl: Ctl) -> None:
    """An empty site prints a comment, and an empty table a sentence."""
    assert ctl("topology", "suggest").out == "# Everything that was seen is declared.\n"
    assert ctl("topology", "show").out == "Nothing is declared, and no host was heard yet.\n"


@pytest.mark.parametrize("hostile", ["\x1b[31mred", "\u202egnp", "a\nb"])
async def test_a_hostile_orchestrator_reaches_no_terminal(hostile: str) -> None:
    """Names, words and lines are guarded on this side too, coloured or not."""
    desk = FakeDesk()
    account = account_view(
        await StoredIncidents(store=desk.store, clock=desk.clock).account(await _site(desk))
    )
    node = NodeView(
        id=hostile, kind=hostile, name=hostile, host=hostile, declared=True, seen=True, open=1, worst=hostile
    )
    change = ChangeView(at=hostile, host=hostile, kind=hostile, words=hostile, after_s=1.0)
    moment = MomentView(at=hostile, kind=hostile, words=hostile, actor=hostile, about=None)
    account = replace(account, path=(node,), changes=(change,), timeline=(moment,))
    for paint in (plain, coloured):
        assert hostile not in account_text(account, paint=paint)
    suggestion = SuggestionView(why=hostile, lines=(hostile,))
    lines = suggestion_lines(TopologyView(nodes=(), links=(), suggestions=(suggestion,)))
    assert hostile not in "\n".join(lines)
