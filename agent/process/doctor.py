"""`nanobot-agent doctor`: what works, what does not, and what to do about it, without changing anything.

It reads the running agent's status file, tries the orchestrator's port, and looks at the certificates. It
does not open sensors or the spool: both belong to the agent.
"""

from __future__ import annotations

import enum
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from agent.config import AgentSettings
from agent.detectors.blind_sensor import NOT_MISSED
from agent.gpus.placement import Placements
from agent.process.privileges import standing
from agent.process.statusfile import NAME, Status, read
from agent.process.supervisor import speaks_systemd
from agent.remedies import remedy
from escalation.inert import guarded
from probes.host import model_servers
from probes.host.model_servers import ModelServer
from probes.host.servers import KINDS as MODEL_KINDS
from probes.observation import BlindReason, Origin
from probes.registry import surroundings
from probes.scopes import ScopeMode, label


class Health(enum.StrEnum):
    """How one check came out. A note is worth knowing and breaks nothing."""

    GOOD = "good"
    NOTE = "note"
    BAD = "bad"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor's report."""

    name: str
    health: Health
    says: str
    remedy: str = ""


def examine(settings: AgentSettings, *, sensors: tuple[str, ...], now_unix_s: float) -> tuple[Check, ...]:
    """Return every check, in the order a person should read them."""
    folder = Path(settings.sensors.socket).parent
    status = read(folder / NAME)
    if status is not None and now_unix_s - status.written_unix_s > 3 * status.next_write_s + 5:
        status = None
    servers = model_servers.running()
    identifier = surroundings(None).identifier
    return (
        *_agent(status, folder),
        *_sensors(status, settings, sensors),
        *_routes(status, settings, servers),
        *_placements(settings, servers, lambda pid: identifier.origin(pid=pid)),
        *_scopes(status, settings),
        *_uplink(status, settings),
        *_certificates(settings, now_unix_s),
        *_spool(status, settings),
        *_metrics(status, settings),
        *_here(),
    )


def as_json(checks: tuple[Check, ...]) -> dict[str, Any]:
    """Return the report for machines."""
    return {"healthy": healthy(checks), "checks": [asdict(check) for check in checks]}


def as_text(checks: tuple[Check, ...]) -> str:
    """Return the report for people, host text inert."""
    lines = []
    for check in checks:
        lines.append(f"{check.health.value:8}{guarded(check.name):28}{guarded(check.says)}")
        if check.remedy:
            lines.append(f"{'':8}{'':28}-> {guarded(check.remedy)}")
    return "\n".join(lines)


def healthy(checks: tuple[Check, ...]) -> bool:
    """Return whether nothing is bad."""
    return all(check.health is not Health.BAD for check in checks)


def _agent(status: Status | None, folder: Path) -> Iterator[Check]:
    if status is None:
        yield Check(
            "agent",
            Health.BAD,
            f"no agent has written {folder / NAME} lately",
            "systemctl start nanobot-agent; journalctl -u nanobot-agent",
        )
        return
    yield Check("agent", Health.GOOD, f"{status.agent_id} runs, version {status.version}, pid {status.pid}")
    if status.capabilities is None:
        yield Check("agent capabilities", Health.UNKNOWN, "this system does not tell capabilities")
    elif status.capabilities:
        yield Check(
            "agent capabilities",
            Health.BAD,
            f"the agent holds capabilities {status.capabilities:#x}",
            "run it by its unit, or as root with --user",
        )
    else:
        yield Check("agent capabilities", Health.GOOD, "none")
    if status.supervised:
        text = "no watchdog" if status.watchdog_s is None else f"watchdog of {status.watchdog_s:g} s"
        yield Check("service manager", Health.GOOD, f"systemd, {text}; sensors survive a restart")
    else:
        yield Check(
            "service manager",
            Health.NOTE,
            "none talks to the agent: after a restart the loader must run again",
            "run it as nanobot-agent.service; the package systemd-python must be installed",
        )


