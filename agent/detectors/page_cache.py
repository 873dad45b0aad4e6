"""F24 memory.page_cache_refusal: vLLM starts over and over because cached files look like used memory.

Where GPU and programs share one memory, the GPU's library reports what is free, without the page cache that
the kernel would give up. vLLM compares that with the share that it was told to take and refuses to start. It
says why only in its log; from outside it is three things together, from three sensors: starts that follow
each other within minutes, hardly any free memory while much is available, and a GPU that tells no memory of
its own. On a host without such a GPU a full page cache is the normal state and means nothing.

Look-alikes stay quiet: memory that is really full, a single restart, a server that is killed or crashes (its
own fault class), another server than vLLM.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final, Self

from msgspec import Meta

from agent.bounded import entry
from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick
from agent.finding import Finding, Hysteresis, Verdict, absent, unknown
from agent.host.heard import Heard
from agent.subjects import incarnation_of, place_of, subject_of, target_of
from escalation.model import (
    FaultClass,
    MemoryEvidence,
    Reason,
    ReasonCode,
    Severity,
    Subject,
)
from probes.gpu.facts import GpuFacts
from probes.observation import (
    Blind,
    FatalSignal,
    Gap,
    GpuAbsent,
    GpuState,
    Instant,
    MemoryState,
    Observation,
    OomKill,
    SensorName,
    ServerKind,
    ServerUsage,
)

GPUS: Final = SensorName("gpu.nvml")
MEMORY: Final = SensorName("host.memory")
SERVERS: Final = SensorName("host.servers")
_FAULT: Final = FaultClass.MEMORY_PAGE_CACHE_REFUSAL
_SERVERS_MAX: Final = 64
_STARTS_MAX: Final = 32
_STALE_S: Final = 60.0
_NOT_SUPPORTED: Final = 3  # nvml.h, nvmlReturn_t: what a GPU without memory of its own answers


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many starts, how close together, and how much of the memory has to be cache."""

    starts: Annotated[int, Meta(ge=2)] = 3
    window_s: Annotated[float, Meta(gt=0)] = 1800.0
    life_s: Annotated[float, Meta(gt=0)] = 600.0
    cache_share: Annotated[float, Meta(gt=0, le=1)] = 0.2
    available_share: Annotated[float, Meta(gt=0, le=1)] = 0.3
    clear_hold_s: Annotated[float, Meta(ge=0)] = 0.0
    gone_clear_after_s: Annotated[float, Meta(gt=0)] = 86400.0


@dataclass(slots=True)
class _Server:
    """When each of a server's lives began, the oldest first, and when something ended one by force."""

    starts: deque[Instant] = field(default_factory=lambda: deque(maxlen=_STARTS_MAX))
    died_at: Instant | None = None
    told: int = 0


