"""Every machine of the fake NVML to the queue that a person reads: binding, sensor, detectors, wire, store.

The rows are asked for over HTTP from a real orchestrator, which took the reports over gRPC with mutual TLS.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx2
import pytest

from agent.gpus.placement import Placement, PlacementRule, Placements
from agent.testing import HOST, SURROUNDINGS, in_flight, memory, seeing, usage
from escalation.wire import codec
from probes.observation import Gap, Origin, Seeing, ServerKind
from tests.agent.test_gpu_cases import Host
from tests.escalation.server.site import TOKEN, Site, escalate, wired
from tests.fake_nvml import profiles
from tests.fake_nvml.fake import FakeNvml
from tests.fake_nvml.profiles import NO_INSTANCE, FakeGpu, Machine
from tests.probes.gpu.conftest import built, fake  # noqa: F401  # fixtures

Row = tuple[str, str, str, str, str]
"""Class, kind and name of the subject, severity, and kind of the recommended action."""

BLIND: Final[Row] = ("monitor.blind", "sensor", "gpu.nvml", "medium", "inspect")
LAPTOP: Final = ("gpu", "0000:01:00.0")
HERE: Final = ("host", HOST)
FALLEN_BACK: Final[frozenset[Row]] = frozenset(
    {("gpu.cpu_fallback", "unit", "vllm.service", "high", "restart_unit")}
)
REFUSED: Final[frozenset[Row]] = frozenset(
    {("memory.page_cache_refusal", "unit", "vllm.service", "medium", "human")}
)
SERVER: Final = Origin(unit="vllm.service", pid=os.getpid(), start_ticks=1, server=ServerKind.VLLM)


@dataclass(frozen=True, slots=True)
class Scene:
    """What happens on a machine, and the rows that a person then has before them."""

    happens: Callable[[FakeNvml, Host], None]
    rows: frozenset[Row] = frozenset()
    open_s: float = 10.0


def laptop(*further: str, **numbers: int) -> FakeGpu:
    """Return the laptop's GPU, changed."""
    return profiles.RTX_5090_LAPTOP.gpus[0].having(*further, **numbers)


def well(machine: Machine) -> Scene:
    """Return a machine that runs for an hour and is well."""

    def happens(nvml: FakeNvml, host: Host) -> None:
        nvml.become(machine)
        host.rounds(20)
        host.later(3600)
        host.rounds(20)

    return Scene(happens)


def kept_away(machine: Machine) -> Scene:
    """Return a machine whose library does not let itself be asked."""

    def happens(nvml: FakeNvml, host: Host) -> None:
        nvml.become(machine)
        for _ in range(4):
            host.look()
            host.later(31)

    return Scene(happens, frozenset({BLIND}))


def lost(nvml: FakeNvml, host: Host) -> None:
    """Lost before it could be asked anything."""
    nvml.become(profiles.GPU_LOST)
    host.until(host.misses)
    host.later(6)
    host.until(lambda: bool(host.open_cases()))


def mute(nvml: FakeNvml, host: Host) -> None:
    """It runs, and then nothing of it can be read: every call ends with a code that says nothing."""
    nvml.become(profiles.GB10)
    host.rounds(2)
    nvml.become(Machine((profiles.GB10.gpus[0].having("code all 999"),)))
    host.until(host.misses)
    host.later(46)
    host.until(lambda: bool(host.open_cases()))


def needs_reset(nvml: FakeNvml, host: Host) -> None:
    """Lost while it ran: it has to be reset."""
    nvml.become(profiles.RTX_5090_LAPTOP)
    host.rounds(2)
    nvml.become(profiles.RESET_REQUIRED)
    host.until(lambda: bool(host.open_cases()))


def advised(nvml: FakeNvml, host: Host) -> None:
    """An Xid of the device, and the driver advises a step."""
    nvml.become(Machine((laptop(),)))
    host.rounds(2)
    nvml.become(Machine((laptop(recovery_action=1).telling(1, 119).telling(2, 154),)))
    host.until(lambda: any(report.severity == "critical" for report in host.reports))


def mismatched(nvml: FakeNvml, host: Host) -> None:
    """The library is of another version than the module."""
    nvml.become(profiles.LIBRARY_MISMATCH)
    host.look()
    host.later(61)
    host.look()


