"""Lines of what stands around the engines: LiteLLM, PostgreSQL, NVIDIA's containers, systemd."""

from __future__ import annotations

from typing import Final

from probes.logs.pattern import LineSource, Pattern
from probes.origin import ServerKind

_LITELLM, _POSTGRESQL = ServerKind.LITELLM, ServerKind.POSTGRESQL
_STEPS: Final = (
    *("input error", "permission error", "initialization error", "container error", "detection error"),
    *("device error", "requirement error", "mount error", "ldcache error"),
)
_NVML_ERRORS: Final = (
    *("driver not loaded", "driver/library version mismatch", "unknown error", "insufficient permissions"),
    *("gpu access blocked by the operating system", "gpu is lost"),
)

SERVICE_PATTERNS: Final = (
    Pattern(
        "litellm.database_lost",
        "the router's database cannot be reached",
        "Prisma, error reference P1001",
        "reach database server at",
        r"Can.t reach database server at",
        server=_LITELLM,
    ),
    Pattern(
        "litellm.models_lost",
        "the router could not read its models from the database",
        "LiteLLM, proxy/proxy_server.py (add_deployment)",
        "Error getting new models from DB",
        r"add_deployment\(\) - Error getting new models from DB",
        server=_LITELLM,
    ),
    Pattern(
        "litellm.no_deployments",
        "no deployment of a model is left to ask; tried again in so many seconds",
        "LiteLLM, router_utils/cooldown_handlers.py",
        "No deployments available for selected model",
        r"No deployments available for selected model(?:, Try again in (?P<seconds>[0-9]{1,8}))?",
        server=_LITELLM,
    ),
    Pattern(
        "litellm.pool_exhausted",
        "the router's own connections to the database are all in use",
        "Prisma, error reference P2024",
        "Timed out fetching a new connection",
        r"Timed out fetching a new connection from the (?:connection )?pool"
        r"(?:.{0,120}?connection limit: (?P<limit>[0-9]{1,6}))?",
        server=_LITELLM,
    ),
    Pattern(
        "nvidia_container.no_device",
        "a container was not started, because no GPU is described to its engine under the name it asks for",
        "CNCF, container-device-interface, pkg/cdi (InjectDevices)",
        "unresolvable CDI devices",
        r"unresolvable CDI devices",
    ),
    Pattern(
        "nvidia_container.no_runtime",
        "a container was not started, because its engine knows no way to give it a GPU",
        "moby, daemon (DeviceRequests)",
        "could not select device driver",
        r"could not select device driver .{1,40}? with capabilities: \[\[[^\]]{0,80}gpu",
    ),
    Pattern(
        "nvidia_container.not_started",
        "a container was not started, because it could not be given the GPU",
        "libnvidia-container, src/cli; NVIDIA container toolkit, troubleshooting",
        "nvidia-container-cli",
        rf"nvidia-container-cli: (?P<step>{'|'.join(_STEPS)})"
        rf"(?:: nvml error: (?P<nvml>{'|'.join(_NVML_ERRORS)}))?",
        words=(("step", _STEPS), ("nvml", _NVML_ERRORS)),
    ),
    Pattern(
        "nvidia_container.nvml_failed",
        "NVML does not start in a container: access taken away, or two versions of the driver",
        "nvml.h (nvmlErrorString); NVIDIA container toolkit, troubleshooting",
        "Failed to initialize NVML",
        r"Failed to initialize NVML: (?P<why>Driver/library version mismatch|Unknown Error|Driver Not Loaded|"
        r"Insufficient Permissions|ERROR_LIBRARY_NOT_FOUND)",
        words=(
            (
                "why",
                (
                    "Driver/library version mismatch",
                    "Unknown Error",
                    "Driver Not Loaded",
                    "Insufficient Permissions",
                    "ERROR_LIBRARY_NOT_FOUND",
                ),
            ),
        ),
    ),
    Pattern(
        "nvidia_container.nvml_missing",
        "NVML's library is not in the container",
        "nvidia-ml-py, pynvml.py (NVMLError_LibraryNotFound)",
        "NVML Shared Library Not Found",
        r"NVML Shared Library Not Found",
    ),
    Pattern(
        "postgresql.disk_full",
        "a file could not grow: the disk is full",
        "PostgreSQL, src/backend/storage/smgr/md.c and access/transam/xlog.c",
        "No space left on device",
        r"(?P<severity>ERROR|FATAL|PANIC):  could not (?:extend|write to) file "
        r".{1,120}?No space left on device",
        words=(("severity", ("ERROR", "FATAL", "PANIC")),),
        server=_POSTGRESQL,
    ),
    Pattern(
        "postgresql.panic",
        "the whole server stops and recovers",
        "PostgreSQL, manual, 20.8 (severity levels)",
        "PANIC:  ",
        r"(?:^|\] |[^\w\"'])PANIC:  ",
        server=_POSTGRESQL,
    ),
    Pattern(
        "postgresql.ready",
        "the server takes connections",
        "PostgreSQL, src/backend/postmaster/postmaster.c",
        "database system is ready to accept",
        r"LOG:  database system is ready to accept connections",
        server=_POSTGRESQL,
    ),
    Pattern(
        "postgresql.slots_reserved",
        "no connection is left but those kept for superusers",
        "PostgreSQL, src/backend/utils/init/postinit.c (53300)",
        "connection slots are reserved for",
        r"FATAL:  remaining connection slots are reserved for",
        server=_POSTGRESQL,
    ),
    Pattern(
        "postgresql.too_many_clients",
        "every connection is taken (max_connections); a client was turned away",
        "PostgreSQL, src/backend/storage/lmgr/proc.c (53300)",
        "too many clients already",
        r"sorry, too many clients already",
        server=_POSTGRESQL,
    ),
    Pattern(
        "postgresql.too_many_for_one",
        "one role or database has used up its own limit of connections",
        "PostgreSQL, src/backend/utils/init/postinit.c and miscinit.c (53300)",
        "too many connections for",
        r"FATAL:  too many connections for (?P<what>role|database) ",
        words=(("what", ("role", "database")),),
        server=_POSTGRESQL,
    ),
    Pattern(
        "systemd.start_limit",
        "the service manager gave a unit up: it was started too often",
        "systemd, src/core/unit.c",
        "tart request repeated too quickly",
        r"[Ss]tart request repeated too quickly",
        source=LineSource.MANAGER,
    ),
)
"""Sorted by id."""
