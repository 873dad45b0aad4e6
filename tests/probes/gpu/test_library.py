"""How the library is found, in processes of their own, and the header that the fake is built with."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fake_nvml import profiles
from tests.fake_nvml.fake import FakeNvml
from tests.fake_nvml.header import STRUCTURES, header

_ROOT = Path(__file__).resolve().parents[3]
_OPEN = """
import json, sys, time
from pathlib import Path
from probes import registry
from probes.gpu.sensor import NvmlSensor
from probes.host import clock
from probes.sensor import SensorBlind
host = registry.surroundings(None)
sensor = NvmlSensor(identifier=host.identifier, clock=clock.now, open_s=20.0, sys_folder=Path(sys.argv[1]))
told = {"blind": None, "seen": []}
try:
    sensor.open()
    while not told["seen"]:
        told["seen"] = [type(o).__name__ for o in sensor.read(clock.now())]
        time.sleep(0.01)
except SensorBlind as error:
    told["blind"] = [error.blind.reason.value, error.last[0].why.value, error.last[0].code]
sensor.close()
told["imported"] = "pynvml" in sys.modules
print(json.dumps(told))
"""


def _open(environment: dict[str, str], sys_folder: Path, *, hide_binding: bool = False) -> Any:
    script = "import sys; sys.modules['pynvml'] = None\n" + _OPEN if hide_binding else _OPEN
    done = subprocess.run(
        [sys.executable, "-c", script, str(sys_folder)],
        capture_output=True,
        text=True,
        check=True,
        cwd=_ROOT,
        env=environment,
        timeout=50,
    )
    return json.loads(done.stdout)


def _bus(folder: Path, *, gpu: bool) -> Path:
    devices = folder / "bus" / "pci" / "devices"
    devices.mkdir(parents=True)
    if gpu:
        (devices / "000f:01:00.0").mkdir()
        (devices / "000f:01:00.0" / "vendor").write_text("0x10de\n")
        (devices / "000f:01:00.0" / "class").write_text("0x030200\n")
    return folder


def test_the_library_is_found_by_its_name(fake: FakeNvml, tmp_path: Path) -> None:
    """The binding's own loader finds what the dynamic loader finds."""
    fake.become(profiles.GB10)
    told = _open(fake.environment(), _bus(tmp_path / "sys", gpu=True))
    assert told == {"blind": None, "seen": ["GpuDriver", "GpuState"], "imported": True}


def _skip_where_it_is_installed() -> None:
    script = "import ctypes; ctypes.CDLL('libnvidia-ml.so.1')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, timeout=50)
    if done.returncode == 0:
        pytest.skip("needs a machine without NVIDIA's library")


def test_a_gpu_without_a_library_is_blindness(tmp_path: Path) -> None:
    """The bus shows a GPU, and nothing can be asked about it."""
    _skip_where_it_is_installed()
    environment = {k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"}
    told = _open(environment, _bus(tmp_path, gpu=True))
    assert told["blind"] == ["no_nvml", "no_library", 12]


def test_a_gpu_without_the_binding_is_blindness(fake: FakeNvml, tmp_path: Path) -> None:
    """The package is missing in the agent's environment; the code is nobody's."""
    fake.become(profiles.GB10)
    told = _open(fake.environment(), _bus(tmp_path / "sys", gpu=True), hide_binding=True)
    assert told["blind"] == ["no_nvml", "no_binding", None]


def test_a_bare_host_never_loads_the_binding(tmp_path: Path) -> None:
    """No GPU, no library: one observation, and no memory for what cannot be used."""
    _skip_where_it_is_installed()
    environment = {k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"}
    told = _open(environment, _bus(tmp_path, gpu=False))
    assert told == {"blind": None, "seen": ["GpuAbsent"], "imported": False}


def test_the_header_is_written_from_the_binding() -> None:
    """Every structure that crosses the border is checked by the compiler, field by field."""
    text = header()
    for name, kind in STRUCTURES.items():
        assert f"sizeof({name}) == {ctypes.sizeof(kind)}" in text
        for field, *_ in kind._fields_:
            assert f"offsetof({name}, {field}) == {getattr(kind, field).offset}" in text
    assert "#define NVML_ERROR_GPU_IS_LOST 15\n" in text
