"""Alertmanager, the real one: what is open is listed, and what is over is resolved."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from escalation.model import CasePhase
from escalation.server.notify import notices
from escalation.server.notify.notices import Event, rfc3339
from escalation.server.notify.notifiers.alertmanager import AlertmanagerSettings, alert
from escalation.server.testing import case_report
from escalation.wire import codec
from tests.escalation.server.conftest import running
from tests.escalation.server.site import Site, escalate, free_port, wired
from tests.escalation.server.test_notices import notice
from tests.monitoring.programs import found

ALERTMANAGER = found("prometheus-alertmanager")
URL = "https://desk.example.net"


def test_an_alert_stands_for_minutes_and_a_clearing_ends_it() -> None:
    """Its name holds what routes go by; its link leads to the desk."""
    now_ns = 1_767_225_600_000_000_000
    opened = alert(notices.message(notice(), url=URL), now_ns=now_ns)
    cleared = alert(notices.message(notice(Event.CLEARED), url=URL), now_ns=now_ns)
    assert opened["labels"] == cleared["labels"]
    assert (opened["startsAt"], opened["endsAt"]) == (rfc3339(now_ns), "2026-01-01T00:05:00Z")
    assert cleared["endsAt"] == rfc3339(now_ns)
    assert str(opened["generatorURL"]).startswith(f"{URL}/q/")
    drill = alert(notices.message(notice(drill=True), url=URL), now_ns=now_ns)
    assert drill["labels"]["drill"] == "yes"  # type: ignore[index]


def test_a_host_whose_clock_is_ahead_begins_now() -> None:
    """Alertmanager refuses an alert that ends before it begins."""
    ahead = notices.message(notice(Event.CLEARED, first_seen_ns=2**62), url=URL)
    made = alert(ahead, now_ns=1_767_225_600_000_000_000)
    assert made["startsAt"] == made["endsAt"] == "2026-01-01T00:00:00Z"


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[str]:
    """A real Alertmanager on loopback that sends nothing anywhere."""
    if ALERTMANAGER is None:
        pytest.skip("needs prometheus-alertmanager (dev/setup.sh tests unpacks it)")
    port = free_port()
    config = tmp_path / "alertmanager.yml"
    config.write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *unpacked(Path(ALERTMANAGER)),
                f"--config.file={config}",
                f"--storage.path={tmp_path}/data",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
            ],
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 30
        while not ready(url):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=5):
            return True
    except OSError:
        return False


def unpacked(program: Path) -> list[str]:
    """Return how to start the program with its templates where Debian's build looks for them.

    They are put there in a mount namespace of its own: nothing of this machine changes.
    """
    shared = program.parents[1] / "share/prometheus"
    if shared == Path("/usr/share/prometheus"):
        return [str(program)]
    script = 'mount -t tmpfs tmpfs /usr/share && cp -r "$0" /usr/share/prometheus && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, str(shared), str(program)]


def listed(url: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{url}/api/v2/alerts?active=true", timeout=5) as answer:
        found_alerts: list[dict[str, Any]] = json.load(answer)
    return found_alerts


@pytest.mark.root
async def test_a_real_alertmanager_lists_and_resolves(alertmanager: str) -> None:
    """An incident and a drill are two alerts; sent again they stay two; cleared, one is gone."""
    receiver = AlertmanagerSettings(name="am", url=alertmanager).build()
    fault = notices.message(notice(), url=URL)
    drill = notices.message(notice(drill=True, id="drill-1"), url=URL)
    for _ in range(2):
        await receiver.send([fault, drill], now_ns=time.time_ns())
    alerts = {each["labels"]["incident"]: each for each in listed(alertmanager)}
    assert set(alerts) == {fault.incident_id, "drill-1"}
    assert alerts[fault.incident_id]["generatorURL"] == fault.url
    assert alerts[fault.incident_id]["annotations"]["summary"] == fault.title
    assert alerts["drill-1"]["labels"]["drill"] == "yes"
    over = notices.message(notice(Event.CLEARED), url=URL)
    await receiver.send([over], now_ns=time.time_ns())
    assert [each["labels"]["incident"] for each in listed(alertmanager)] == ["drill-1"]
    await receiver.close()


@pytest.mark.root
async def test_an_incident_is_listed_and_resolved_from_end_to_end(site: Site, alertmanager: str) -> None:
    """What an agent reports is an alert; what it reports as cleared is none any more."""
    with site.config_file.open("a") as file:
        file.write(
            f'[notify]\nurl = "{URL}"\n[[notify.alertmanager]]\nname = "am"\nurl = "{alertmanager}"\n'
            '[[notify.route]]\nreceivers = ["am"]\n'
        )
    async with running(site), site.channel(site.authority.agent("spark-1")) as channel:
        await escalate(channel, codec.join([wired(case_report(), 1)]))
        await until(lambda: len(listed(alertmanager)) == 1)
        (one,) = listed(alertmanager)
        assert one["labels"]["fault_class"] == "gpu.access_revoked"
        assert one["generatorURL"] == f"{URL}/q/{one['labels']['incident']}"
        await escalate(channel, codec.join([wired(case_report(CasePhase.CLEARED), 2)]))
        await until(lambda: listed(alertmanager) == [])


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what other processes bring about; the deadline is there for failures alone."""
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(holds):  # noqa: ASYNC110 - nothing here tells when it is so
            await asyncio.sleep(0.05)
