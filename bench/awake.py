"""The programs of `kernel.run_delay` alone, by the real loader, held asleep or awake for a measurement.

The whole agent wakes them only while servers of the host wait, which a storm cannot arrange.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.rig import LOADER, Unavailable
from probes.kernel import handover
from probes.kernel.asleep import Sleepers
from probes.kernel.libbpf import Libbpf
from probes.kernel.programs import KernelProgram
from probes.kernel.run_delay import PROGRAM
from probes.registry import programs

_PATIENCE_S = 60


@contextmanager
def run_delay(*, awake: bool) -> Iterator[None]:
    """Load the programs for as long as the block lasts; raise Unavailable where that cannot be done."""
    if os.geteuid() != 0:
        raise Unavailable("kernel sensors need root")
    with tempfile.TemporaryDirectory() as name:
        handed = loaded_alone(PROGRAM, Path(name))
    try:
        entry = handed.entry(PROGRAM.sensor)
        if entry is None or entry.blind is not None:
            raise Unavailable(f"{PROGRAM.sensor}: {entry.blind if entry else 'is not in the manifest'}")
        sleepers = Sleepers(program=PROGRAM, handover=handed, libbpf=Libbpf())
        if awake:
            sleepers.wake()
        yield
        sleepers.sleep()
    finally:
        handed.close()


def loaded_alone(program: KernelProgram, folder: Path, *, more: str = "") -> handover.Handover:
    """Load one program by the real loader, with `more` in its configuration, and take what it hands over."""
    path, config = folder / "handover.sock", folder / "agent.toml"
    others = [str(other.sensor) for other in programs() if other.sensor != program.sensor]
    config.write_text(f'[sensors]\nsocket = "{path}"\ndisabled = {others}\n{more}')
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(_PATIENCE_S)
        command = [
            "/usr/bin/python3",
            "-I",
            str(LOADER),
            "load",
            "--config",
            str(config),
            "--agent-user",
            "0",
        ]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as loader:
            try:
                connection, _ = listener.accept()
            except TimeoutError as error:
                loader.kill()
                raise Unavailable("the loader hands nothing over") from error
            with connection:
                handed = handover.receive(connection, timeout_s=_PATIENCE_S)
                handover.accept(connection)
    return handed
