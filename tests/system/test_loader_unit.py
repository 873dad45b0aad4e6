"""The loader in its own unit's sandbox, on the real kernel."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.system.booted_host import BootedHost

_UNDECLARED = "kernel.scope"  # is not even compiled where no scope is declared
_OF_A_DRIVER = "kernel.xid"  # its tracepoint is there only where an NVIDIA driver is loaded
_CHECK = """\
[Unit]
StopWhenUnneeded=no
[Service]
Restart=no
ExecStart=
ExecStart=/usr/bin/python3 -I /opt/nanobot/loader/probes/kernel/__main__.py check --json
StandardOutput=file:/run/loader-said
"""


@pytest.mark.root
@pytest.mark.systemd
@pytest.mark.ebpf
def test_every_sensor_attaches_with_the_capabilities_of_the_unit(product: Path) -> None:
    """All of the sandbox in force, the loader compiles and attaches all of its programs."""

    def prepare(root: Path) -> None:
        folder = root / "etc/systemd/system/nanobot-probes.service.d"
        folder.mkdir()
        (folder / "check.conf").write_text(_CHECK)

    with BootedHost(name="nanobot-loader", layers=[product], prepare=prepare) as host:
        host.run("systemctl", "start", "nanobot-probes", check=False)
        said = host.shell("cat /run/loader-said")
    sensors = [row for row in json.loads(said)["sensors"] if row["name"] not in {_OF_A_DRIVER, _UNDECLARED}]
    assert len(sensors) >= 2
    assert [(s["name"], s["state"], s["detail"]) for s in sensors] == [
        (s["name"], "attached", None) for s in sensors
    ]


@pytest.mark.root
@pytest.mark.systemd
@pytest.mark.ebpf
@pytest.mark.parametrize("with_drop_in", [True, False])
def test_the_drop_in_of_the_page_is_what_a_packet_socket_takes(product: Path, with_drop_in: bool) -> None:
    """With `http.capture = "packet"`: attached with it, without it blind and named; the others attach."""
    page = (Path(__file__).resolve().parents[2] / "docs/explanation/privileges.md").read_text()
    drop_in = page.partition("```ini\n")[2].partition("```")[0]

    def prepare(root: Path) -> None:
        folder = root / "etc/systemd/system/nanobot-probes.service.d"
        folder.mkdir()
        check = _CHECK.replace("check --json", "check --json --config /etc/loader-test.toml")
        (folder / "check.conf").write_text(check)
        if with_drop_in:
            (folder / "packet-capture.conf").write_text(drop_in)
        (root / "etc/loader-test.toml").write_text('[http]\ncapture = "packet"\n')

    with BootedHost(name="nanobot-packet", layers=[product], prepare=prepare) as host:
        # The booted host has nothing but loopback; a real one has a wire, by which its network is known.
        cable = ["ip", "link", "add", "wire", "type", "veth", "peer", "name", "end"]
        subprocess.run(["nsenter", "-t", str(host.outer_pid(1)), "-n", *cable], check=True)
        host.run("systemctl", "start", "nanobot-probes", check=False)
        rows = {row["name"]: row for row in json.loads(host.shell("cat /run/loader-said"))["sensors"]}
    rows.pop(_OF_A_DRIVER)
    rows.pop(_UNDECLARED)
    routes = rows.pop("http.routes")
    assert {row["state"] for row in rows.values()} == {"attached"}
    if with_drop_in:
        assert (routes["state"], routes["detail"]) == ("attached", "by a packet socket")
    else:
        assert routes["state"] == "blind"
        assert "packet-capture.conf" in routes["detail"]
