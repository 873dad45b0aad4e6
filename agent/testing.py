"""Builders for the agent's inputs, typed, and part of the package.

Longer than other modules because it has one short builder for every kind of observation that a detector is
shown, and tests find all of them in one place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.detector import Detector, Surroundings, Tick, World
from agent.finding import Finding, OpenCase, Place, Verdict
from escalation.model import (
    AgentId,
    CaseId,
    CasePhase,
    CaseReport,
    Evidence,
    FaultClass,
    Incarnation,
    RouteEvidence,
    RouteId,
    RouteKind,
    ServerKind as WireServerKind,
    Severity,
    Subject,
    SubjectKind,
)
from probes.gpu.facts import Absence, DriverFacts, GpuFacts, GpuIdentity, ProcessKind, XidFacts, XidSource
from probes.http.facts import (
    Ending,
    ExchangeFacts,
    FinishReason,
    FlightFacts,
    Route,
    RouteName,
    TextMeasure,
    UnobservedFacts,
    UnobservedReason,
)
from probes.observation import (
    AskingFailed,
    Blind,
    BlindReason,
    CgroupId,
    DeviceOpens,
    Exchange,
    FatalSignal,
    Gap,
    GaugeRead,
    GpuAbsent,
    GpuDriver,
    GpuProcess,
    GpuState,
    GpuXid,
    Instant,
    Listener,
    ListenerClosed,
    ListenerInventory,
    ListenerOpened,
    LogCapture,
    LogLine,
    ManagerReloaded,
    MemoryState,
    NvidiaDevice,
    OomKill,
    OomScope,
    Origin,
    RequestsInFlight,
    Seeing,
    SensorName,
    ServerGauge,
    ServerKind,
    ServerMetrics,
    ServerUsage,
    Sessions,
    Suspended,
    Unobserved,
    UsageSource,
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
    name: str | None = "VLLM::EngineCor",
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


def text(
    characters: int = 400,
    *,
    repeated: float = 0.05,
    longest_run: int = 3,
    whitespace: float = 0.17,
    undecodable: float = 0.0,
) -> TextMeasure:
    """Return the measure of ordinary prose, unless told otherwise."""
    return TextMeasure(
        characters=characters,
        repeated=repeated,
        longest_run=longest_run,
        whitespace=whitespace,
        distinct=min(1.0, 40 / max(1, characters)),
        entropy_bits=4.2,
        undecodable=undecodable,
    )


def exchange(
    seconds: float,
    *,
    port: int = 8000,
    route: Route = Route.CHAT_COMPLETIONS,
    model: str | None = "qwen3-32b",
    where: Origin | None = None,
    **facts: Any,
) -> Exchange:
    """Return a whole, good answer to a request of 2 KB that ends at `seconds`; `facts` say what differs."""
    end = at(seconds)
    usual: dict[str, Any] = {
        "status": 200,
        "ending": Ending.COMPLETE,
        "finish": FinishReason.STOP,
        "request_bytes": 2048,
        "response_bytes": 1200,
        "duration_s": 4.0,
        "first_byte_s": 0.4,
        "choices_seen": True,
        "content_characters": 400,
        "content": text(),
        "prompt_tokens": 480,
        "completion_tokens": 100,
        "max_tokens": 4096,
    }
    if facts.get("streamed"):
        usual |= {"first_token_s": 0.4, "longest_gap_s": 0.1, "chunks": 100, "stream_asked": True}
    if not facts.get("content_characters", 1):
        usual["content"] = None
    return Exchange(
        sensor=SensorName("http.routes"),
        at=end,
        origin=where or origin(),
        facts=ExchangeFacts(
            name=RouteName(port, route, model), at_ns=end.boot_ns, cgroup_id=2305, **(usual | facts)
        ),
    )


def in_flight(
    seconds: float,
    *,
    port: int = 8000,
    route: Route = Route.CHAT_COMPLETIONS,
    model: str | None = "qwen3-32b",
    requests: int = 2,
    waiting: int | None = None,
    oldest_s: float = 10.0,
    silent_s: float | None = None,
    largest_request_bytes: int = 2048,
    where: Origin | None = None,
) -> RequestsInFlight:
    """Return requests that wait, all of them for their first byte unless told otherwise."""
    moment = at(seconds)
    return RequestsInFlight(
        sensor=SensorName("http.routes"),
        at=moment,
        origin=where or origin(),
        facts=FlightFacts(
            name=RouteName(port, route, model),
            at_ns=moment.boot_ns,
            cgroup_id=2305,
            requests=requests,
            waiting=requests if waiting is None else waiting,
            oldest_s=oldest_s,
            silent_s=oldest_s if silent_s is None else silent_s,
            largest_request_bytes=largest_request_bytes,
        ),
    )


def unobserved(
    seconds: float, *, port: int = 8000, reason: UnobservedReason = UnobservedReason.LOST, count: int = 1
) -> Unobserved:
    """Return traffic of a port that could not be judged."""
    moment = at(seconds)
    return Unobserved(
        sensor=SensorName("http.routes"),
        at=moment,
        origin=origin(),
        facts=UnobservedFacts(port=port, reason=reason, count=count, at_ns=moment.boot_ns),
    )


def server_metrics(
    seconds: float,
    *,
    port: int = 8000,
    server: ServerKind = ServerKind.VLLM,
    failure: AskingFailed | None = None,
    **gauges: float,
) -> ServerMetrics:
    """Return what a server told of itself; each gauge by its name."""
    return ServerMetrics(
        sensor=SensorName("host.server_metrics"),
        at=at(seconds),
        server=server,
        port=port,
        gauges=tuple(GaugeRead(ServerGauge(name), float(value)) for name, value in gauges.items()),
        failure=failure,
    )


def memory(
    seconds: float,
    available_gib: float,
    *,
    total_gib: float = 128,
    free_gib: float = 1,
    full: float | None = 0.0,
    stalls: int = 0,
    swapped_in: int = 0,
) -> MemoryState:
    """Return how the memory of a host of 128 GiB stands, with nothing stalling unless told otherwise."""
    gib = 1 << 30
    return MemoryState(
        sensor=SensorName("host.memory"),
        at=at(seconds),
        total_bytes=int(total_gib * gib),
        available_bytes=int(available_gib * gib),
        free_bytes=int(free_gib * gib),
        cached_bytes=0,
        swap_total_bytes=8 * gib,
        swap_free_bytes=gib,
        some_avg10=full,
        full_avg10=full,
        window_s=2.0,
        full_stalled_s=0.0,
        allocation_stalls=stalls,
        swapped_in_pages=swapped_in,
        major_faults=0,
        oom_kills=0,
    )


def usage(
    seconds: float,
    cores: float,
    *,
    port: int = 8000,
    pids: tuple[int, ...] = (4711,),
    started: float = 0,
    where: Origin | None = None,
) -> ServerUsage:
    """Return what a model server used of the processor in the five seconds before."""
    return ServerUsage(
        sensor=SensorName("host.servers"),
        at=at(seconds),
        origin=where or origin(),
        started=at(started),
        port=port,
        cores=cores,
        window_s=5.0,
        source=UsageSource.CGROUP,
        pids=pids,
    )


def reloaded(seconds: float) -> ManagerReloaded:
    """Return the word that the service manager read its units again."""
    return ManagerReloaded(SensorName("host.manager"), at(seconds))


def slept(seconds: float, slept_s: float = 3600) -> Suspended:
    """Return the word that the host woke from a sleep."""
    return Suspended(SensorName("host.suspend"), at(seconds), slept_s)


def gpu_state(
    seconds: float,
    *processes: Origin,
    index: int = 0,
    pci: str = "000f:01:00.0",
    listed: bool = True,
    name: str = "NVIDIA GB10",
    **facts: Any,
) -> GpuState:
    """Return one GPU with these compute processes; unlisted, it does not tell them. Facts are GpuFacts'."""
    return GpuState(
        sensor=SensorName("gpu.nvml"),
        at=at(seconds),
        facts=GpuFacts(gpu=GpuIdentity(uuid=f"GPU-{index}", pci=pci, index=index), name=name, **facts),
        processes=tuple(GpuProcess(one, ProcessKind.COMPUTE, None, None, None) for one in processes)
        if listed
        else None,
    )


