"""A Linux host booted for a test: Debian's own systemd in a container over an overlay of this machine's root.

Real service manager, real cgroups, real units, the kernel shared with this machine (a sensor inside sees
every process outside too). Nothing is written to this machine's root: the upper layer is a tmpfs that goes
with the host. It has a network of its own with nothing but loopback, so its ports are its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

BOOT_S = 90.0
_TOOLS = ("systemd-nspawn", "nsenter", "mount", "umount", "chroot")

# Join the control groups that come before `--`, then become what comes after it.
_ENTER = (
    "sh", "-euc",
    'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs"; shift; done; shift; exec "$@"', "sh",
)  # fmt: skip


class HostError(Exception):
    """The host could not be booted, or a command in it failed; the message names it and holds its output."""


def why_not() -> str | None:
    """Say why no host can be booted here, None when one can."""
    if os.geteuid() != 0:
        return "needs root"
    for tool in _TOOLS:
        if shutil.which(tool) is None:
            return f"needs {tool} (Debian: systemd-container, util-linux)"
    if not Path("/usr/lib/systemd/systemd").exists() and not Path("/lib/systemd/systemd").exists():
        return "needs systemd on this machine"
    with tempfile.TemporaryDirectory(prefix="nanobot-probe-") as folder, contextlib.ExitStack() as undo:
        try:
            _mount_overlay(Path(folder), layers=(), undo=undo)
        except HostError as error:
            return str(error)
    return None


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that ran in the host."""

    status: int
    output: str
    errors: str