def _sensors(status: Status | None, settings: AgentSettings, known: tuple[str, ...]) -> Iterator[Check]:
    if status is None:
        for name in known:
            if name in settings.sensors.disabled:
                yield Check(name, Health.NOTE, "disabled", remedy(BlindReason.DISABLED))
            else:
                yield Check(name, Health.UNKNOWN, "only a running agent can tell")
        return
    for sensor in status.sensors:
        if sensor.reason is None:
            if sensor.detail:  # what the loader had to leave out, or does in another way
                yield Check(sensor.name, Health.NOTE, f"sees; {sensor.detail}")
            else:
                yield Check(sensor.name, Health.GOOD, "sees")
            continue
        try:
            reason = BlindReason(sensor.reason)
        except ValueError:
            yield Check(sensor.name, Health.BAD, f"blind: {sensor.reason}: {sensor.detail}")
            continue
        says = f"blind: {reason.value}: {sensor.detail}"
        missed = reason is not BlindReason.DISABLED and (sensor.name, reason) not in NOT_MISSED
        yield Check(sensor.name, Health.BAD if missed else Health.NOTE, says, remedy(reason, sensor.name))


def _routes(
    status: Status | None, settings: AgentSettings, servers: Sequence[ModelServer]
) -> Iterator[Check]:
    """Suggest what to watch: model servers that run here, and whether their port is on the list."""
    if "http.routes" in settings.sensors.disabled:
        return
    watched = set(settings.http.ports)
    if status is not None and status.http_ports and set(status.http_ports) != watched:
        loaded = ", ".join(map(str, sorted(status.http_ports)))
        yield Check(
            "http.ports",
            Health.NOTE,
            f"the loaded programs watch other ports than the configuration says: {loaded}",
            "systemctl restart nanobot-probes",
        )
    for server in servers:
        says = f"{server.kind.value} (pid {server.pid}) seems to serve on port {server.port}"
        if server.port in watched:
            yield Check("model server", Health.GOOD, f"{says}, which is watched")
        else:
            ports = ", ".join(map(str, (*settings.http.ports, server.port)))
            yield Check(
                "model server",
                Health.NOTE,
                f"{says}, which is not watched",
                f"if it does: set http.ports = [{ports}] and restart nanobot-probes",
            )


def _placements(
    settings: AgentSettings, servers: Sequence[ModelServer], origin: Callable[[int], Origin]
) -> Iterator[Check]:
    """Suggest what to declare: model servers that run here, and where they are meant to."""
    declared = Placements.of(settings.placement)
    for server in servers:
        if server.kind not in MODEL_KINDS:
            continue
        found = origin(server.pid)
        says = f"{server.kind.value} (pid {server.pid}) on port {server.port}"
        placement = declared.of_server(found, server.port)
        if placement is not None:
            yield Check("placement", Health.GOOD, f"{says} is meant to run on: {placement.value}")
            continue
        if found.unit is not None and found.unit.endswith(".service"):
            named = f'unit = "{found.unit}"'
        else:
            named = f'route = "{server.port}"'
        yield Check(
            "placement",
            Health.NOTE,
            f"{says} has no declared placement: only a GPU that it was seen on before can be missed",
            f'declare it in agent.toml: [[placement]] with {named} and on = "gpu", "cpu" or "partial"',
        )


def _scopes(status: Status | None, settings: AgentSettings) -> Iterator[Check]:
    """Say which scopes are declared, and whether the kernel holds them as they are declared now."""
    loaded = next((s for s in status.sensors if s.name == "kernel.scope"), None) if status else None
    for each in settings.scope:
        rule = each.rule
        sorts = (
            f"{len(allowed)} {what}"
            for what, allowed in (
                ("executables", rule.executables),
                ("destinations", rule.destinations),
                ("listeners", rule.listeners),
            )
            if allowed is not None
        )
        place = rule.unit or rule.cgroup
        says = f"{rule.name} ({place}) is to be kept to {', '.join(sorts)}: {rule.mode.value}"
        if loaded is None or loaded.reason is not None:
            yield Check("scope", Health.UNKNOWN, f"{says}; nothing tells whether it is held")
        elif label(rule) in loaded.detail.split("; "):
            yield Check("scope", Health.GOOD, says)
        elif label(replace(rule, mode=ScopeMode.AUDIT)) in loaded.detail.split("; "):
            yield Check(
                "scope",
                Health.NOTE,
                f"{says}; but it is audited",
                "the configuration and its folder must belong to root, and be written by nobody else; then "
                "systemctl restart nanobot-probes",
            )
        else:
            yield Check(
                "scope",
                Health.NOTE,
                f"{says}; but it was loaded otherwise, or not at all",
                "systemctl restart nanobot-probes",
            )


