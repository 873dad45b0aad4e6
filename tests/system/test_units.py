"""The units: how exposed they are, and how the service manager treats agent and loader over their lives."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.security.properties import security_property
from tests.system.booted_host import BootedHost

UNITS = Path(__file__).resolve().parents[2] / "systemd"
EXPOSURE = {
    "nanobot-agent.service": 1.2,
    "nanobot-probes.service": 2.5,
    "nanobot-orchestrator.service": 2.0,
}

needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze (Debian: systemd)"
)


def test_every_unit_has_a_limit_of_exposure() -> None:
    """A new service without a row in the table above is a failure."""
    assert {unit.name for unit in UNITS.glob("*.service")} == set(EXPOSURE)


@needs_analyze
@pytest.mark.parametrize("unit", EXPOSURE)
@security_property(
    "H29",
    "Each unit scores at or below its published limit: agent 1.2, loader 2.5, orchestrator 2.0.",
)
def test_exposure_stays_within_its_limit(unit: str) -> None:
    """systemd's own analysis scores each unit at or under the design's target."""
    threshold = f"--threshold={EXPOSURE[unit] * 10:.0f}"
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", threshold, str(UNITS / unit)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@needs_analyze
def test_the_drop_in_for_gpus_scores_what_its_page_says(tmp_path: Path) -> None:
    """The agent's unit with the drop-in that is installed beside a driver, and that the page shows."""
    page = (UNITS.parent / "docs/explanation/gpu-sensing.md").read_text()
    drop_in = page.partition("```ini\n")[2].partition("```")[0]
    assert "DeviceAllow=char-nvidia*" in drop_in
    assert (UNITS / "drop-ins/agent-gpu.conf").read_text().endswith(drop_in)
    unit = tmp_path / "nanobot-agent.service"
    unit.write_text((UNITS / unit.name).read_text() + drop_in)
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=14", str(unit)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    score = done.stdout.strip().splitlines()[-1].split(": ")[1].split(" ")[0]
    assert f"scores {score}" in page


@needs_analyze
def test_the_drop_in_for_the_journal_scores_what_its_page_says(tmp_path: Path) -> None:
    """The agent's unit with the group that may read the journal, and the score that the page names."""
    page = (UNITS.parent / "docs/explanation/logs.md").read_text()
    unit = tmp_path / "nanobot-agent.service"
    drop_in = (UNITS / "drop-ins/agent-journal.conf").read_text()
    assert "SupplementaryGroups=systemd-journal" in drop_in
    unit.write_text((UNITS / unit.name).read_text() + drop_in)
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=13", str(unit)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    score = done.stdout.strip().splitlines()[-1].split(": ")[1].split(" ")[0]
    assert f"scores {score}" in page


@needs_analyze
def test_the_drop_in_for_packet_capture_stays_within_the_limit(tmp_path: Path) -> None:
    """The unit with what docs/explanation/privileges.md says to add, and the score that it names."""
    page = (UNITS.parent / "docs/explanation/privileges.md").read_text()
    drop_in = page.partition("```ini\n")[2].partition("```")[0]
    assert "AF_PACKET" in drop_in
    unit = tmp_path / "nanobot-probes.service"
    unit.write_text((UNITS / unit.name).read_text() + drop_in)
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=25", str(unit)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    score = done.stdout.strip().splitlines()[-1].split(": ")[1].split(" ")[0]
    assert f"That scores {score}." in page


@needs_analyze
@pytest.mark.parametrize("unit", EXPOSURE)
def test_systemd_finds_nothing_wrong_with_a_unit(unit: str, tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say, once the programs are where the unit expects them."""
    text = (UNITS / unit).read_text()
    assert "/opt/nanobot/" in text
    for path in UNITS.glob("*.service"):
        found = path.read_text().replace("/opt/nanobot/venv/bin/", "/bin/true /opt/nanobot/venv/bin/")
        (tmp_path / path.name).write_text(found)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / unit)],
        check=False,
        capture_output=True,
        text=True,
    )
    complaints = [line for line in done.stderr.splitlines() if "nanobot" in line]
    assert (done.returncode, complaints) == (0, [])


def test_loader_is_bound_to_three_capabilities_and_the_agent_to_none() -> None:
    """The bounding sets are what docs/explanation/privileges.md promises."""
    agent = (UNITS / "nanobot-agent.service").read_text().splitlines()
    loader = (UNITS / "nanobot-probes.service").read_text().splitlines()
    assert "CapabilityBoundingSet=" in agent
    assert "CapabilityBoundingSet=CAP_BPF CAP_PERFMON CAP_NET_ADMIN" in loader


# A stand-in for the agent that shows the service manager's side alone: it stores one descriptor when it was
# handed none, as the agent stores the sensors.
_KEEPER = """
import array, os, socket, time
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.connect(os.environ["NOTIFY_SOCKET"])
if not int(os.environ.get("LISTEN_FDS", "0")):
    kept = array.array("i", [os.memfd_create("kept")])
    words = b"FDSTORE=1\\nFDPOLL=0\\nFDNAME=nanobot.0"
    manager.sendmsg([words], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, kept)])
