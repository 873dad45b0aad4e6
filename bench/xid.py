"""How long an Xid takes to become a committed row of the queue, as a watcher of the queue sees it.

The fake library stands in for the driver; everything after it is real: NVIDIA's binding, the sensor's waiting
thread, the agent without privilege, outbox, mutual TLS, the orchestrator's commit. The clock starts when the
library's state is put in place and stops when the committed row arrives. A GPU has two rows, one of a
program's error and one of a device fault, so each host of the measurement has eight GPUs and gives 16 events.
"""

from __future__ import annotations

import contextlib
import queue
import re
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import httpx2

from bench.latency import Arrival, Row, watching
from bench.rig import Agent, Unavailable, orchestrator, watched
from tests.fake_nvml import profiles
from tests.fake_nvml.fake import FakeNvml, build
from tests.fake_nvml.profiles import FakeGpu, Machine

_NUMBERS: Final = ((31, "gpu.application_xid"), (95, "gpu.device_fault"))
_GPUS: Final = len(profiles.EIGHT_GPUS.gpus)
_PATIENCE_S: Final = 10.0
_PAUSE_S: Final = 0.37


def measure(*, events: int) -> list[Row]:
    """Time at least `events` Xids, on as many hosts as it takes."""
    per_host = _GPUS * len(_NUMBERS)
    hosts = [f"bench-{number}" for number in range(-(-events // per_host))]
    figures: list[float] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
        folder.chmod(0o755)
        try:
            built = build(folder)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Unavailable(f"the fake library cannot be built: {error}") from error
        server = stack.enter_context(orchestrator(agents=hosts))
        arrivals = stack.enter_context(watching(server))
        for host in hosts:
            home = folder / host
            home.mkdir()
            fake = FakeNvml(built=built, folder=home)
            fake.become(profiles.EIGHT_GPUS)
            with watched(server, host=host, environment=fake.environment()) as agent:
                _until_seen(agent)
                figures += _times(fake, arrivals)
    return [Row("Xid by NVML (wakes the agent)", tuple(figures))]


def _times(fake: FakeNvml, arrivals: queue.Queue[Arrival]) -> list[float]:
    """Raise one Xid of each kind on each GPU, one after the other, and time each row in milliseconds."""
    gpus: list[FakeGpu] = list(profiles.EIGHT_GPUS.gpus)
    figures = []
    for serial in range(_GPUS * len(_NUMBERS)):
        number, fault_class = _NUMBERS[serial // _GPUS]
        index = serial % _GPUS
        gpus[index] = gpus[index].telling(serial + 1, number)
        time.sleep(_PAUSE_S)  # no multiple of any period, so that each comes at another moment of them
        while not arrivals.empty():
            arrivals.get_nowait()
        began_ns = time.time_ns()
        fake.become(Machine(tuple(gpus)))
        figures.append((_arrival(arrivals, fault_class).at_ns - began_ns) / 1e6)
    return figures


def _arrival(arrivals: queue.Queue[Arrival], fault_class: str) -> Arrival:
    deadline = time.monotonic() + _PATIENCE_S
    while (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(queue.Empty):
            arrival = arrivals.get(timeout=left)
            if arrival.fault_class == fault_class:
                return arrival
    raise Unavailable(f"no {fault_class} within {_PATIENCE_S:.0f} s of its Xid")


def _until_seen(agent: Agent) -> None:
    """Wait until the sensor sees and has had its first rounds."""
    deadline = time.monotonic() + _PATIENCE_S
    wanted = re.compile(r'^nanobot_agent_sensor_seeing\{sensor="gpu\.nvml"\} 1\.0$', re.MULTILINE)
    while wanted.search(httpx2.get(agent.metrics_url, timeout=2).text) is None:
        if time.monotonic() > deadline:
            raise Unavailable("the agent does not see the fake GPUs")
        time.sleep(0.05)
    time.sleep(2)
