"""A declared scope for as long as a measurement lasts: the workload beside it, in it, or in breach of it.

The rules are three, so that what is allowed is found by a real look into each table. This process goes into
the scope's control group, and whatever it starts with it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.awake import loaded_alone
from bench.rig import Unavailable
from probes.kernel.scope import PROGRAM, ScopeSensor
from probes.registry import surroundings
from probes.scopes import ScopeRule

PLACES = ("outside", "inside, allowed", "inside, breached")

_NAME = "/nanobot-bench-scope"
_SCOPE = f"""
[[scope]]
name = "bench"
cgroup = "{_NAME}"
executables = ["/bin/true", "/usr/bin/taskset", "/usr/bin/python3"]
destinations = ["10.0.0.0/8", "192.168.0.0/16:443", "127.0.0.0/8"]
"""
_NOTHING = _SCOPE.partition("executables")[0] + "executables = []\ndestinations = []\n"


@contextmanager
def scope(*, place: str) -> Iterator[None]:
    """Hold a scope; raise Unavailable where that cannot be done."""
    host = surroundings(None)
    root = host.mounts.unified
    if os.geteuid() != 0 or root is None:
        raise Unavailable("a scope needs root and a cgroup v2 hierarchy")
    group = Path(f"{root}{_NAME}")
    group.mkdir(exist_ok=True)
    home = Path(f"{root}{_own()}", "cgroup.procs")
    with tempfile.TemporaryDirectory() as folder:
        more = _NOTHING if place == "inside, breached" else _SCOPE
        handed = loaded_alone(PROGRAM, Path(folder), more=more)
    rule = ScopeRule(name="bench", cgroup=_NAME)
    sensor = ScopeSensor(
        handover=handed,
        identifier=host.identifier,
        rules=(rule,),
        root=root,
        own_cgroup=Path(os.devnull),  # this process is the workload, and no agent
    )
    try:
        sensor.open()
        if place != "outside":
            (group / "cgroup.procs").write_text(str(os.getpid()))
        yield
    finally:
        home.write_text(str(os.getpid()))
        sensor.close()
        handed.close()
        group.rmdir()


def _own() -> str:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return next((line[3:] for line in lines if line.startswith("0::/")), "/")
