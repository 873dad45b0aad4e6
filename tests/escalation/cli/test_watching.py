"""Watching the queue: what is there, what changes, and what ended while nobody could watch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from escalation.cli import fleet
from escalation.cli.session import Session
from escalation.model import ActionKind
from escalation.server.attention.attention_desk import Until
from escalation.server.decision.approvals import Policy
from escalation.server.web.handlers import ascii_json
from escalation.view.entry import entry_view
from tests.escalation.cli.conftest import Ctl


def test_watching_prints_what_is_there_and_what_changes(ctl: Ctl, served: Any) -> None:
    """`watch` prints the queue first, and ends with 7 at its timeout."""
    entry = served.call(served.desk.opened())
    watched = ctl("watch", "--timeout", "0.5", "--json")
    assert watched.code == 7
    assert [json.loads(line)["id"] for line in watched.out.splitlines()] == [entry.recommendation.id]
    assert "watched for 0.5 seconds" in watched.err


def test_watching_without_an_orchestrator_fails_at_once(ctl: Ctl) -> None:
    """A connection that never worked is an error, not something to wait for."""
    assert ctl("--url", "http://127.0.0.1:9", "watch").code == 1


def test_a_change_that_is_no_new_state_is_told_too(served: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The first of two approvals, an owner and a question are each told once; a repeat is not."""
    served.desk.service._policy = Policy(two_person=frozenset({ActionKind.RESTART_CONTAINER}))
    entry = served.call(served.desk.opened())
    rec = entry.recommendation
    told: dict[str, list[Any]] = {}

    def line() -> str:
        body = ascii_json(entry_view(served.call(served.desk.entry(rec.id))))
        capsys.readouterr()
        fleet.tell(json.loads(body), told, as_json=False)
        return capsys.readouterr().out

    assert line().rstrip().endswith(rec.id)
    assert line() == ""
    served.call(served.desk.attention.ask(rec.id, person="ada", text="who uses it?", to=("grace",)))
    assert line().endswith("(asked of grace)\n")
    served.call(served.desk.attention.acknowledge(rec.id, person="ada", until=Until()))
    assert "ada until 2026-01-01T00:30:00.000Z; asked of grace" in line()
    served.call(served.desk.approve(rec.id, person="ada", reason="x", digest=rec.digest))
    assert "(approved by ada, and a second person has to; " in line()
    assert line() == ""


def test_what_ended_while_nobody_could_watch_is_told_afterwards(
    served: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What has left the queue since is asked for by its id; what was told as finished is not."""
    token = tmp_path / "token"
    token.write_text(served.tokens["operator"])
    token.chmod(0o600)
    gone = served.call(served.desk.opened(case_id="gone")).recommendation
    told: dict[str, list[Any]] = {}

    def states() -> list[str]:
        capsys.readouterr()
        with Session(url=served.url, token_file=token).client() as client:
            fleet.catch_up(client, told, as_json=True)
        return [json.loads(line)["state"] for line in capsys.readouterr().out.splitlines()]

    assert states() == ["proposed"]
    served.call(served.desk.reject(gone.id, person="ada", reason="x"))
    assert states() == ["rejected"]
    assert states() == []