class BootedHost:
    """Boot on entry, stop and unmount on exit, also when the boot fails.

    `layers` are folders laid over this machine's root, the uppermost first (see `image.py`); `prepare` is
    called with the host's root folder before the boot.
    """

    def __init__(
        self, *, name: str, layers: Sequence[Path] = (), prepare: Callable[[Path], None] = lambda root: None
    ) -> None:
        self.name = name
        self.boot_s = 0.0
        self._layers = tuple(layers)
        self._prepare = prepare
        self._undo = contextlib.ExitStack()
        self._leader = 0
        self.root = Path()

    def __repr__(self) -> str:
        return f"BootedHost({self.name!r}, leader={self._leader}, boot_s={self.boot_s:.1f})"

    def __enter__(self) -> BootedHost:
        with contextlib.ExitStack() as undo:
            scratch = Path(tempfile.mkdtemp(prefix=f"nanobot-{self.name}-"))
            undo.callback(shutil.rmtree, scratch, ignore_errors=True)
            self.root = _mount_overlay(scratch, layers=self._layers, undo=undo)
            _calm(self.root, self.name)
            self._prepare(self.root)
            self._boot(scratch, undo)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._leader = 0
        self._undo.close()

    def run(self, *command: str, check: bool = True, timeout_s: float = 60.0, user: str = "") -> Finished:
        """Return how `command` finished in the host; raise HostError when `check` and it failed."""
        argv = ["nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-n", "-p", "--"]
        if user:
            argv += ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--"]
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
        }
        try:
            done = subprocess.run(
                [*argv, *command],
                check=False,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                env=environment,
                cwd="/",
            )
        except subprocess.TimeoutExpired as error:
            raise HostError(f"{' '.join(command)}: not finished after {timeout_s:.0f} s") from error
        if check and done.returncode != 0:
            raise HostError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return Finished(done.returncode, done.stdout, done.stderr)

    def shell(self, script: str, *, check: bool = True, timeout_s: float = 60.0) -> str:
        """Run `script` in the host's shell and return what it printed."""
        return self.run("sh", "-euc", script, check=check, timeout_s=timeout_s).output

    def path(self, inside: str) -> Path:
        """Return where the host's file `inside` is seen from outside (also of its tmpfs mounts)."""
        return Path(f"/proc/{self._leader}/root") / inside.lstrip("/")

    def write(self, inside: str, text: str, *, mode: int = 0o644) -> None:
        """Write a file in the host."""
        target = self.path(inside)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def show(self, unit: str, prop: str) -> str:
        """Return one property of a unit."""
        return self.run("systemctl", "show", "-P", prop, unit).output.strip()

    def outer_pid(self, inner: int) -> int:
        """Return the pid by which this machine knows the process `inner` of the host."""
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                for line in status.read_text().splitlines():
                    if line.startswith("NSpid:"):
                        pids = line.split()[1:]
                        if len(pids) > 1 and int(pids[-1]) == inner and self._is_ours(status.parent):
                            return int(pids[0])
        raise HostError(f"no process {inner} in {self.name}")

    def wait(self, what: str, ready: Callable[[], bool], *, within_s: float = 30.0) -> float:
        """Return the seconds until `ready` said yes; raise HostError with the journal when it never did."""
        started = time.monotonic()
        while not ready():
            if time.monotonic() - started > within_s:
                raise HostError(f"not within {within_s:.0f} s: {what}\n{self.journal()}")
            time.sleep(0.1)
        return time.monotonic() - started

    def journal(self, *units: str, lines: int = 60) -> str:
        """Return the end of the host's journal, of `units` alone when any are named."""
        named = [word for unit in units or ("nanobot-*",) for word in ("-u", unit)]
        return self.run("journalctl", "--no-pager", "-q", "-n", str(lines), *named, check=False).output

    def _is_ours(self, proc: Path) -> bool:
        return (proc / "ns/pid").readlink() == Path(f"/proc/{self._leader}/ns/pid").readlink()

    def _boot(self, scratch: Path, undo: contextlib.ExitStack) -> None:
        started = time.monotonic()
        console = scratch / "console.log"
        command = [
            "systemd-nspawn", "-q", "-b", "-D", str(self.root), "-M", self.name,
            "--register=no", "--keep-unit", "--private-network", "--console=pipe",
            "--capability=all", "--system-call-filter=bpf perf_event_open @keyring",
        ]  # fmt: skip
        groups = _groups_for(self.name, undo)
        with console.open("wb") as log:
            nspawn = subprocess.Popen(
                [*_ENTER, *groups, "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        undo.callback(_end, nspawn)
        while not (leader := _leader_of(nspawn.pid)):
            if nspawn.poll() is not None or time.monotonic() - started > BOOT_S:
                raise HostError(f"{self.name} does not boot:\n{console.read_text(errors='replace')}")
            time.sleep(0.05)
        self._leader = leader
        undo.callback(_kill, leader)
        while True:
            done = self.run("systemctl", "is-system-running", check=False)
            if done.output.strip() in ("running", "degraded"):
                break
            if nspawn.poll() is not None or time.monotonic() - started > BOOT_S:
                raise HostError(
                    f"{self.name} is {done.output.strip()} {done.errors.strip()}:\n"
                    + console.read_text(errors="replace")[-4000:]
                )
            time.sleep(0.1)
        self.boot_s = time.monotonic() - started


@contextlib.contextmanager
def layer_over_root(build: Callable[[Path], None]) -> Iterator[Path]:
    """Let `build` write over this machine's root, and yield what it wrote as a layer for hosts.

    The layer lives on a tmpfs of its own: the kernel refuses a lower layer that lies within another one.
    """
    with contextlib.ExitStack() as undo:
        scratch = Path(tempfile.mkdtemp(prefix="nanobot-layer-"))
        undo.callback(shutil.rmtree, scratch, ignore_errors=True)
        memory, root = scratch / "memory", scratch / "root"
        memory.mkdir()
        root.mkdir()
        _mount(undo, memory, "-t", "tmpfs", "-o", "mode=0755", "tmpfs")
        upper, work = memory / "upper", memory / "work"
        upper.mkdir()
        work.mkdir()
        with contextlib.ExitStack() as while_building:
            overlay = f"lowerdir=/,upperdir={upper},workdir={work}"
            _mount(while_building, root, "-t", "overlay", "overlay", "-o", overlay)
            _mount(while_building, root / "proc", "-t", "proc", "proc")
            _mount(while_building, root / "dev", "--bind", "/dev")
            build(root)
        yield upper


def _mount_overlay(scratch: Path, *, layers: Sequence[Path], undo: contextlib.ExitStack) -> Path:
    memory, root = scratch / "memory", scratch / "root"
    memory.mkdir()
    root.mkdir()
    _mount(undo, memory, "-t", "tmpfs", "-o", "mode=0755", "tmpfs")
    upper, work = memory / "upper", memory / "work"
    upper.mkdir()
    work.mkdir()
    lower = ":".join([*(str(layer) for layer in layers), "/"])
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    _mount(undo, root, "-t", "overlay", "overlay", "-o", options)
    return root


def _mount(undo: contextlib.ExitStack, target: Path, *words: str) -> None:
    done = subprocess.run(["mount", *words, str(target)], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise HostError(f"mount {' '.join(words)}: {done.stderr.strip()}")
    undo.callback(_unmount, target)


def _unmount(target: Path) -> None:
    for _ in range(50):
        done = subprocess.run(["umount", str(target)], check=False, capture_output=True, text=True)
        if done.returncode == 0:
            return
        time.sleep(0.1)
    subprocess.run(["umount", "-l", str(target)], check=False, capture_output=True)


def _calm(root: Path, name: str) -> None:
    """Leave of the machine's own services only what a bare host has."""
    for folder in (root / "etc/systemd/system").glob("*.wants"):
        shutil.rmtree(folder)
    (root / "etc/hostname").write_text(f"{name}\n")
    (root / "etc/machine-id").write_text("")
    default = root / "etc/systemd/system/default.target"
    default.unlink(missing_ok=True)
    default.symlink_to("/lib/systemd/system/multi-user.target")
    for unit in ("systemd-resolved.service", "getty.target", "postgresql.service", "systemd-logind.service"):
        link = root / "etc/systemd/system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")


def _leader_of(nspawn: int) -> int:
    """Return the pid of the host's first process, 0 before there is one."""
    waiting = [nspawn]
    while waiting:
        pid = waiting.pop()
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            continue
        pids = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
        if len(pids) > 1 and pids[-1] == "1" and "\tsystemd\n" in status:
            return pid
        waiting += [int(child) for child in children]
    return 0


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)  # the first process of a pid namespace takes all others with it


def _end(nspawn: subprocess.Popen[bytes]) -> None:
    try:
        nspawn.wait(timeout=5)
    except subprocess.TimeoutExpired:
        nspawn.kill()
        nspawn.wait()


def _own_cgroups() -> Iterator[Path]:
    """Yield the control groups that we are in, in the hierarchies that a service manager uses."""
    top = Path("/sys/fs/cgroup")
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in {"", "name=systemd"}:
            continue
        names = [controllers.removeprefix("name=")] if controllers else ["unified", ""]
        for name in names:
            group = top / name / path.lstrip("/")
            if (group / "cgroup.procs").exists():
                yield group


def _groups_for(host: str, undo: contextlib.ExitStack) -> list[str]:
    """Make control groups for one host below our own, so that two hosts at a time share none."""
    made = []
    for own in _own_cgroups():
        group = own / f"{host}-{os.getpid()}"
        group.mkdir(exist_ok=True)
        undo.callback(_remove_groups, group)
        made.append(str(group))
    return made


def _remove_groups(top: Path) -> None:
    for folder, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
