"""`nanobot-agent`: run the agent, check its configuration, or ask what works."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import functools
import importlib
import json
import os
import platform
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from agent.app import Agent, Builders, Ports
from agent.config import AgentSettings, read
from agent.host.witness import Witness
from agent.process import logs
from agent.process.claim import AlreadyClaimed, claimed
from agent.process.privileges import PrivilegeError, settle, standing
from agent.process.supervisor import supervisor
from agent.recordings.recorder import RecordingFailed
from agent.uplink.link import OrchestratorLink
from escalation.model import AGENT_ID, AgentId
from escalation.outbox import Outbox
from escalation.release import VERSION
from escalation.settings import SettingsError
from probes.host import clock
from probes.host.cgroups import find_mounts
from probes.kernel import handover
from probes.kernel.handover import Handover
from probes.registry import SENSORS, SensorSpec, sensors_of, surroundings
from probes.sensor import Sensor
from probes.settings import SensorSettings

DEFAULT_CONFIG: Final = Path("/etc/nanobot/agent.toml")
SENSOR_NAMES: Final = tuple(spec.name for spec in SENSORS)

_LATE_IMPORTS: Final = ("encodings.idna", "grpc.aio", "grpc._cython.cygrpc", "stringprep", "socketserver")
"""What libraries import only when they get there, which may be after the code can no longer be read."""


class StartError(Exception):
    """The agent cannot start; the message says what to change."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 1 failed, 2 wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        result: int = options.command(options)
    except (SettingsError, PrivilegeError, RecordingFailed, AlreadyClaimed, StartError) as error:
        print(f"nanobot-agent: {error}", file=sys.stderr)  # noqa: T201  # a command's own answer
        return 1
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nanobot-agent", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="watch, judge and escalate until told to stop")
    run.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE")
    run.add_argument("--user", metavar="NAME", help="when started as root: drop to this account first")
    run.set_defaults(command=_run)
    check = commands.add_parser("check-config", help="read the configuration and say what is wrong with it")
    check.add_argument("config", type=Path, metavar="FILE")
    check.set_defaults(command=_check)
    ask = commands.add_parser("doctor", help="say what works, what does not, and what to do about it")
    ask.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE")
    ask.add_argument("--json", action="store_true", help="for machines")
    ask.set_defaults(command=_doctor)
    record = commands.add_parser("record", help="keep what the running agent's sensors say")
    record.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE")
    record.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to; must not exist")
    record.add_argument("--seconds", type=_span_s, default=60.0, help="for how long (Ctrl-C ends it before)")
    record.add_argument("--bytes", type=int, default=64 << 20, help="how much at most")
    record.set_defaults(command=_record)
    replay = commands.add_parser("replay", help="say which cases a recording would have raised")
    replay.add_argument("file", type=Path, metavar="RECORDING")
    replay.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE")
    replay.add_argument("--against", type=Path, metavar="FILE", help="another one: tell what differs")
    replay.add_argument("--further", type=_span_s, default=0.0, metavar="SECONDS", help="go on in silence")
    replay.add_argument("--json", action="store_true", help="for machines: one object a line")
    replay.set_defaults(command=_replay)
    drill = commands.add_parser("drill", help="make a small fault on purpose, to see whether it is noticed")
    drill.add_argument(
        "fault", nargs="?", metavar="CLASS", help="the fault class, such as memory.cgroup_oom_kill"
    )
    drill.add_argument("--seconds", type=int, default=90, metavar="N", help="how long to wait for the alarm")
    drill.add_argument("--list", action="store_true", help="name the drills, and why other classes have none")
    drill.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE")
    drill.set_defaults(command=_drill)
    accept = commands.add_parser(
        "accept-drift", help="take a server's changed command line as the recorded one"
    )
    accept.add_argument("server", metavar="UNIT", help="its unit; without one kind and port, as vllm:8000")
    accept.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE")
    accept.set_defaults(command=_accept_drift)
    return parser


def _span_s(text: str) -> float:
    """Read a number of seconds: up to a year, and a number."""
    seconds = float(text)
    if not 0 <= seconds <= 366 * 86400:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds between 0 and a year")
    return seconds


def _accept_drift(options: argparse.Namespace) -> int:
    from probes.host.command_lines import accept  # noqa: PLC0415 -- as the others

    folder = Path(read(options.config, sensors=SENSOR_NAMES).agent.state_dir)
    try:
        accept(folder, options.server)
    except OSError as error:
        raise StartError(f"accept {options.server!r} in {folder}: {error.strerror}") from error
    print(f"{options.server}: the agent takes it up within a minute")  # noqa: T201  # a command's own answer
    return 0