def hanging(nvml: FakeNvml, host: Host) -> None:
    """A call that does not come back."""
    nvml.become(profiles.HANGING)
    host.until(lambda: any(isinstance(o, Gap) and not isinstance(o.coverage, Seeing) for o in host.seen))
    host.later(61)
    host.look()


def two_xids(nvml: FakeNvml, host: Host) -> None:
    """A program's error on one GPU, a fault of the device on the other."""
    one, other = profiles.TWO_GPUS_WITH_MIG.gpus
    nvml.become(Machine((one, other)))
    host.rounds(2)
    nvml.become(Machine((one.telling(1, 31), other.telling(3, 95))))
    host.until(lambda: len(host.open_cases()) == 2)


def both_lost(nvml: FakeNvml, host: Host) -> None:
    """All GPUs at once: the driver's, not theirs."""
    nvml.become(profiles.TWO_GPUS_WITH_MIG)
    host.rounds(3)
    nvml.become(profiles.TWO_GPUS_WITH_MIG.also("code nvmlDeviceGetClockInfo 15"))
    host.until(host.misses)
    host.later(6)
    host.until(lambda: bool(host.open_cases()))


def burns(machine: Machine) -> Callable[[FakeNvml, Host], None]:
    """Return: a server that is declared on the GPU keeps twelve cores busy with requests for a minute."""

    def happens(nvml: FakeNvml, host: Host) -> None:
        nvml.become(machine)
        host.rounds(3)
        host.take([dataclasses.replace(seeing(0, "host.servers"), at=host.now())])
        for second in range(0, 61, 5):
            host.later(5)
            host.rounds(2)
            work = usage(second, 12, pids=(os.getpid(),), where=SERVER)
            asked = in_flight(second, oldest_s=5, where=SERVER)
            host.take([dataclasses.replace(each, at=host.now()) for each in (asked, work)])

    return happens


def refuses_to_start(machine: Machine) -> Callable[[FakeNvml, Host], None]:
    """Return: vLLM starts three times under a full page cache."""

    def happens(nvml: FakeNvml, host: Host) -> None:
        nvml.become(machine)
        host.rounds(3)
        sees = (seeing(0, "host.memory"), seeing(0, "host.servers"))
        host.take([dataclasses.replace(each, at=host.now()) for each in sees])
        for _ in range(3):
            started = host.now()
            host.later(30)
            host.rounds(2)
            host.take([dataclasses.replace(memory(0, 52, free_gib=2.8), at=host.now())])
            life = usage(30, 1, where=SERVER)
            host.take([dataclasses.replace(life, started=started, at=host.now())])
            host.later(30)

    return happens


def capped(nvml: FakeNvml, host: Host) -> None:
    """Busy at a sixth of its clock, with no reason given."""
    slow = profiles.GB10.gpus[0].having(sm_clock=507, clock_reasons=0)
    nvml.become(profiles.GB10.with_gpu(0, slow))
    for _ in range(30):
        host.rounds(1)
        host.later(5)


def killed(nvml: FakeNvml, host: Host) -> None:
    """A process is killed: its 43 and 45 come as it leaves the GPU."""
    staying = profiles.LAPTOP.running(4101)
    nvml.become(Machine((staying.running(4102),)))
    host.rounds(3)
    nvml.become(Machine((staying.telling(1, 43).telling(2, 45),)))
    host.rounds(30)
    host.later(120)
    host.rounds(3)


def garbage(nvml: FakeNvml, host: Host) -> None:
    """A GPU at rest, and one whose numbers make no sense."""
    idle = laptop(sm_clock=180, utilisation=0, clock_reasons=1, power=6_000)
    mad = profiles.EIGHT_GPUS.gpus[0].having(
        f"process compute {2**31} 18446744073709551615 {NO_INSTANCE} {NO_INSTANCE}",
        sm_clock=2**32 - 1,
        utilisation=4_000_000,
        power=2**32 - 1,
        temperature=2**31 - 1,
    )
    nvml.become(Machine((idle, mad)))
    host.rounds(40)
    host.later(3600)
    host.rounds(20)


def listed(machine: Machine) -> Machine:
    """Return the machine with this process on its first GPU."""
    return machine.with_gpu(0, machine.gpus[0].running(os.getpid()))


