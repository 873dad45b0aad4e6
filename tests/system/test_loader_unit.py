"""The loader in its own unit's sandbox, on the real kernel."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.system.booted_host import BootedHost

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
    sensors = json.loads(said)["sensors"]
    assert len(sensors) >= 2
    assert [(s["name"], s["state"], s["detail"]) for s in sensors] == [
        (s["name"], "attached", None) for s in sensors
    ]
