"""Machines that the fake library can be, as the statements of its state file.

A state file has one statement a line. Before the first `gpu`: `module VERSION` (the loaded driver; another
than the library's makes init end with 18), `driver TEXT`, `nvml TEXT`, `count N` (claim so many GPUs),
`code CALL N` (the call ends with N; `all` is every call) and `hang CALL` (it blocks until the file no longer
says so). After a `gpu`: `uuid`, `name`, `pci DOMAIN:BUS:DEVICE`, `set NUMBER VALUE`,
`process compute|graphics PID BYTES GPU_INSTANCE COMPUTE_INSTANCE`,
`mig UUID GPU_INSTANCE COMPUTE_INSTANCE TOTAL USED`,
`event SERIAL TYPE DATA GPU_INSTANCE COMPUTE_INSTANCE`, and `code` and `hang` for this GPU alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

VERSION: Final = "575.57.08"
NO_INSTANCE: Final = 0xFFFFFFFF
NOT_AVAILABLE: Final = 2**64 - 1
XID_EVENT: Final = 0x8
RECOVERY_EVENT: Final = 0x8000
UNAVAILABLE_EVENT: Final = 0x4000
GIB: Final = 2**30


@dataclass(frozen=True, slots=True)
class FakeGpu:
    """One GPU: its name and address, its numbers, and further statements."""

    uuid: str
    name: str
    pci: str
    numbers: dict[str, int]
    further: tuple[str, ...] = ()

    def having(self, *further: str, **numbers: int) -> FakeGpu:
        """Return the GPU with more statements and other numbers."""
        return replace(self, numbers=self.numbers | numbers, further=self.further + further)

    def lacking(self, *names: str) -> FakeGpu:
        """Return the GPU without these numbers: their calls are not supported."""
        return replace(self, numbers={k: v for k, v in self.numbers.items() if k not in names})

    def running(self, pid: int, used_bytes: int = GIB, *, kind: str = "compute") -> FakeGpu:
        """Return the GPU with one more process."""
        return self.having(f"process {kind} {pid} {used_bytes} {NO_INSTANCE} {NO_INSTANCE}")

    def telling(self, serial: int, data: int, *, type_: int = XID_EVENT) -> FakeGpu:
        """Return the GPU with one more event; serials rise over all GPUs."""
        return self.having(f"event {serial} {type_} {data} {NO_INSTANCE} {NO_INSTANCE}")

    def statements(self) -> list[str]:
        """Return the lines of this GPU."""
        numbers = [f"set {name} {value}" for name, value in self.numbers.items()]
        return ["gpu", f"uuid {self.uuid}", f"name {self.name}", f"pci {self.pci}", *numbers, *self.further]


@dataclass(frozen=True, slots=True)
class Machine:
    """What the library finds: GPUs, and statements that hold for all of them."""

    gpus: tuple[FakeGpu, ...] = ()
    common: tuple[str, ...] = field(default=())

    def also(self, *common: str) -> Machine:
        """Return the machine with more statements that hold for every GPU."""
        return replace(self, common=self.common + common)

    def with_gpu(self, index: int, gpu: FakeGpu) -> Machine:
        """Return the machine with another GPU in this place."""
        return replace(self, gpus=(*self.gpus[:index], gpu, *self.gpus[index + 1 :]))

    def text(self) -> str:
        """Return the state file."""
        lines = [*self.common, *(line for gpu in self.gpus for line in gpu.statements())]
        return "\n".join(lines) + "\n"


_LOADED: Final = {
    "sm_clock": 2407,
    "sm_clock_max": 3090,
    "utilisation": 93,
    "utilisation_memory": 41,
    "power": 148_200,
    "power_limit": 175_000,
    "temperature": 71,
    "clock_reasons": 0x4,
    "mig_mode": 0,
    "recovery_action": 0,
    "event_types": 0xD01F,
}

LAPTOP: Final = FakeGpu(
    uuid="GPU-5090aaaa-0000-4000-8000-000000000001",
    name="NVIDIA GeForce RTX 5090 Laptop GPU",
    pci="0:1:0",
    numbers={k: v for k, v in _LOADED.items() if k != "mig_mode"}
    | {"memory_total": 24 * GIB, "memory_used": 17 * GIB},
)
"""A consumer part: no ECC, no row remapping, no MIG."""

_SERVER: Final = FakeGpu(
    uuid="GPU-b200aaaa-0000-4000-8000-00000000000a",
    name="NVIDIA B200",
    pci="0:1b:0",
    numbers=_LOADED
    | {
        "memory_total": 180 * GIB,
        "memory_used": 120 * GIB,
        "power": 870_000,
        "power_limit": 1_000_000,
        "ecc_volatile": 0,
        "ecc_aggregate": 2,
        "remap_correctable": 0,
        "remap_uncorrectable": 1,
        "remap_pending": 0,
        "remap_failed": 0,
    },
)
_MIG: Final = replace(_SERVER, uuid="GPU-b200aaaa-0000-4000-8000-00000000000b", pci="0:43:0").having(
    f"mig MIG-11111111-0000-4000-8000-000000000001 1 0 {44 * GIB} {30 * GIB}",
    f"mig MIG-22222222-0000-4000-8000-000000000002 2 0 {44 * GIB} {GIB}",
    f"process compute 4201 {29 * GIB} 1 0",
    mig_mode=1,
)
_GB10: Final = FakeGpu(
    uuid="GPU-6b10aaaa-0000-4000-8000-00000000001f",
    name="NVIDIA GB10",
    pci="f:1:0",
    numbers=_LOADED | {"sm_clock": 2405, "sm_clock_max": 3003, "power": 38_000},
).lacking("mig_mode", "power_limit")
"""One GPU that shares the system's memory: asked for its own, it answers NVML_ERROR_NOT_SUPPORTED."""

RTX_5090_LAPTOP: Final = Machine((LAPTOP.running(4101, 16 * GIB).running(1200, GIB, kind="graphics"),))
TWO_GPUS_WITH_MIG: Final = Machine((_SERVER.running(4200, 100 * GIB), _MIG.lacking("utilisation")))
GB10: Final = Machine((_GB10.running(4301, 90 * GIB),))
EIGHT_GPUS: Final = Machine(
    tuple(
        replace(
            _SERVER, uuid=f"GPU-b200aaaa-0000-4000-8000-0000000000{n:02x}", pci=f"0:{0x10 + n:x}:0"
        ).running(5000 + n, 100 * GIB)
        for n in range(8)
    )
)
LIBRARY_MISMATCH: Final = RTX_5090_LAPTOP.also("module 580.65.06")
NO_DRIVER: Final = Machine().also("code nvmlInitWithFlags 9")
NO_PERMISSION: Final = Machine().also("code nvmlInitWithFlags 4")
GPU_LOST: Final = Machine((LAPTOP.having("code all 15"),))
RESET_REQUIRED: Final = Machine((LAPTOP.having("code all 16"),))
HANGING: Final = RTX_5090_LAPTOP.also("hang nvmlDeviceGetUtilizationRates")