SCENES: Final = {
    "well: laptop": well(profiles.RTX_5090_LAPTOP),
    "well: MIG": well(profiles.TWO_GPUS_WITH_MIG),
    "well: GB10": well(profiles.GB10),
    "well: eight GPUs": well(profiles.EIGHT_GPUS),
    "well: no GPU": well(Machine()),
    "well: burns cores, listed, laptop": Scene(burns(listed(profiles.RTX_5090_LAPTOP))),
    "well: burns cores, listed, GB10": Scene(burns(listed(profiles.GB10))),
    "well: killed process": Scene(killed),
    "well: idle and garbage": Scene(garbage),
    "no driver": kept_away(profiles.NO_DRIVER),
    "no permission": kept_away(profiles.NO_PERMISSION),
    "no library": kept_away(Machine().also("code nvmlInitWithFlags 12")),
    "hanging": Scene(hanging, frozenset({BLIND}), open_s=0.5),
    "lost": Scene(lost, frozenset({("gpu.device_fault", "gpu", "index 0", "high", "human")})),
    "mute": Scene(mute, frozenset({("gpu.device_fault", "gpu", "000f:01:00.0", "high", "human")})),
    "needs a reset": Scene(needs_reset, frozenset({("gpu.device_fault", *LAPTOP, "high", "human")})),
    "a step is advised": Scene(advised, frozenset({("gpu.device_fault", *LAPTOP, "critical", "human")})),
    "library and module differ": Scene(
        mismatched, frozenset({BLIND, ("gpu.driver_mismatch", *HERE, "high", "human")})
    ),
    "Xids of two GPUs": Scene(
        two_xids,
        frozenset(
            {
                ("gpu.application_xid", "gpu", "0000:1b:00.0", "note", "inspect"),
                ("gpu.device_fault", "gpu", "0000:43:00.0", "high", "human"),
            }
        ),
    ),
    "both lost": Scene(both_lost, frozenset({("gpu.driver_mismatch", *HERE, "note", "human")})),
    "burns cores, not listed, laptop": Scene(burns(profiles.RTX_5090_LAPTOP), FALLEN_BACK),
    "burns cores, not listed, MIG": Scene(burns(profiles.TWO_GPUS_WITH_MIG), FALLEN_BACK),
    "burns cores, not listed, GB10": Scene(burns(profiles.GB10), FALLEN_BACK),
    "refuses to start: GB10": Scene(refuses_to_start(profiles.GB10), REFUSED),
    "refuses to start: laptop": Scene(refuses_to_start(profiles.RTX_5090_LAPTOP)),
    "capped clock": Scene(capped, frozenset({("gpu.clocks_capped", "gpu", "000f:01:00.0", "note", "human")})),
}


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
async def test_what_happens_on_a_machine_is_what_stands_in_the_queue(
    fake: FakeNvml,  # noqa: F811
    orchestrator: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scene: Scene,
) -> None:
    """Each row by class, subject, severity and kind of action; what is well, or looks alike, has none.

    The operator of the host declared that its server is on the GPU.
    """
    if scene.open_s < 1:
        monkeypatch.setattr("probes.gpu.worker.CALL_S", 0.1)
        monkeypatch.setattr("probes.gpu.worker.START_S", 0.1)
    rules = Placements.of((PlacementRule(unit="vllm.service", on=Placement.GPU),))
    surroundings = dataclasses.replace(SURROUNDINGS, placements=rules)
    host = Host(proc=tmp_path / "proc", surroundings=surroundings, open_s=scene.open_s)
    with contextlib.closing(host.sensor):
        scene.happens(fake, host)
    assert await rows_of(host, orchestrator) == scene.rows


async def rows_of(host: Host, orchestrator: Site) -> set[Row]:
    """Send what the host reports, and return the rows that a person is shown."""
    batch = codec.join([wired(body, number, host=HOST) for number, body in enumerate(host.reports, start=1)])
    async with orchestrator.channel(orchestrator.authority.agent(HOST)) as channel:
        acks = await escalate(channel, batch) if host.reports else []
    assert [ack.sequence for ack in acks][-1:] == [len(host.reports)][: len(host.reports)]
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx2.AsyncClient(base_url=orchestrator.url, headers=headers) as people:
        entries = (await people.get("/api/v1/queue")).json()["entries"]
    return {
        (
            entry["fault_class"],
            entry["subject"]["kind"],
            entry["subject"]["name"],
            entry["severity"],
            entry["action"]["kind"],
        )
        for entry in entries
    }
