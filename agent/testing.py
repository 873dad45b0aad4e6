"""Doubles for the agent's ports and builders for its inputs: working, typed, and part of the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.detector import Detector, Surroundings, Tick, World
from agent.finding import Finding, OpenCase, Place, Verdict
from escalation.model import AgentId, FaultClass, Subject
from probes.observation import (
    Blind,
    BlindReason,
    CgroupId,
    DeviceOpens,
    FatalSignal,
    Gap,
    Instant,
    Listener,
    ListenerClosed,
    ListenerInventory,
    ListenerOpened,
    NvidiaDevice,
    OomKill,
    OomScope,
    Origin,
    Seeing,
    SensorName,
    ServerKind,
)

HOST = AgentId("spark-1")
KERNEL_BOOT = "0d3f3f1e-0000-4000-8000-000000000001"
SURROUNDINGS = Surroundings(host=HOST, kernel_boot_id=KERNEL_BOOT)
CONTAINER = "c0ffee" * 10 + "c0ff"
CGROUP_PATH = f"/system.slice/docker-{CONTAINER}.scope"


def at(seconds: float) -> Instant:
    """Return the moment `seconds` after an arbitrary start, on both clocks."""
    return Instant(
        boot_ns=1_000_000_000 + int(seconds * 1e9), unix_ns=1_790_000_000_000_000_000 + int(seconds * 1e9)
    )


def origin(
    *,
    container: str | None = CONTAINER,
    unit: str | None = None,
    cgroup_id: int | None = 2305,
    cgroup_path: str | None = CGROUP_PATH,
    pid: int | None = 4711,
    name: str = "VLLM::EngineCor",
    server: ServerKind = ServerKind.VLLM,
) -> Origin:
    """Return a vLLM engine in a container, unless told otherwise."""
    return Origin(
        cgroup_id=None if cgroup_id is None else CgroupId(cgroup_id),
        cgroup_path=cgroup_path,
        unit=unit,
        container_id=container,
        pid=pid,
        start_ticks=100,
        process_name=name,
        server=server,
    )


def opens(
    seconds: float,
    errno: int,
    *,
    device: NvidiaDevice = NvidiaDevice.CONTROL,
    minor: int | None = None,
    prior: int = 0,
    count: int = 1,
    where: Origin | None = None,
) -> DeviceOpens:
    """Return opens of one device node that ended with `errno`."""
    return DeviceOpens(
        sensor=SensorName("kernel.device_open"),
        at=at(seconds),
        origin=where or origin(),
        device=device,
        minor=minor,
        errno=errno,
        count=count,
        prior_successes=prior,
    )


def oom_kill(
    seconds: float, *, scope: OomScope = OomScope.CGROUP, kills: int | None = 1, where: Origin | None = None
) -> OomKill:
    """Return one kill by the kernel's OOM killer."""
    return OomKill(
        sensor=SensorName("kernel.oom_kill"),
        at=at(seconds),
        origin=where or origin(),
        scope=scope,
        anon_rss_bytes=64 << 20,
        limit_bytes=64 << 20,
        kills_in_cgroup=kills,
    )


def death(seconds: float, signal: int, *, code: int = 1, where: Origin | None = None) -> FatalSignal:
    """Return one process ended by `signal`."""
    return FatalSignal(
        sensor=SensorName("kernel.fatal_signal"),
        at=at(seconds),
        origin=where or origin(),
        signal=signal,
        code=code,
    )


def listener(address: str, port: int = 8000, *, where: Origin | None = None) -> Listener:
    """Return one listening socket."""
    return Listener(address=address, port=port, origin=where or origin())


def opened(
    seconds: float, address: str, *, port: int = 8000, confirmed: bool | None = True
) -> ListenerOpened:
    """Return a socket that began to listen."""
    return ListenerOpened(SensorName("kernel.listener"), at(seconds), listener(address, port), confirmed)


def closed(
    seconds: float, address: str, *, port: int = 8000, confirmed: bool | None = True
) -> ListenerClosed:
    """Return a socket that stopped listening."""
    return ListenerClosed(SensorName("kernel.listener"), at(seconds), listener(address, port), confirmed)


def inventory(
    seconds: float, *listeners: Listener, addresses: Mapping[str, str] | None = None
) -> ListenerInventory:
    """Return the whole socket table of a host with a loopback, a LAN and a mesh address."""
    own = addresses or {"127.0.0.1": "lo", "192.168.1.7": "eth0", "100.90.1.2": "tailscale0"}
    return ListenerInventory(SensorName("host.listeners"), at(seconds), listeners, tuple(own.items()))


def seeing(seconds: float, sensor: str, *, lost: int = 0) -> Gap:
    """Return the word that `sensor` sees, after losing `lost` samples."""
    return Gap(SensorName(sensor), at(seconds), Seeing(), lost)


def blind(seconds: float, sensor: str, reason: BlindReason = BlindReason.READ_FAILED) -> Gap:
    """Return the word that `sensor` sees nothing."""
    return Gap(SensorName(sensor), at(seconds), Blind(reason, "for a test"))


def open_case(
    fault: FaultClass, subject: Subject, *, last_seen: Instant | None = None, place: Place | None = None
) -> OpenCase:
    """Return a case that stands open."""
    return OpenCase(
        fault_class=fault, subject=subject, place=place, last_seen=last_seen or at(0), evidence=()
    )


def tick(seconds: float, *cases: OpenCase, world: World | None = None) -> Tick:
    """Return the passing of time, with what stands open."""
    return Tick(now=at(seconds), open_cases=cases, world=world or World())


def present(detector: Detector, *observations: object) -> Sequence[Finding]:
    """Feed `observations` and return the findings that say a fault is there."""
    return [
        found
        for observation in observations
        for found in (
            detector.tick(observation) if isinstance(observation, Tick) else detector.observe(observation)  # type: ignore[arg-type]  # a test passes what it likes
        )
        if found.verdict is Verdict.PRESENT
    ]
