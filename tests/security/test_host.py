"""The machine that it runs on: what a storm costs, where secrets stand, and what the service may write."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil

from escalation.model import CasePhase, Subject, SubjectKind
from escalation.server.testing import case_report, heartbeat
from escalation.wire import codec
from tests.escalation.server.site import wired
from tests.security import source
from tests.security.house import CANARY, House, standing, token
from tests.security.properties import security_property

_SYSTEMD = source.ROOT / "systemd"
_STORM = 20_000
_FINGERPRINTS = 50
_RESIDENT_AT_MOST = 200 * 1024 * 1024


def _settings_of(unit: Path) -> dict[str, str]:
    """Return the last value of each setting of a unit."""
    lines = [line for line in unit.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


@security_property(
    "H30", "The services run as users of their own on a read-only system and write their state alone."
)
def test_a_service_cannot_change_what_it_runs() -> None:
    """No unit opens a path for writing; what is installed is root's, and readable by everybody."""
    for unit in _SYSTEMD.glob("*.service"):
        found = _settings_of(unit)
        assert found["ProtectSystem"] == "strict", unit.name
        assert found["ProtectHome"] == "yes", unit.name
        assert found["NoNewPrivileges"] == "yes", unit.name
        assert not {"ReadWritePaths", "BindPaths", "ExecPaths"} & set(found), unit.name
        assert found["ExecStart"].startswith(("/opt/nanobot/", "/usr/bin/python3 -I /opt/nanobot/")), (
            unit.name
        )
        if found["User"] != "root":
            assert found["User"] == unit.stem, unit.name
            assert found["CapabilityBoundingSet"] == "", unit.name
            assert found["UMask"] == "0077", unit.name
    installing = (_SYSTEMD / "install.sh").read_text()
    modes = re.findall(r"install (?:-D )?-m (\S+)", installing)
    assert modes
    assert set(modes) == {"0644"}
    assert not re.search(r"chown|chmod [^\n]*[ugoa]*\+s|setcap|u\+s|4755", installing)
    assert "umask 022" in installing


@security_property(
    "H31", "Tokens and shared secrets, right or wrong, stand nowhere that is read, kept or printed."
)
def test_secrets_stand_nowhere(another: House) -> None:
    """Not in the log, arguments, environment, database, pages, metrics, notices or the audit log."""
    with standing(another) as running:
        entry = another.opened()
        another.decide(entry, "approve")
        with httpx2.Client(base_url=another.url, trust_env=False) as client:
            for authorization in (f"Bearer {CANARY}-typed-wrong", f"Basic {CANARY}", f"Bearer {CANARY}\x7f"):
                client.get(f"/?token={CANARY}-in-a-query", headers={"Authorization": authorization})
            client.get(f"/q/{CANARY}", headers={"Authorization": f"Bearer {CANARY}-typed-wrong"})
        another.told.about(entry["host"])
        shown = list(_shown(another, entry["id"]))
        process = psutil.Process(running.pid)
        shown += [" ".join(process.cmdline()), *process.environ().values()]
    assert "login_refused" in running.said
    kept = [path.read_bytes() for path in another.database.parent.iterdir() if path.is_file()]
    sent = [repr(post) for post in another.told.posts]
    for text in (running.said, *shown, *sent):
        assert CANARY not in text
    assert not [raw for raw in kept if CANARY.encode() in raw]
    assert token("ada") not in another.config_file.read_text(), "the settings hold a hash"


def _shown(house: House, entry_id: str) -> Iterator[str]:
    pages = ("/", "/hosts", f"/q/{entry_id}")
    api = ("queue", "incidents", "hosts", "audit", "notify", f"queue/{entry_id}")
    with house.client("ada") as client:
        for path in (*pages, *(f"/api/v1/{name}" for name in api), "/metrics"):
            answer = client.get(path)
            assert answer.status_code == 200, path
            yield answer.text
            yield str(answer.headers)


@security_property(
    "H33", "A storm of reports is as many rows as it has causes, in bounded memory; units cap the rest."
)
def test_a_storm_costs_no_more_than_its_limits(another: House) -> None:
    """Twenty thousand reports of fifty faults: fifty rows, every report kept, and memory under its limit."""
    host = another.host()
    with standing(another) as running:
        another.send(host, heartbeat())
        batches, first = [], 2
        for start in range(0, _STORM, 500):
            reports = [
                wired(
                    case_report(
                        CasePhase.OPENED if number < _FINGERPRINTS else CasePhase.UPDATED,
                        case_id=f"case-{number % _FINGERPRINTS}",
                        subject=Subject(SubjectKind.UNIT, f"unit-{number % _FINGERPRINTS}.service"),
                        count=1 + number // _FINGERPRINTS,
                    ),
                    first + number,
                    host=host,
                )
                for number in range(start, start + 500)
            ]
            batches.append(codec.join(reports))
        acks = another.send_bytes(host, *batches)
        assert acks[-1].sequence == first + _STORM - 1
        resident = psutil.Process(running.pid).memory_info().rss
        with another.client("vera") as client:
            assert client.get("/api/v1/queue", params={"limit": 1}).json()["total"] == _FINGERPRINTS
            assert client.get("/api/v1/incidents", params={"limit": 1}).json()["total"] == _FINGERPRINTS
        ((kept,),) = another.rows("SELECT count(*) FROM reports")
        assert kept == _STORM + 1
    assert resident < _RESIDENT_AT_MOST
    for unit in ("nanobot-agent.service", "nanobot-orchestrator.service"):
        found = _settings_of(_SYSTEMD / unit)
        assert {"MemoryHigh", "MemoryMax", "TasksMax"} <= set(found), unit
    assert "CPUQuota" in _settings_of(_SYSTEMD / "nanobot-agent.service")
