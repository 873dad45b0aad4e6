"""The contract on a real GPU: what the fake library is held to, the real one keeps as well."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from probes import recording
from probes.gpu.facts import pci_address
from probes.observation import GpuDriver, GpuState, Observation

pytestmark = pytest.mark.gpu
_ROOT = Path(__file__).resolve().parents[3]


def _told(load: str = "") -> tuple[int | None, list[Observation]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.probes.gpu.real_gpu", *([load] if load else [])],
        capture_output=True,
        text=True,
        check=True,
        cwd=_ROOT,
        timeout=120,
    )
    first, *lines = done.stdout.splitlines()
    return json.loads(first), list(recording.read(lines))


def _pids(told: list[Observation]) -> set[int | None]:
    states = [seen for seen in told if isinstance(seen, GpuState)]
    return {process.origin.pid for state in states for process in state.processes or ()}


def _in_first_pid_namespace() -> bool:
    return str(Path("/proc/self/ns/pid").readlink()) == "pid:[4026531836]"  # PROC_PID_INIT_INO of the kernel


def test_every_gpu_is_told_as_nvidia_smi_tells_it() -> None:
    """Identity agrees with NVIDIA's own tool; numbers make sense; what is missing has its code."""
    if shutil.which("nvidia-smi") is None:
        pytest.skip("needs nvidia-smi as a second witness")
    _, told = _told()
    query = ["nvidia-smi", "--query-gpu=uuid,name,pci.bus_id", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    rows = list(csv.reader(answer.splitlines()))
    states = [seen for seen in told if isinstance(seen, GpuState)]
    known = {(s.facts.gpu.uuid, s.facts.name, s.facts.gpu.pci) for s in states}
    assert known == {(row[0], row[1].strip(), pci_address(row[2].strip())) for row in rows}
    for facts in (state.facts for state in states):
        assert {item.code for item in facts.unread} <= {3, 4, 13}
        assert facts.sm_clock_mhz is not None
        assert facts.temperature_celsius is not None
        if facts.memory_used_bytes is not None and facts.memory_total_bytes is not None:
            assert 0 <= facts.memory_used_bytes <= facts.memory_total_bytes


def test_module_and_library_are_of_one_version() -> None:
    """A host that works has one version, told by the module, by NVML and by the file."""
    _, told = _told()
    driver = next(seen.facts for seen in told if isinstance(seen, GpuDriver))
    assert driver.module is not None
    assert driver.disk == driver.module
    assert (driver.loaded or "").endswith(driver.module)


def test_a_cuda_process_is_seen_placed_and_one_on_the_cpu_is_not() -> None:
    """By its host pid, with the bytes that it holds."""
    if not _in_first_pid_namespace():
        pytest.skip("NVML tells host pids, and this is a container")
    pid, told = _told("cuda")
    assert pid in _pids(told)
    held = [
        process.used_bytes
        for seen in told
        if isinstance(seen, GpuState)
        for process in seen.processes or ()
        if process.origin.pid == pid
    ]
    assert all(used is None or used >= 64 << 20 for used in held)
    pid, told = _told("cpu")
    assert pid not in _pids(told)
