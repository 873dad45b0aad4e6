"""Where a drill plays: names of its own, control groups of its own, processes that end with it.

Everything that a drill makes bears its id, so that it can be told from all else and taken away by that id
alone, also by somebody who knows nothing more (`remains.py`). Where systemd runs the host, a drill's
processes are a transient service; elsewhere they join control groups that are made for them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.drills.child import UNLIMITED, UNMADE
from probes.host.cgroups import find_mounts
from probes.host.drills import MARK

COMMAND_S: Final = 20.0
PYTHON: Final = (sys.executable, "-I", "-m")
"""Isolated: it takes no module from the folder that root happens to be in, or from root's environment."""
MOUNTS: Final = Path("/var/lib/nanobot-drill")
"""Not below /run, where no disk is watched."""
_LIMITS: Final = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max")
"""Of version 1, the second only where it counts swap, and of version 2; written in this order."""
_WHY: Final[Mapping[int, str]] = {
    UNMADE: "the fault could not be made here",
    UNLIMITED: (
        "the limit of the drill's memory is not in force, so none was filled: this host has no memory "
        "controller for its services (control groups are read-only, as in a container, or switched off by "
        "cgroup_disable=memory)"
    ),
}
_EXITED: Final = "1"
"""CLD_EXITED of sigaction(2), as systemd shows it."""


class DrillError(Exception):
    """A drill cannot be made here, or not now; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Theatre:
    """What this host offers to drills."""

    folder: Path
    mounts: Path
    systemd: bool
    unified: Path | None
    memory: Path | None

    def trees(self) -> tuple[Path, ...]:
        """Return the roots of the control group trees in which a drill may have groups."""
        return tuple(dict.fromkeys(tree for tree in (self.unified, self.memory) if tree is not None))


def this_host(folder: Path = MARK.parent, mounts: Path = MOUNTS) -> Theatre:
    """Return what this host offers to drills, marked in `folder`, with their disks in `mounts`."""
    if sys.platform != "linux":
        raise DrillError("drills need Linux")
    groups = find_mounts()
    memory = groups.controller("memory")
    if memory is None and groups.unified is not None:
        enabled = (groups.unified / "cgroup.subtree_control").read_text().split()
        memory = groups.unified if "memory" in enabled else None
    return Theatre(
        folder=folder,
        mounts=mounts,
        systemd=Path("/run/systemd/system").is_dir(),
        unified=groups.unified,
        memory=memory,
    )


@dataclass(slots=True, kw_only=True)
class Stage:
    """One drill's own place; `seconds` is how long its processes may live, whatever happens."""

    id: str
    seconds: int
    theatre: Theatre
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    played: bool = False

    @property
    def unit(self) -> str:
        """The name of the drill's service."""
        return f"{self.id}.service"

    @property
    def scratch(self) -> Path:
        """The drill's own folder."""
        return self.theatre.folder / self.id

    def units(self) -> tuple[str, ...]:
        """Return the units that will be the drill's own."""
        return (self.unit,) if self.theatre.systemd else ()

    def cgroups(self) -> tuple[str, ...]:
        """Return the control groups that will be the drill's own."""
        return (f"/system.slice/{self.unit}",) if self.theatre.systemd else (f"/{self.id}",)

    def play(self, *arguments: str, memory_bytes: int | None = None, properties: Sequence[str] = ()) -> None:
        """Start `agent.drills.child` with `arguments` in the drill's own place."""
        self.played = True
        child = (*PYTHON, "agent.drills.child", *arguments)
        if self.theatre.systemd:
            limits = (
                [f"MemoryMax={memory_bytes}", "MemorySwapMax=0", "OOMPolicy=continue"] if memory_bytes else []
            )
            self.run_unit(child, properties=[*limits, *properties])
            return
        joins: list[str] = []
        for tree in self._made_groups(memory_bytes):
            joins += ["--join", str(tree)]
        self.started.append(
            subprocess.Popen(
                [*child, *joins],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    def run_unit(self, command: Sequence[str], *, properties: Sequence[str] = ()) -> None:
        """Start `command` as the drill's transient service; raise DrillError where that fails."""
        given = (
            f"RuntimeMaxSec={self.seconds}",
            "TimeoutStopSec=2",
            "KillMode=control-group",
            "LimitCORE=0",
            *properties,
        )
        done = subprocess.run(
            [  # noqa: S607 -- root's own PATH
                "systemd-run",
                "--quiet",
                f"--unit={self.unit}",
                "--description=Host Nanobot drill",
                *(f"--property={each}" for each in given),
                "--",
                *command,
            ],
            check=False,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
        )
        if done.returncode != 0:
            raise DrillError(f"systemd-run failed: {done.stderr.strip()}")

    def unmade(self) -> str | None:
        """Return why the part that was played has not made its fault, None as far as it has or still may."""
        status = self._status_of_part()
        return _WHY.get(status, f"the drill's own process failed with status {status}") if status else None

    def _status_of_part(self) -> int:
        """Return the exit status of a part that has ended by itself, 0 of any other."""
        if not self.played:
            return 0
        if not self.theatre.systemd:
            return max((0, *(child.poll() or 0 for child in self.started)))
        shown = subprocess.run(
            ["systemctl", "show", "--property=ExecMainCode,ExecMainStatus", self.unit],  # noqa: S607
            check=False,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
        )
        told = dict(line.partition("=")[::2] for line in shown.stdout.splitlines())
        return int(told.get("ExecMainStatus", 0)) if told.get("ExecMainCode") == _EXITED else 0

    def reap(self) -> None:
        """Take note of the children's ends, so that none stays as a zombie."""
        for child in self.started:
            try:
                child.wait(timeout=COMMAND_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def _made_groups(self, memory_bytes: int | None) -> list[Path]:
        made = []
        for tree in self.theatre.trees():
            group = tree / self.id
            group.mkdir(exist_ok=True)
            made.append(group)
        if memory_bytes is not None:
            assert self.theatre.memory is not None
            group = self.theatre.memory / self.id
            for name in _LIMITS:
                if (group / name).exists():
                    (group / name).write_text(str(memory_bytes))
            if (group / "memory.swap.max").exists():
                (group / "memory.swap.max").write_text("0")
        return made