def gpu_absent(
    seconds: float, why: Absence, *, code: int | None = None, pci: str | None = None, index: int = 0
) -> GpuAbsent:
    """Return that a GPU, or without an address every GPU, cannot be read."""
    gpu = None if pci is None else GpuIdentity(uuid=f"GPU-{index}", pci=pci, index=index)
    return GpuAbsent(sensor=SensorName("gpu.nvml"), at=at(seconds), gpu=gpu, why=why, code=code)


def xid(
    seconds: float,
    number: int,
    *,
    pci: str | None = "000f:01:00.0",
    source: XidSource = XidSource.NVML,
    where: Origin | None = None,
    gpu_instance: int | None = None,
) -> GpuXid:
    """Return one telling of one Xid; without `where`, nobody knows whose it is."""
    sensor = {
        XidSource.NVML: "gpu.nvml",
        XidSource.TRACEPOINT: "kernel.xid",
        XidSource.LOG: "host.kernel_log",
    }
    facts = XidFacts(pci=pci, number=number, source=source, gpu_instance=gpu_instance)
    return GpuXid(SensorName(sensor[source]), at(seconds), where or Origin(), facts)


def gpu_driver(seconds: float, module: str | None = "580.65.06", disk: str | None = "580.65.06") -> GpuDriver:
    """Return the versions of the driver: the loaded module's, and the library's on disk."""
    facts = DriverFacts(module=module, loaded=disk, disk=disk)
    return GpuDriver(SensorName("gpu.nvml"), at(seconds), facts)


