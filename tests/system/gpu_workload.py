"""A model server that opens a GPU's control node again and again, and the control group that refuses it.

The node is `/dev/nvidiactl` with the numbers of /dev/null, because an open must succeed before a refusal is
a revocation, and without the driver no open of major 195 does. What takes the access away is real: the
kernel's device control group, told by a line as a service manager writes it when it reloads.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.booted_host import BootedHost

DEVICES = Path("/sys/fs/cgroup/devices")
_NODE = "c 1:3 rwm"

_SERVER = """\
import os, time
while True:
    try:
        os.close(os.open("/dev/nvidiactl", os.O_RDWR))
    except OSError:
        pass
    time.sleep(0.1)
"""


class GpuWorkload:
    """The running server: `revoke` and `restore` its access to the node."""

    def __init__(self, *, host: BootedHost, unit: str, group: Path) -> None:
        self.host = host
        self.unit = unit
        self._group = group

    def revoke(self) -> None:
        """Refuse every further open of the node."""
        (self._group / "devices.deny").write_text(_NODE)

    def restore(self) -> None:
        """Allow opens of the node again."""
        (self._group / "devices.allow").write_text(_NODE)


@contextlib.contextmanager
def serving(host: BootedHost, *, unit: str = "model-server.service") -> Iterator[GpuWorkload]:
    """Run the server as a unit of `host`; skips loudly where the device control group cannot be told."""
    if not (DEVICES / "devices.deny").exists() and not (DEVICES / "devices.list").exists():
        pytest.skip("needs the v1 hierarchy of device control groups at /sys/fs/cgroup/devices")
    group = DEVICES / f"{host.name}-{os.getpid()}"
    host.shell("test -e /dev/nvidiactl || mknod -m 666 /dev/nvidiactl c 1 3")
    host.write("/opt/server.py", _SERVER)
    host.write(f"/etc/systemd/system/{unit}", "[Service]\nExecStart=/usr/bin/python3 /opt/server.py\n")
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "start", unit)
    group.mkdir()
    try:
        pid = host.outer_pid(int(host.show(unit, "MainPID")))
        (group / "cgroup.procs").write_text(str(pid))
        yield GpuWorkload(host=host, unit=unit, group=group)
    finally:
        host.run("systemctl", "stop", unit, check=False)
        with contextlib.suppress(OSError):
            group.rmdir()
