"""What watching GPUs costs: CPU a round and a minute, and memory, on the fake library with 1 and 8 GPUs.

Each row is a process of its own that reads the sensor as the agent does. The control row reads nothing, and
wakes up as often. The fake library answers from memory and looks at its state file at each call; what a real
driver's calls cost in the kernel is not in these figures.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.rig import Unavailable
from tests.fake_nvml import profiles
from tests.fake_nvml.fake import FakeNvml, build
from tests.fake_nvml.profiles import Machine

_ROOT = Path(__file__).resolve().parents[1]
_ROUNDS = 3000
_CHILD = """
import gc, json, sys, time
from pathlib import Path
from probes import registry
from probes.gpu.sensor import NvmlSensor
from probes.host import clock
def private():
    gc.collect()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))
watch, seconds, rounds = sys.argv[1] == "watch", float(sys.argv[2]), int(sys.argv[3])
host = registry.surroundings(None)
told = {"before": private(), "calls_us": None}
sensor = NvmlSensor(identifier=host.identifier, clock=clock.now, open_s=20.0, sys_folder=Path("/nowhere"))
if watch:
    sensor.open()
    sensor.read(clock.now())
began, cpu = time.monotonic(), time.process_time()
while time.monotonic() - began < seconds:
    time.sleep(1)
    if watch:
        sensor.read(clock.now())
told["cpu_s_per_min"] = (time.process_time() - cpu) / (time.monotonic() - began) * 60
told["after"] = private()
if watch:
    from probes.gpu.nvml import NvmlLibrary, binding
    from probes.gpu.sampler import Sampler
    nvml = NvmlLibrary(binding=binding())
    nvml.start()
    sampler = Sampler(nvml=nvml)
    sampler.discover()
    cpu = time.process_time()
    for second in range(rounds):
        sampler.sample(float(second))
    told["calls_us"] = (time.process_time() - cpu) / rounds * 1e6
    nvml.stop()
sensor.close()
print(json.dumps(told))
"""


@dataclass(frozen=True, slots=True)
class Watched:
    """One process: how many GPUs, and what it cost. None: nothing was sampled."""

    gpus: int
    round_us: float | None
    cpu_s_per_min: float
    added_mb: float
    seconds: float


def measure(*, seconds: float) -> list[Watched]:
    """Measure each number of GPUs for `seconds`."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            built = build(Path(folder))
        except (OSError, subprocess.CalledProcessError) as error:
            raise Unavailable(f"the fake library cannot be built: {error}") from error
        home = Path(folder) / "installed"
        home.mkdir()
        fake = FakeNvml(built=built, folder=home)
        machines = ((0, Machine()), (1, profiles.RTX_5090_LAPTOP), (8, profiles.EIGHT_GPUS))
        return [_watched(fake, gpus, machine, seconds=seconds) for gpus, machine in machines]


def _watched(fake: FakeNvml, gpus: int, machine: Machine, *, seconds: float) -> Watched:
    fake.become(machine)
    arguments = ["watch" if gpus else "sleep", str(seconds), str(_ROUNDS)]
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, *arguments],
        env=fake.environment(),
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    return Watched(
        gpus, told["calls_us"], told["cpu_s_per_min"], (told["after"] - told["before"]) / 1e6, seconds
    )


def table(rows: list[Watched]) -> str:
    """Render it as Markdown."""
    lines = [
        "| GPUs | CPU us a round | CPU-s/min at 1 s | private MB added | over s |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        each = "-" if row.round_us is None else f"{row.round_us:.0f}"
        name = "none (control)" if not row.gpus else str(row.gpus)
        lines.append(
            f"| {name} | {each} | {row.cpu_s_per_min:.3f} | {row.added_mb:.1f} | {row.seconds:.0f} |"
        )
    return "\n".join(lines)