def route_evidence(*, share: float = 1.0, affected: int = 5, streamed: int = 0) -> RouteEvidence:
    """Return what an open case says of a route where `share` of the answers was bad."""
    return RouteEvidence(
        id=RouteId(8000, RouteKind.CHAT_COMPLETIONS, "qwen3-32b", WireServerKind.VLLM),
        window_s=3600.0,
        exchanges=200,
        affected=affected,
        affected_streamed=streamed,
        unobserved=0,
        measured=share,
    )


def seeing(seconds: float, sensor: str, *, lost: int = 0) -> Gap:
    """Return the word that `sensor` sees, after losing `lost` samples."""
    return Gap(SensorName(sensor), at(seconds), Seeing(), lost)


def blind(seconds: float, sensor: str, reason: BlindReason = BlindReason.READ_FAILED) -> Gap:
    """Return the word that `sensor` sees nothing."""
    return Gap(SensorName(sensor), at(seconds), Blind(reason, "for a test"))


def log_line(
    seconds: float,
    pattern: str,
    /,
    *,
    count: int = 1,
    where: Origin | None = None,
    sensor: str = "host.logs",
    **captures: float | str,
) -> LogLine:
    """Return lines of one pattern; nothing is known of who wrote them unless told."""
    return LogLine(
        sensor=SensorName(sensor),
        at=at(seconds),
        origin=where or Origin(),
        pattern=pattern,
        captures=tuple(
            LogCapture(name, word=value) if isinstance(value, str) else LogCapture(name, number=value)
            for name, value in captures.items()
        ),
        count=count,
    )


def sessions(
    seconds: float, held: int, *, port: int = 5432, peers: int = 1, where: Origin | None = None
) -> Sessions:
    """Return how many sessions a PostgreSQL in a service holds, unless told otherwise."""
    postgres = origin(
        container=None,
        unit="postgresql@15-main.service",
        cgroup_path="/system.slice/postgresql@15-main.service",
        name="postgres",
        server=ServerKind.POSTGRESQL,
    )
    return Sessions(
        sensor=SensorName("host.sessions"),
        at=at(seconds),
        origin=where or postgres,
        port=port,
        sessions=held,
        peers=peers,
    )


def open_case(
    fault: FaultClass,
    subject: Subject,
    *,
    last_seen: Instant | None = None,
    place: Place | None = None,
    evidence: tuple[Evidence, ...] = (),
    target: Subject | None = None,
) -> OpenCase:
    """Return a case that stands open."""
    return OpenCase(
        fault_class=fault,
        subject=subject,
        place=place,
        last_seen=last_seen or at(0),
        evidence=evidence,
        target=target,
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


def case_report(case: str, phase: CasePhase, *, count: int = 1) -> CaseReport:
    """Return a report of the case that is named so."""
    return CaseReport(
        phase=phase,
        case_id=CaseId(case),
        fault_class=FaultClass.PROCESS_KILLED_BY_SIGNAL,
        severity=Severity.HIGH,
        subject=Subject(SubjectKind.UNIT, f"{case}.service"),
        incarnation=Incarnation(kernel_boot_id=KERNEL_BOOT),
        first_seen_ns=at(0).unix_ns,
        last_seen_ns=at(1).unix_ns,
        count=count,
    )
