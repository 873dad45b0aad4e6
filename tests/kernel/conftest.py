"""Programs loaded once for the whole run, by the real loader in its own process, over the real handover."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from probes import registry
from probes.host.clock import now
from probes.kernel import handover
from probes.observation import CgroupId, Observation
from probes.sensor import Sensor
from tests.kernel.two_hosts import TwoHosts, two_hosts

MAIN = Path(handover.__file__).with_name("__main__.py")
_HELD = "-all,+bpf,+perfmon,+net_admin"
BOUNDED = ["setpriv", f"--bounding-set={_HELD}", f"--inh-caps={_HELD}"]
# A mount namespace of its own, so that tracefs is there whatever the machine has mounted, and then the
# privileges of the loader's unit and not one more.
AS_IN_ITS_UNIT = [
    "unshare",
    "--mount",
    "sh",
    "-c",
    'mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing; exec "$@"',
    "sh",
    *BOUNDED,
]


@dataclass
class LoadRun:
    """One run of the loader: what it handed over and what it said."""

    handover: handover.Handover
    said: str
    status: int


def run_loader(
    folder: Path, *, config: str = "", prefix: list[str] | None = None, agent_user: str = "0"
) -> LoadRun:
    """Run `nanobot-probes load` against a listener of ours and take what it hands over."""
    path, settings = folder / "handover.sock", folder / "agent.toml"
    settings.write_text(f'[sensors]\nsocket = "{path}"\n{config}')
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(50)
        loader = subprocess.Popen(
            [
                *(prefix or []),
                "/usr/bin/python3",
                "-I",
                str(MAIN),
                "load",
                "--config",
                str(settings),
                "--agent-user",
                agent_user,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        connection, _ = listener.accept()
        with connection:
            taken = handover.receive(connection, timeout_s=50)
            handover.accept(connection)
        said, _ = loader.communicate(timeout=50)
    return LoadRun(taken, said, loader.returncode)


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadRun]:
    """All programs, loaded with exactly the capabilities of the loader's unit."""
    run = run_loader(tmp_path_factory.mktemp("loader"), prefix=AS_IN_ITS_UNIT)
    yield run
    run.handover.close()


@dataclass
class Watch:
    """A sensor with a way to wait for what it must see."""

    sensor: Sensor

    def drop(self) -> None:
        """Read and forget what others did before."""
        self.sensor.read(now())

    def until(self, enough: Callable[[list[Observation]], bool], seconds: float = 5.0) -> list[Observation]:
        """Read until it is enough or time is up; return everything."""
        found: list[Observation] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found.extend(self.sensor.read(now()))
            if enough(found):
                break
            time.sleep(0.02)
        return found

    def during(self, seconds: float) -> list[Observation]:
        """Return everything of a span of time."""
        return self.until(lambda _: False, seconds)


@pytest.fixture
def watch(loaded: LoadRun) -> Iterator[Callable[[str], Watch]]:
    """Open a sensor of the registry by name on the session's descriptors."""
    opened: list[Sensor] = []

    def open_(name: str) -> Watch:
        spec = next(s for s in registry.SENSORS if s.name == name)
        sensor = spec.build(registry.surroundings(loaded.handover))
        sensor.open()
        opened.append(sensor)
        watching = Watch(sensor)
        watching.drop()
        return watching

    yield open_
    for sensor in opened:
        sensor.close()


@dataclass
class Cgroups:
    """A cgroup of one name in the v2 hierarchy and in the v1 ones that a test asks for."""

    name: str
    id: CgroupId
    folders: dict[str, Path]

    def enter(self) -> None:
        """Move the calling process in; for a child's first step."""
        for folder in self.folders.values():
            (folder / "cgroup.procs").write_text(str(os.getpid()))

    def run(self, arguments: list[str], **kwargs: object) -> subprocess.CompletedProcess[str]:
        """Run a program inside."""
        return subprocess.run(
            arguments,
            preexec_fn=self.enter,
            text=True,
            capture_output=True,
            check=False,
            timeout=50,
            **kwargs,
        )  # type: ignore[call-overload,no-any-return]

    def start(self, code: str) -> subprocess.Popen[str]:
        """Start a piece of Python inside and leave it running, with pipes to it."""
        return self.launch([sys.executable, "-I", "-S", "-c", code])

    def launch(self, arguments: list[str]) -> subprocess.Popen[str]:
        """Start a program inside and leave it running, with pipes to it."""
        return subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=self.enter,  # noqa: PLW1509 - a cgroup is entered by the child itself, and no thread runs here
        )

    def python(self, code: str) -> subprocess.CompletedProcess[str]:
        """Run a line of Python inside."""
        return self.run([sys.executable, "-I", "-S", "-c", code])


@pytest.fixture
def cgroups() -> Iterator[Callable[..., Cgroups]]:
    """Make cgroups; they are removed at the end."""
    mounts = registry.find_mounts()
    made: list[Path] = []

    def make(*controllers: str, name: str = "") -> Cgroups:
        if mounts.unified is None:
            pytest.skip("needs a cgroup v2 hierarchy")
        name = name or f"nanobot-test-{os.getpid()}-{len(made)}"
        folders = {"": mounts.unified / name}
        for controller in controllers:
            root = mounts.controller(controller)
            if root is None:
                pytest.skip(f"needs the cgroup v1 controller {controller}")
            folders[controller] = root / name
        for folder in folders.values():
            folder.mkdir()
            made.append(folder)
        return Cgroups(f"/{name}", CgroupId(folders[""].stat().st_ino), folders)

    yield make
    for folder in made:
        end = time.monotonic() + 5
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.02)


@pytest.fixture
def hosts() -> Iterator[TwoHosts]:
    """Two hosts on one cable."""
    with two_hosts() as made:
        yield made


_TIMEOUT = Path("/proc/sys/kernel/hung_task_timeout_secs")
_WARNINGS = Path("/proc/sys/kernel/hung_task_warnings")


@pytest.fixture
def impatient_kernel() -> Iterator[None]:
    """The watchdog looks every second; afterwards it is as it was."""
    if not _TIMEOUT.exists():
        pytest.skip("needs a kernel with CONFIG_DETECT_HUNG_TASK")
    before = {path: path.read_text() for path in (_TIMEOUT, _WARNINGS)}
    _WARNINGS.write_text("-1")
    _TIMEOUT.write_text("1")
    yield
    for path, text in before.items():
        path.write_text(text)


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of its own that takes no writes until it is thawed, at the latest at the end."""
    image, mount = tmp_path / "image", tmp_path / "disk"
    image.write_bytes(b"")
    with image.open("r+b") as file:
        file.truncate(16 << 20)
    mount.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, mount], check=True)
    try:
        subprocess.run(["fsfreeze", "-f", mount], check=True)
        yield mount
    finally:
        subprocess.run(["fsfreeze", "-u", mount], check=False, capture_output=True)
        subprocess.run(["umount", mount], check=True)
