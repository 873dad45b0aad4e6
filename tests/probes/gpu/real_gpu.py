"""What a real GPU says, as lines of a recording; a program of its own, so that no fake library is near.

    python -m tests.probes.gpu.real_gpu [cuda|cpu]

`cuda` starts a process that takes 64 MiB of the first GPU through libcuda, `cpu` one that only computes. The
first line is the process's pid, or null; then come the observations of three rounds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

from probes import recording, registry
from probes.gpu.sensor import NvmlSensor
from probes.host import clock
from probes.observation import GpuState

_CUDA = """
import ctypes, time
cuda = ctypes.CDLL("libcuda.so.1")
device, context, memory = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
for code in (
    cuda.cuInit(0),
    cuda.cuDeviceGet(ctypes.byref(device), 0),
    cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device),
    cuda.cuCtxSetCurrent(context),
    cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(64 << 20)),
):
    assert code == 0, code
print("ready", flush=True)
time.sleep(60)
"""
_CPU = """
import time
print("ready", flush=True)
until = time.monotonic() + 60
while time.monotonic() < until:
    pass
"""


def main() -> None:
    """Open the sensor as the agent does, and print three rounds."""
    load = {"cuda": _CUDA, "cpu": _CPU}.get(sys.argv[1] if len(sys.argv) > 1 else "")
    started = None
    if load is not None:
        started = subprocess.Popen([sys.executable, "-c", load], stdout=subprocess.PIPE, text=True)
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
    print(json.dumps(started.pid if started else None))
    host = registry.surroundings(None)
    sensor = NvmlSensor(identifier=host.identifier, clock=clock.now, open_s=30.0)
    sensor.open()
    rounds = 0
    try:
        while rounds < 3:
            told = sensor.read(clock.now())
            for seen in told:
                print(recording.to_line(seen))
            rounds += any(isinstance(seen, GpuState) for seen in told)
            time.sleep(1)
    finally:
        sensor.close()
        if started is not None:
            started.kill()
            started.wait()


if __name__ == "__main__":
    main()
