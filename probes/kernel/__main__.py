"""`nanobot-probes`: load the kernel programs and hand them over, list the sensors, or check what would work.

bcc belongs to the system's own Python. Started by another interpreter (the console script of a virtual
environment), `load` and `check` begin again as this same file under /usr/bin/python3 in isolated mode, so
that no package of the virtual environment runs with privilege.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pwd
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: only the folder that holds `probes` is added to the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from probes.kernel.capabilities import keep_only
from probes.kernel.config import CaptureWay, ConfigInvalid, LoaderConfig, read_config
from probes.kernel.handover import HandoverError, Manifest, SensorEntry, send
from probes.kernel.loader import Loaded, load
from probes.kernel.programs import LOADING, Capability
from probes.kernel.tracepoints import mount_privately
from probes.observation import BlindReason
from probes.registry import SENSORS, programs

_SYSTEM_PYTHON = "/usr/bin/python3"
_TIMEOUT_S = 30.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0 done, 1 failed, 2 usage."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "list":
            return _list(as_json=options.json)
        _use_the_systems_python(arguments)
        if options.command == "check":
            return _check(options)
        return _load(options)
    except (ConfigInvalid, HandoverError) as error:
        print(f"nanobot-probes: {error}", file=sys.stderr)  # noqa: T201 - a command's answer
        return 2 if isinstance(error, ConfigInvalid) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nanobot-probes", description="Load the kernel sensors of Host Nanobot."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    loading = commands.add_parser("load", help="compile, attach, hand over to the agent, exit")
    loading.add_argument("--config", type=Path, required=True, help="the agent's configuration file")
    loading.add_argument("--agent-user", default="nanobot-agent", help="who must be listening (name or uid)")
    listing = commands.add_parser("list", help="say which sensors there are")
    listing.add_argument("--json", action="store_true")
    checking = commands.add_parser("check", help="compile and attach for real, say what works, let go")
    checking.add_argument("--json", action="store_true")
    checking.add_argument(
        "--config", type=Path, help="check with this configuration in place of the defaults"
    )
    return parser


def _use_the_systems_python(arguments: Sequence[str] | None) -> None:
    if importlib.util.find_spec("bcc") is not None or not os.access(_SYSTEM_PYTHON, os.X_OK):
        return
    if sys.flags.isolated:
        return  # this is the second start: load() will say what is missing
    given = list(sys.argv[1:] if arguments is None else arguments)
    os.execv(_SYSTEM_PYTHON, [_SYSTEM_PYTHON, "-I", str(Path(__file__).resolve()), *given])  # noqa: S606


def _list(*, as_json: bool) -> int:
    if as_json:
        rows = [
            {"name": s.name, "about": s.about, "kernel": s.program is not None, "period_s": s.period_s}
            for s in SENSORS
        ]
        _say(json.dumps({"sensors": rows}, indent=2))
    else:
        for spec in SENSORS:
            _say(f"{spec.name:24} {spec.about}")
    return 0


def _check(options: argparse.Namespace) -> int:
    config = _config(options.config) if options.config is not None else LoaderConfig()
    loaded = _load_bounded(config)
    _let_go(loaded)
    if options.json:
        _say(json.dumps({"sensors": _outcome(loaded.manifest)}, indent=2))
    else:
        for row in _outcome(loaded.manifest):
            _say(f"{row['name']:24} {row['state']:10} {row['detail'] or ''}".rstrip())
    wanted = [entry for entry in loaded.manifest.sensors if entry.sensor not in config.disabled]
    modules = {program.sensor for program in programs() if program.module is not None}
    return 0 if all(_is_fine(entry, entry.sensor in modules) for entry in wanted) else 1


def _config(path: Path) -> LoaderConfig:
    return read_config(path, sensors=(spec.name for spec in SENSORS))


def _is_fine(entry: SensorEntry, of_a_module: bool) -> bool:  # noqa: FBT001
    """Whether a program is attached, is not wanted, or waits for a module that may never be needed here."""
    if entry.blind is None or entry.blind.reason is BlindReason.DISABLED:
        return True
    return of_a_module and entry.blind.reason is BlindReason.NO_KERNEL_SUPPORT


def _load(options: argparse.Namespace) -> int:
    config = _config(options.config)
    agent_uids = {_uid(options.agent_user), 0}
    loaded = _load_bounded(config, agent_uid=_uid(options.agent_user))
    try:
        send(config.socket, loaded.manifest, loaded.descriptors, agent_uids=agent_uids, timeout_s=_TIMEOUT_S)
    finally:
        _let_go(loaded)
    for row in _outcome(loaded.manifest):
        _say(f"{row['name']:24} {row['state']:10} {row['detail'] or ''}".rstrip())
    return 0


def _load_bounded(config: LoaderConfig, *, agent_uid: int = 0) -> Loaded:
    """Load with no capability but those that the enabled programs take; mounting tracefs comes before."""
    mount_privately()
    try:
        keep_only(_needed(config))
    except OSError as error:  # a sandbox without capset; what is held is bounded elsewhere or by nobody
        print(f"nanobot-probes: keeps all its capabilities: {error}", file=sys.stderr)  # noqa: T201
    return load(
        programs(),
        disabled=config.disabled,
        http=config.http,
        scopes=config.scopes,
        agent_uid=agent_uid,
    )


def _needed(config: LoaderConfig) -> frozenset[Capability]:
    enabled = [
        p
        for p in programs()
        if p.sensor not in config.disabled
        and not (p.ports is not None and config.http.is_off)
        and not (p.scoped and not config.scopes.rules)
    ]
    more: set[Capability] = set()
    if any(p.ports is not None for p in enabled):
        if config.http.capture is CaptureWay.PACKET:
            # NET_ADMIN stays as well: it lets the socket have a buffer larger than net.core.rmem_max.
            more = {Capability.NET_RAW}
        elif config.http.tls_libraries:
            more = {Capability.SYS_ADMIN}  # uprobes
    return LOADING.union(more, *(p.capabilities for p in enabled))


def _outcome(manifest: Manifest) -> list[dict[str, str | int | None]]:
    return [
        {
            "name": entry.sensor,
            "state": "attached" if entry.blind is None else "blind",
            "reason": entry.blind.reason.value if entry.blind else None,
            "detail": entry.blind.detail if entry.blind else "; ".join(entry.notes) or None,
            "errno": entry.errno,
        }
        for entry in manifest.sensors
    ]


def _let_go(loaded: Loaded) -> None:
    for fd in loaded.descriptors:
        os.close(fd)


def _uid(user: str) -> int:
    if user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError as error:
        raise ConfigInvalid(f"--agent-user: no user {user!r} on this machine") from error


def _say(line: str) -> None:
    print(line)  # noqa: T201 - a command's answer


if __name__ == "__main__":
    sys.exit(main())
