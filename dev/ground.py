"""What this machine allows a development run: root, tracefs, free ports; and the mounts that it lends."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

TRACEFS = Path("/sys/kernel/tracing")


class GroundError(Exception):
    """The run cannot start on this machine as it is; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What was found. `no_sensors` says why no kernel sensor can be loaded, empty when they can be tried."""

    root: bool
    no_sensors: str


def survey() -> Ground:
    """Look, changing nothing."""
    root = sys.platform == "linux" and os.geteuid() == 0
    return Ground(root=root, no_sensors=_no_sensors(root=root))


def _no_sensors(*, root: bool) -> str:
    if sys.platform != "linux":
        return f"kernel sensors need Linux, this is {sys.platform}"
    if not root:
        return "not root: the loader needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN (run make run as root)"
    if shutil.which("setpriv") is None:
        return "setpriv is missing (Debian: util-linux), the loader cannot be held to three capabilities"
    return ""


def require_free_ports(ports: Sequence[int]) -> None:
    """Raise GroundError naming the first of `ports` that another program holds on loopback."""
    for port in ports:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise GroundError(
                    f"port {port} on 127.0.0.1 is taken ({error.strerror}), by another run or an installed "
                    f"agent: end it (ss -ltnp 'sport = :{port}' names it), or choose three others: "
                    'make run ARGS="--first-port 19735"'
                ) from error


@contextlib.contextmanager
def tracing(ground: Ground) -> Iterator[str]:
    """Mount tracefs for the block's time where it is missing and we may; yield a line about it."""
    if not ground.root or (TRACEFS / "events").is_dir():
        yield ""
        return
    done = subprocess.run(
        ["mount", "-t", "tracefs", "tracefs", str(TRACEFS)], check=False, capture_output=True, text=True
    )
    if done.returncode != 0:
        yield f"tracefs could not be mounted: {done.stderr.strip()}"
        return
    try:
        yield f"tracefs mounted on {TRACEFS} for the time of this run"
    finally:
        subprocess.run(["umount", str(TRACEFS)], check=False, capture_output=True)