class PageCache:
    """Says which server is refused memory that is there."""

    NAME: ClassVar[str] = "page_cache"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.MEDIUM,),
            sensors=(SERVERS, MEMORY, GPUS),
            opens="vLLM started `starts` times in `window_s`, each within `life_s` of the one before, while "
            "the page cache held `cache_share` of all memory and `available_share` was available, on a host "
            "whose GPU has no memory of its own.",
            quiet="Memory that is really full; a GPU with its own memory; a single restart; a server that "
            "the kernel killed or that crashed; other servers.",
            clears="The server has stayed up for `life_s`; or it has not been there for "
            "`gone_clear_after_s`.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._heard = Heard(SERVERS)
        self._around = surroundings
        self._servers: OrderedDict[Subject, _Server] = OrderedDict()
        self._memory: MemoryState | None = None
        self._unified: Instant | None = None
        self._blind: set[SensorName] = {MEMORY, SERVERS}

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Open at once, because the starts were counted here."""
        return {_FAULT: Hysteresis(clear_hold_s=self._config.clear_hold_s)}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Take what a sensor tells; each measurement of a server is judged."""
        match observation:
            case Gap():
                return self._sight(observation)
            case MemoryState():
                self._memory = observation
            case GpuState(facts=facts, at=at):
                if _shares_memory(facts):
                    self._unified = at
            case GpuAbsent(gpu=None):
                self._unified = None
            case OomKill(origin=origin, at=at) | FatalSignal(origin=origin, at=at):
                known = self._servers.get(subject_of(origin))
                if known is not None:
                    known.died_at = at
            case ServerUsage():
                self._heard.take(subject_of(observation.origin), observation.at)
                return self._measured(observation)
            case _:
                pass
        return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Say unknown of open cases while memory or servers cannot be seen; end those of servers gone."""
        if self._blind:
            return (unknown(_FAULT, tick.now),) if tick.open_cases else ()
        gone = (self._heard.gone(case, tick, self._config.gone_clear_after_s) for case in tick.open_cases)
        return tuple(over for over in gone if over is not None)

    def _sight(self, gap: Gap) -> Sequence[Finding]:
        self._heard.sight(gap)
        if gap.sensor not in {MEMORY, SERVERS}:
            return ()
        if not isinstance(gap.coverage, Blind):
            self._blind.discard(gap.sensor)
            return ()
        self._blind.add(gap.sensor)
        return (unknown(_FAULT, gap.at),)

    def _measured(self, usage: ServerUsage) -> Sequence[Finding]:
        if usage.origin.server is not ServerKind.VLLM:
            return ()
        subject = subject_of(usage.origin)
        server = self._server(subject)
        if not server.starts or usage.started.since_s(server.starts[-1]) > 1:
            server.starts.append(usage.started)
        up_s = usage.at.since_s(usage.started)
        if up_s >= self._config.life_s:
            server.told = 0
            reason = Reason(ReasonCode.SERVER_STAYS_UP, window_s=round(up_s, 3))
            return (absent(_FAULT, subject, usage.at, reason),)
        starts = self._row(server, usage.at)
        memory = self._memory
        if starts < self._config.starts or memory is None or not self._is_cache(memory, usage.at):
            return ()
        if server.died_at is not None and usage.at.since_s(server.died_at) <= self._config.window_s:
            return ()
        if self._unified is None or usage.at.since_s(self._unified) > _STALE_S:
            return ()
        more, server.told = max(0, starts - server.told), starts
        return (self._present(subject, usage, memory, starts, more),)

    def _row(self, server: _Server, now: Instant) -> int:
        """Return how many starts have followed each other closely, up to the last one."""
        count, after = 0, None
        for start in reversed(server.starts):
            if now.since_s(start) > self._config.window_s:
                break
            if after is not None and after.since_s(start) > self._config.life_s:
                break
            count, after = count + 1, start
        return count

    def _is_cache(self, memory: MemoryState, now: Instant) -> bool:
        if now.since_s(memory.at) > _STALE_S:
            return False
        cache_bytes = memory.available_bytes - memory.free_bytes
        return (
            cache_bytes >= memory.total_bytes * self._config.cache_share
            and memory.available_bytes >= memory.total_bytes * self._config.available_share
        )

    def _present(
        self, subject: Subject, usage: ServerUsage, memory: MemoryState, starts: int, more: int
    ) -> Finding:
        return Finding(
            verdict=Verdict.PRESENT,
            fault_class=_FAULT,
            subject=subject,
            target=target_of(usage.origin, subject),
            at=usage.at,
            severity=Severity.MEDIUM,
            incarnation=incarnation_of(usage.origin, self._around.kernel_boot_id),
            place=place_of(usage.origin),
            count=more,
            reasons=(
                Reason(
                    ReasonCode.SERVER_STARTS_REPEATEDLY,
                    count=starts,
                    threshold=float(self._config.starts),
                    window_s=self._config.window_s,
                ),
                Reason(ReasonCode.FREE_MEMORY_IS_CACHE, threshold=self._config.cache_share),
            ),
            evidence=(
                MemoryEvidence(
                    total_bytes=memory.total_bytes,
                    available_bytes=memory.available_bytes,
                    free_bytes=memory.free_bytes,
                    floor_bytes=0,
                    falls_bytes_per_s=0.0,
                    empty_in_s=None,
                    stalled_percent=memory.full_avg10,
                    stalls=memory.allocation_stalls,
                ),
            ),
        )

    def _server(self, subject: Subject) -> _Server:
        return entry(self._servers, subject, _Server, limit=_SERVERS_MAX)


def _shares_memory(facts: GpuFacts) -> bool:
    """Return whether a GPU says that it has no memory of its own: the code counts, not a missing number."""
    return facts.memory_total_bytes is None and any(
        unread.fact == "memory_total_bytes" and unread.code == _NOT_SUPPORTED for unread in facts.unread
    )