def _uplink(status: Status | None, settings: AgentSettings) -> Iterator[Check]:
    address = settings.orchestrator.address
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=3).close()
    except OSError as error:
        yield Check(
            "orchestrator",
            Health.BAD,
            f"{address} cannot be reached: {error.strerror or error}",
            "start it, or correct orchestrator.address; reports wait in the spool meanwhile",
        )
    else:
        yield Check("orchestrator", Health.GOOD, f"{address} accepts connections")
    if status is None:
        return
    if status.connected:
        acked = "none yet" if status.last_ack_unix_s is None else _moment(status.last_ack_unix_s)
        yield Check("uplink", Health.GOOD, f"connected, last acknowledgement {acked}")
    else:
        why = status.uplink_error or "connecting"
        yield Check("uplink", Health.BAD, f"not connected: {why}", "see the certificates below")


def _certificates(settings: AgentSettings, now_unix_s: float) -> Iterator[Check]:
    part = settings.orchestrator
    for name, path in (("certificate authority", part.ca), ("certificate", part.cert)):
        try:
            yield _certificate(name, path, now_unix_s)
        except (OSError, ValueError, ssl.SSLError) as error:
            yield Check(
                name,
                Health.BAD,
                f"{path}: {getattr(error, 'strerror', None) or error}",
                "nanobotctl pki init | issue",
            )
    try:
        mode = Path(part.key).stat().st_mode & 0o077
    except OSError as error:
        yield Check("private key", Health.BAD, f"{part.key}: {error.strerror}", "nanobotctl pki issue")
    else:
        if mode:
            yield Check(
                "private key", Health.BAD, f"{part.key} can be read by others", f"chmod 600 {part.key}"
            )
        else:
            yield Check("private key", Health.GOOD, f"{part.key} is private")


def _certificate(name: str, path: str, now_unix_s: float) -> Check:
    decode: Any = getattr(ssl, "_ssl")._test_decode_cert  # noqa: B009, SLF001  # the only parser in the standard library
    until = ssl.cert_time_to_seconds(decode(path)["notAfter"])
    days = (until - now_unix_s) / 86400
    if days <= 0:
        return Check(name, Health.BAD, f"{path} expired {_moment(until)}", "nanobotctl pki renew")
    if days < 7:
        return Check(name, Health.NOTE, f"{path} is valid until {_moment(until)}", "nanobotctl pki renew")
    return Check(name, Health.GOOD, f"{path} is valid until {_moment(until)}")


def _spool(status: Status | None, settings: AgentSettings) -> Iterator[Check]:
    folder = Path(settings.agent.state_dir)
    if status is None:
        yield Check("spool", Health.UNKNOWN, f"only a running agent can tell ({folder})")
        return
    if status.spool_silent_s:
        yield Check(
            "spool",
            Health.BAD,
            f"has not answered for {status.spool_silent_s:.0f} s; {status.uncommitted} reports wait in "
            "memory",
            f"look at dmesg and at the disk of {folder}: a write there does not come back; a restart would "
            "lose what waits",
        )
        return
    if not status.spool_open or status.uncommitted:
        why = f": {status.spool_error}" if status.spool_error else ""
        yield Check(
            "spool",
            Health.BAD,
            f"cannot be written{why}; {status.uncommitted} reports wait in memory",
            f"make room on the file system of {folder}, or mend what is named",
        )
        return
    share = status.spool_bytes / settings.spool.max_bytes
    health = Health.NOTE if share > 0.5 else Health.GOOD
    yield Check("spool", health, f"{status.spool_reports} reports wait, {share:.0%} of spool.max_bytes")


def _metrics(status: Status | None, settings: AgentSettings) -> Iterator[Check]:
    """Say whether anybody answers where Prometheus is to scrape; an agent lives without its page."""
    part = settings.metrics
    if status is None or not part.enabled:
        return
    try:
        socket.create_connection((part.address, part.port), timeout=3).close()
    except OSError as error:
        yield Check(
            "metrics page",
            Health.BAD,
            f"{part.address} port {part.port} does not answer: {error.strerror or error}",
            "see metrics_not_served in journalctl -u nanobot-agent; correct [metrics] and restart the agent",
        )
    else:
        yield Check("metrics page", Health.GOOD, f"{part.address} port {part.port} answers")


def _here() -> Iterator[Check]:
    mine = standing()
    if mine is not None:
        yield Check("doctor", Health.NOTE, f"ran as uid {mine.uid} with capabilities {mine.effective:#x}")
    if not speaks_systemd():
        yield Check(
            "systemd-python",
            Health.NOTE,
            "not installed: no watchdog, and sensors do not survive a restart",
            "systemd/install.sh agent",
        )


def _moment(unix_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix_s))