def _drill(options: argparse.Namespace) -> int:
    # No part of a running agent, which shares this module: imported only here.
    from agent.drills import account  # noqa: PLC0415

    if options.list or options.fault is None:
        print(account.listing())  # noqa: T201  # a command's own answer
        return 0 if options.list else 2
    settings = read(options.config, sensors=SENSOR_NAMES)
    return account.drilled(options.fault, options.seconds, folder=Path(settings.sensors.socket).parent)


def _check(options: argparse.Namespace) -> int:
    settings = read(options.config, sensors=SENSOR_NAMES)
    print(f"{options.config}: good, agent id {_agent_id(settings)}")  # noqa: T201  # a command's own answer
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from agent.process import doctor  # noqa: PLC0415 -- what a running agent never needs

    settings = read(options.config, sensors=SENSOR_NAMES)
    checks = doctor.examine(settings, sensors=SENSOR_NAMES, now_unix_s=time.time())
    text = json.dumps(doctor.as_json(checks), indent=2) if options.json else doctor.as_text(checks)
    print(text)  # noqa: T201  # a command's own answer
    return 0 if doctor.healthy(checks) else 1


def _record(options: argparse.Namespace) -> int:
    from agent.recordings import commands as recording_commands  # noqa: PLC0415 -- the same

    return recording_commands.record(options, read(options.config, sensors=SENSOR_NAMES))


def _replay(options: argparse.Namespace) -> int:
    from agent.recordings import commands as recording_commands  # noqa: PLC0415 -- the same

    settings = read(options.config, sensors=SENSOR_NAMES)
    against = read(options.against, sensors=SENSOR_NAMES) if options.against else None
    return recording_commands.replay(options, settings, against)


def _run(options: argparse.Namespace) -> int:
    settings = read(options.config, sensors=SENSOR_NAMES)
    agent_id = _agent_id(settings)
    ports = _ports()
    for name in _LATE_IMPORTS:
        importlib.import_module(name)
    folders = {Path(settings.agent.state_dir): 0o700, Path(settings.sensors.socket).parent: 0o755}
    settle(options.user, folders=folders)
    logs.set_up(level=settings.agent.log_level)
    ports = dataclasses.replace(ports, standing=standing())
    with claimed(Path(settings.sensors.socket)):
        asyncio.run(_live(options.config.absolute(), settings, agent_id, ports))
    return 0


async def _live(config: Path, settings: AgentSettings, agent_id: AgentId, ports: Ports) -> None:
    await Agent(config=config, settings=settings, agent_id=agent_id, ports=ports).run()


def _agent_id(settings: AgentSettings) -> AgentId:
    name = settings.agent.id or platform.node().lower()
    if not AGENT_ID.fullmatch(name):
        raise StartError(f"the host's name {name!r} is no agent id; set agent.id in the configuration")
    return AgentId(name)


def _ports() -> Ports:
    return Ports(
        clock=clock.now,
        supervisor=supervisor(os.environ),
        kernel_boot_id=_kernel_boot_id(),
        version=VERSION,
        open_spool=_open_spool,
        make_link=lambda spooling, settings, _: OrchestratorLink(
            spooling=spooling, settings=settings.orchestrator
        ),
        sensors=_sensors,
        witness=Witness(cgroups=find_mounts().unified),
        standing=None,
        overdue=functools.partial(os._exit, 1),
    )


def _open_spool(settings: AgentSettings, agent_id: AgentId) -> Outbox:
    folder = Path(settings.agent.state_dir)
    return Outbox.open(
        folder / "spool.sqlite",
        agent_id=agent_id,
        kernel_boot_id=_kernel_boot_id(),
        max_bytes=settings.spool.max_bytes,
        now_ns=time.time_ns(),
    )


def _sensors(handed: Handover | None, settings: SensorSettings) -> Builders:
    """Return how to build each sensor.

    What is read on the loop shares one set of readers, and what is read on the one thread beside it another,
    because they remember what they read and are not made for two threads.
    """
    on_the_loop, on_the_thread = surroundings(handed, settings), surroundings(handed, settings)

    def builder(spec: SensorSpec) -> Callable[[], Sensor]:
        return functools.partial(spec.build, on_the_loop if spec.period_s < 1 else on_the_thread)

    return {spec.name: builder(spec) for spec in sensors_of(sys.platform)}


@functools.cache
def _kernel_boot_id() -> str:
    try:
        return handover.kernel_boot_id()
    except OSError:  # not Linux: one identity per start of the agent is the best there is
        return str(uuid.uuid4())
