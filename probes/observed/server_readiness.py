"""What is said about model servers that may still be loading, and the shared memory of their containers."""

from __future__ import annotations

from dataclasses import dataclass

from probes.origin import Instant, Origin, SensorName


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerReadiness:
    """Whether a model server listens on `port` yet, in whatever network it lives.

    `started` is when its process began. Told while it does not listen, once when it does, and now and then.
    `listens` is None where its network's table cannot be read whole. `shared_memory_bytes` is the size that
    its /dev/shm was made with, None where that is not told: the host's own has none.
    """

    sensor: SensorName
    at: Instant
    origin: Origin
    started: Instant
    port: int
    listens: bool | None
    shared_memory_bytes: int | None
