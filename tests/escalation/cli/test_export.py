"""`nanobotctl export`: whole, since a time, and found out when it is not what was exported."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from escalation.cli.errors import CtlError, ExitCode
from escalation.cli.export import GENESIS
from escalation.cli.exported import exported
from escalation.cli.session import AT_ONCE
from escalation.server import audit
from escalation.server.testing import START_NS
from escalation.wording.moments import moment
from tests.escalation.cli.conftest import Ctl
from tests.escalation.server.crowd import crowd

_HOUR_S = 3600.0


@pytest.fixture
def lines(ctl: Ctl, served: Any) -> list[str]:
    """The export of a desk on which something was decided yesterday, and something today."""
    for host in ("yesterday", "today"):
        entry = served.call(served.desk.opened(host=host))
        decided = ctl("reject", entry.recommendation.id, "--reason", f"of {host}")
        assert decided.code == 0
        served.call(served.desk.advance(24 * _HOUR_S))
    return str(ctl("export").out).splitlines()


def _parts(lines: list[str], kind: str) -> list[dict[str, Any]]:
    return [part["value"] for part in map(json.loads, lines) if part["kind"] == kind]


def _reasons(lines: list[str]) -> set[str | None]:
    return {each["decision_reason"] for each in _parts(lines, "recommendation")}


def test_an_export_holds_incidents_decisions_and_the_log(ctl: Ctl, lines: list[str]) -> None:
    """Everything that the API shows is in it, under a schema, with the head of the log before it."""
    (about,) = _parts(lines, "export")
    assert (about["schema"], about["since"], about["after"]) == (1, None, {"number": 0, "digest": GENESIS})
    assert GENESIS == audit.GENESIS
    assert {each["host"] for each in _parts(lines, "incident")} >= {"yesterday", "today"}
    assert _reasons(lines) >= {"of yesterday", "of today"}
    links = _parts(lines, "audit")
    assert about["head"] == {"number": links[-1]["number"], "digest": links[-1]["digest"]}
    assert _parts(lines, "end") == [{"lines": len(lines) - 1}]
    assert links == ctl("audit", "list", "-o", "json").json


def test_an_export_is_whole_however_much_there_is(ctl: Ctl, served: Any) -> None:
    """More than one answer holds is read page by page; the beginning of any id finds its entry."""
    opened = served.call(served.desk.opened())
    work = partial(crowd, beside=opened, count=AT_ONCE + 1)
    served.call(served.desk.store.write(work))
    lines = str(ctl("export").out).splitlines()
    assert len({each["id"] for each in _parts(lines, "incident")}) == AT_ONCE + 2
    assert len({each["id"] for each in _parts(lines, "recommendation")}) == AT_ONCE + 2
    assert ctl("show", opened.recommendation.id[:12], "--json").json["id"] == opened.recommendation.id
    assert ctl("show", "e0000000").code == ExitCode.NOT_FOUND
    assert ctl("incidents", "--limit", "1000").err == (
        f"{AT_ONCE} of {AT_ONCE + 2} shown; nanobotctl export has all of it\n"
    )


def test_an_export_is_verified_offline(ctl: Ctl, lines: list[str], tmp_path: Path) -> None:
    """Nobody has to be reached, and a digest that was kept is looked for in it."""
    file = tmp_path / "export.jsonl"
    file.write_text("\n".join(lines) + "\n")
    (about,) = _parts(lines, "export")
    offline = ("--url", "http://127.0.0.1:9", "audit", "verify", "--file", str(file))
    verified = ctl(*offline, "--head", about["head"]["digest"], "--json")
    assert (verified.code, verified.json["whole"], verified.json["head"]) == (
        0,
        True,
        about["head"]["digest"],
    )
    assert ctl(*offline, "--head", "ab" * 32).code == ExitCode.FAILED


def test_since_begins_in_the_middle_and_is_still_verified(ctl: Ctl, lines: list[str], tmp_path: Path) -> None:
    """What is older is left out; the first link says which one it follows, so the chain still holds."""
    since = moment(START_NS + int(12 * _HOUR_S * 1e9))
    newer = str(ctl("export", "--since", since).out).splitlines()
    (about,) = _parts(newer, "export")
    assert about["since"] == since
    assert "of today" in _reasons(newer)
    assert "of yesterday" not in _reasons(newer)
    links = _parts(newer, "audit")
    assert 0 < len(links) < len(_parts(lines, "audit"))
    assert about["after"] == {"number": links[0]["number"] - 1, "digest": links[0]["previous"]}
    file = tmp_path / "newer.jsonl"
    file.write_text("\n".join(newer))
    assert ctl("audit", "verify", str(file)).out.startswith(f"whole from entry {links[0]['number']} on: ")
    assert ctl("audit", "verify", str(file), "--json").json["after"] == links[0]["number"] - 1
    file.write_text("\n".join(line for line in newer if links[0]["digest"] not in line))
    assert ctl("audit", "verify", str(file)).code == ExitCode.FAILED
    empty = str(ctl("export", "--since", "0s").out).splitlines()
    assert _parts(empty, "audit") == _parts(empty, "incident") == []
    file.write_text("\n".join(empty))
    assert ctl("audit", "verify", str(file)).code == 0
    assert ctl("export", "--since", "yesterday").code == ExitCode.USAGE


def test_an_empty_file_is_no_whole_log(ctl: Ctl, tmp_path: Path) -> None:
    """An export that failed, or a log that somebody wiped, is not called whole."""
    file = tmp_path / "audit.jsonl"
    file.write_text("\n")
    refused = ctl("audit", "verify", str(file), "--json")
    assert (refused.code, refused.out) == (ExitCode.USAGE, "")
    assert "is empty" in refused.err


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_to_an_export_goes_unseen(lines: list[str], data: st.DataObject) -> None:
    """A line that is gone, doubled, changed or cut makes it fail by name, and never crash."""
    at = data.draw(st.integers(0, len(lines) - 1))
    line = lines[at]
    match data.draw(st.sampled_from(["gone", "double", "cut", "garbage", "kind"])):
        case "gone":
            damaged = lines[:at] + lines[at + 1 :]
        case "double":
            damaged = [*lines[:at], line, *lines[at:]]
        case "cut":
            damaged = [*lines[:at], line[: data.draw(st.integers(1, len(line) - 1))]]
        case "garbage":
            damaged = [*lines[:at], data.draw(st.text(min_size=1, max_size=20)), *lines[at + 1 :]]
        case _:
            damaged = [*lines[:at], line.replace('"kind":"', '"kind":"x', 1), *lines[at + 1 :]]
    if not any(each.strip() for each in damaged):
        return
    with pytest.raises(CtlError, match="export"):
        exported((each.encode(errors="surrogatepass") for each in damaged), name="the export")