manager.send(b"READY=1")
while True:
    time.sleep(1)
    manager.send(b"WATCHDOG=1")
"""


@pytest.fixture(scope="module")
def manager(product: Path) -> Iterator[BootedHost]:
    """A host on which the two units run stand-ins."""

    def prepare(root: Path) -> None:
        (root / "opt/keeper.py").write_text(_KEEPER)
        for unit, command in (
            ("nanobot-agent", "/usr/bin/python3 /opt/keeper.py"),
            ("nanobot-probes", "/bin/grep CapEff /proc/self/status\nStandardOutput=file:/run/loader-said"),
        ):
            folder = root / f"etc/systemd/system/{unit}.service.d"
            folder.mkdir()
            (folder / "stand-in.conf").write_text(f"[Service]\nExecStart=\nExecStart={command}\n")

    with BootedHost(name="nanobot-units", layers=[product], prepare=prepare) as host:
        yield host


@pytest.mark.root
@pytest.mark.systemd
class TestLives:
    """What starts the loader, and what does not."""

    @staticmethod
    def loader_start(host: BootedHost) -> str:
        return host.show("nanobot-probes.service", "ExecMainStartTimestampMonotonic")

    @staticmethod
    def kept(host: BootedHost) -> str:
        return host.show("nanobot-agent.service", "NFileDescriptorStore")

    def settle(self, host: BootedHost, after: str) -> None:
        host.wait(
            after,
            lambda: (
                host.show("nanobot-agent.service", "ActiveState") == "active"
                and host.show("nanobot-probes.service", "ActiveState") == "active"
            ),
        )

    def test_starting_the_agent_starts_the_loader_after_it(self, manager: BootedHost) -> None:
        """One start of the agent brings the loader, which then stays active without a process."""
        manager.run("systemctl", "start", "nanobot-agent")
        self.settle(manager, "agent and loader active")
        assert self.kept(manager) == "1"
        assert manager.show("nanobot-probes.service", "MainPID") == "0"
        # CAP_NET_ADMIN is bit 12, CAP_PERFMON bit 38, CAP_BPF bit 39.
        assert "CapEff:\t000000c000001000" in manager.shell("cat /run/loader-said")

    def test_a_killed_agent_finds_its_descriptors_and_the_loader_rests(self, manager: BootedHost) -> None:
        """kill -9 and an ordinary restart both keep the store and do not run the loader."""
        manager.run("systemctl", "start", "nanobot-agent")
        self.settle(manager, "agent and loader active")
        started = self.loader_start(manager)
        manager.run("systemctl", "kill", "-s", "KILL", "nanobot-agent")
        manager.wait("a restart", lambda: manager.show("nanobot-agent.service", "NRestarts") == "1")
        self.settle(manager, "active after kill -9")
        assert (self.kept(manager), self.loader_start(manager)) == ("1", started)
        manager.run("systemctl", "restart", "nanobot-agent")
        self.settle(manager, "active after restart")
        assert (self.kept(manager), self.loader_start(manager)) == ("1", started)

    def test_a_stopped_agent_lets_go_and_the_next_start_loads_again(self, manager: BootedHost) -> None:
        """A real stop empties the store; the loader becomes inactive with it and runs at the next start."""
        manager.run("systemctl", "start", "nanobot-agent")
        self.settle(manager, "agent and loader active")
        started = self.loader_start(manager)
        manager.run("systemctl", "stop", "nanobot-agent")
        manager.wait(
            "the loader inactive", lambda: manager.show("nanobot-probes.service", "ActiveState") == "inactive"
        )
        assert self.kept(manager) == "0"
        manager.run("systemctl", "start", "nanobot-agent")
        self.settle(manager, "active again")
        assert self.loader_start(manager) != started
