"""`make run`: the whole way on this machine, each part with the least privilege, shown live until Ctrl-C.

The orchestrator first, then the agent, then (root only) the loader, which hands the sensors to the agent and
exits. What this machine does not allow is said, with its reason, and the rest runs.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.live import Live

from dev import folder as run_folder, ground as found_ground, setup_files
from dev.ground import GroundError
from dev.processes import Part, Processes, Running
from dev.screen import Api, Lines, PartRow, Snapshot, ask, fitted

CLONE = Path(__file__).resolve().parents[1]
START_S = 45.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until Ctrl-C, SIGTERM or `--for`; return 0, or 1 when it could not start or a part died."""
    options = _options(arguments)
    ended = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        ended.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    try:
        with ExitStack() as undo:
            return _run(options, ended, undo)
    except GroundError as error:
        print(f"make run: {error}", file=sys.stderr)
        return 1
    except PermissionError as error:
        print(
            f"make run: {error}; after a run as root, sudo make clean lets others begin anew", file=sys.stderr
        )
        return 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dev.up", description=__doc__)
    parser.add_argument("--for", dest="seconds", type=float, default=None, help="end by itself after so long")
    parser.add_argument("--first-port", type=int, default=9735, help="of three: metrics, gRPC, web")
    parser.add_argument("--plain", action="store_true", help="lines instead of a live view")
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace, ended: threading.Event, undo: ExitStack) -> int:
    ground = found_ground.survey()
    ports = setup_files.Ports.from_first(options.first_port)
    undo.enter_context(run_folder.claimed(CLONE))
    found_ground.require_free_ports(ports.all)
    lent = undo.enter_context(found_ground.tracing(ground))
    home = run_folder.prepare(CLONE, root=ground.root)
    files = undo.enter_context(setup_files.written(home, ports))
    notes = tuple(
        note for note in (lent, ground.no_sensors and f"no kernel sensors: {ground.no_sensors}") if note
    )
    processes = undo.enter_context(Processes())

    api = Api(url=files.url, token=files.token)
    orchestrator = processes.start(_orchestrator(home, files))
    if not _wait(orchestrator, api.ready, ended):
        return 0 if ended.is_set() else _died(orchestrator)
    agent = processes.start(_agent(home, files))
    if not _wait(agent, files.handover.exists, ended):
        return 0 if ended.is_set() else _died(agent)
    loader = None if ground.no_sensors else processes.start(_loader(home, files))
    parts = [part for part in (orchestrator, agent, loader) if part is not None]
    return _watch(options=options, ended=ended, parts=parts, api=api, files=files, notes=notes)


def _watch(
    *,
    options: argparse.Namespace,
    ended: threading.Event,
    parts: Sequence[Running],
    api: Api,
    files: setup_files.Files,
    notes: tuple[str, ...],
) -> int:
    until = None if options.seconds is None else time.monotonic() + options.seconds
    console = Console()
    live = None
    if console.is_terminal and not options.plain:
        live = Live(console=console, screen=False, auto_refresh=False)
    lines = Lines()
    if live is None:
        print(f"up: {files.url}/", flush=True)
    with ExitStack() as undo:
        if live is not None:
            undo.enter_context(live)
        while not ended.is_set() and (until is None or time.monotonic() < until):
            sensors, queue, trouble = ask(api, host=files.host)
            rows = tuple(_row(part) for part in parts)
            snapshot = Snapshot(files.url, str(files.token_file), rows, notes, sensors, queue, trouble)
            if live is not None:
                live.update(fitted(snapshot, console), refresh=True)
            else:
                for line in lines.changes(snapshot):
                    print(line, flush=True)
            ended.wait(1.0)
    dead = [part for part in parts if part.status not in (None, 0)]
    for part in dead:
        _died(part)
    return 1 if dead else 0


def _row(part: Running) -> PartRow:
    status = part.status
    if status is None:
        return PartRow(part.part.name, "running", part.privilege(), well=True)
    if status == 0:
        return PartRow(part.part.name, "done", "gone", well=True)
    words = part.last_words(1)
    return PartRow(
        part.part.name, f"ended with status {status}: {words} (see {part.part.log})", "", well=False
    )


def _wait(part: Running, ready: object, ended: threading.Event) -> bool:
    assert callable(ready)
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and part.status is None and not ended.is_set():
        if ready():
            return True
        ended.wait(0.1)
    return False


def _died(part: Running) -> int:
    how = "did not become ready" if part.status is None else f"ended with status {part.status}"
    print(f"make run: {part.part.name} {how}; {part.part.log} ends with:", file=sys.stderr)
    print(part.last_words(12), file=sys.stderr)
    return 1


def _orchestrator(home: run_folder.RunFolder, files: setup_files.Files) -> Part:
    return Part(
        name="orchestrator",
        command=[
            str(home.python),
            "-P",
            "-m",
            "escalation.server",
            "serve",
            "--config",
            str(files.orchestrator),
        ],
        log=files.logs / "orchestrator.log",
        user=home.orchestrator.name if home.orchestrator else None,
    )


def _agent(home: run_folder.RunFolder, files: setup_files.Files) -> Part:
    return Part(
        name="agent",
        command=[str(home.python), "-P", "-m", "agent", "run", "--config", str(files.agent)],
        log=files.logs / "agent.log",
        user=home.agent.name if home.agent else None,
    )


def _loader(home: run_folder.RunFolder, files: setup_files.Files) -> Part:
    words = ["load", "--config", str(files.agent), "--agent-user", home.agent.name if home.agent else ""]
    return Part(
        name="loader",
        command=["/usr/bin/python3", "-I", str(home.loader), *words],
        log=files.logs / "loader.log",
        capabilities=("bpf", "perfmon", "net_admin"),
    )


if __name__ == "__main__":
    sys.exit(main())
