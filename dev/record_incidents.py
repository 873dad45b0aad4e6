"""Makes real faults on this machine and keeps what the sensors said of them, to be judged again ever after.

python -m dev.record_incidents [NAME...]     as root; writes tests/recorded/replayed/NAME.jsonl

Each fault is one of the product's own drills, or traffic of a model server that answers badly, watched by a
real agent with the real programs. Of a recording only the sensors that the fault is about are kept: the rest
is about the machine that it was made on.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.rig import PROGRAMS, Agent, free_ports, watched
from probes import recording
from probes.observation import Gap, Observation

FOLDER: Final = Path(__file__).resolve().parent.parent / "tests/recorded/replayed"
_AGENT: Final = str(PROGRAMS / "nanobot-agent")
_LONGEST_S: Final = 600
_ROUTE_S: Final = 24


@dataclass(frozen=True, slots=True)
class Incident:
    """One fault: how it is made while the agent watches, and whose words of it are kept."""

    make: Callable[[Agent, int], None]
    sensors: frozenset[str]


def _drill(fault: str) -> Callable[[Agent, int], None]:
    def make(agent: Agent, _: int) -> None:
        subprocess.run([_AGENT, "drill", fault, "--config", str(agent.config)], check=True)

    return make


def _traffic(*kinds: str) -> Callable[[Agent, int], None]:
    def make(_: Agent, port: int) -> None:
        for each in (("whole", "stream"), kinds, ("whole", "stream")):
            command = [
                sys.executable,
                "-m",
                "bench.traffic",
                str(port),
                str(_ROUTE_S / 3),
                "11",
                "--slowly",
                *each,
            ]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    return make


INCIDENTS: Final = {
    "memory.cgroup_oom_kill": Incident(
        _drill("memory.cgroup_oom_kill"), frozenset({"host.drills", "kernel.oom_kill", "kernel.fatal_signal"})
    ),
    "process.killed_by_signal": Incident(
        _drill("process.killed_by_signal"), frozenset({"host.drills", "kernel.fatal_signal"})
    ),
    "process.not_answering": Incident(
        _drill("process.not_answering"), frozenset({"host.drills", "host.processes"})
    ),
    "route.broken_stream": Incident(_traffic("cut"), frozenset({"http.routes"})),
    "route.empty_completion": Incident(_traffic("empty", "whole"), frozenset({"http.routes"})),
    "storage.full": Incident(
        _drill("storage.full"), frozenset({"host.drills", "host.storage", "kernel.storage_error"})
    ),
}


def main(names: Sequence[str]) -> int:
    """Record what was asked for, or all."""
    FOLDER.mkdir(exist_ok=True)
    for name in names or sorted(INCIDENTS):
        kept = _recorded(INCIDENTS[name])
        path = FOLDER / f"{name}.jsonl"
        path.write_text("".join(f"{recording.to_line(seen)}\n" for seen in kept))
        print(f"{path.name}: {len(kept)} observations")
    return 0


def _recorded(incident: Incident) -> list[Observation]:
    (port,) = free_ports(1)
    with watched(http_ports=(port,)) as agent, tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        out = Path(folder) / "recording.jsonl"
        record = [_AGENT, "record", "--config", str(agent.config), "--out", str(out)]
        with subprocess.Popen([*record, "--seconds", str(_LONGEST_S)]) as recorder:
            time.sleep(2)
            try:
                incident.make(agent, port)
                time.sleep(2)
            finally:
                recorder.send_signal(signal.SIGINT)
                recorder.wait(30)
        with out.open() as lines:
            seen = list(recording.read(lines))
    return [each for each in seen if each.sensor in incident.sensors or _is_sight(each, incident)]


def _is_sight(seen: Observation, incident: Incident) -> bool:
    return isinstance(seen, Gap) and seen.sensor in incident.sensors


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
