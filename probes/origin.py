"""When and where something happened: the words that every observation is made of."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NewType

SensorName = NewType("SensorName", str)
"""A sensor's stable name in coverage, metrics and configuration, e.g. ``kernel.device_open``."""

CgroupId = NewType("CgroupId", int)
"""The inode of a cgroup v2 directory, as ``bpf_get_current_cgroup_id()`` gives it."""


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment on two clocks: `boot_ns` counts suspend and never jumps, `unix_ns` is wall time."""

    boot_ns: int
    unix_ns: int

    def since_s(self, earlier: Instant) -> float:
        """Seconds of boot time from `earlier` to this moment."""
        return (self.boot_ns - earlier.boot_ns) / 1e9


class ServerKind(enum.StrEnum):
    """Which model server (or companion) a process belongs to."""

    VLLM = "vllm"
    TENSORRT_LLM = "tensorrt_llm"
    OLLAMA = "ollama"
    LLAMA_CPP = "llama_cpp"
    LITELLM = "litellm"
    OPEN_WEBUI = "open_webui"
    RAY = "ray"
    WHISPER = "whisper"
    POSTGRESQL = "postgresql"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where something happened: a process and the unit or container it belongs to.

    `pid` and `start_ticks` together name one process incarnation; `None` is unknown. Names are as the
    kernel gave them, undecodable bytes replaced: hostile text, to be shown escaped.
    """

    cgroup_id: CgroupId | None = None
    cgroup_path: str | None = None
    unit: str | None = None
    container_id: str | None = None
    pid: int | None = None
    start_ticks: int | None = None
    process_name: str | None = None
    server: ServerKind = ServerKind.OTHER
