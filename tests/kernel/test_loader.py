"""The loader on the real kernel: privileges, partial failure, and a reader without any privilege."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from probes import registry
from probes.host.clock import now
from probes.kernel import handover
from probes.kernel.handed import HandedProgram
from probes.observation import Blind, BlindReason, DeviceOpens, Gap, SensorName
from probes.sensor import SensorBlind
from tests.kernel.conftest import AS_IN_ITS_UNIT, BOUNDED, MAIN, Cgroups, LoadRun, Watch, run_loader

pytestmark = [pytest.mark.root, pytest.mark.ebpf]

_KERNEL_SENSORS = [s.name for s in registry.SENSORS if s.program is not None]
_OF_A_DRIVER = SensorName("kernel.xid")  # where no NVIDIA driver is loaded, its tracepoint is missing
_UNDECLARED = SensorName("kernel.scope")  # it is not even compiled where no scope is declared
_ATTACHED = [name for name in _KERNEL_SENSORS if name not in {_OF_A_DRIVER, _UNDECLARED}]


def _check(
    prefix: list[str], *, main: Path = MAIN, **environment: str
) -> tuple[int, dict[str, dict[str, object]]]:
    run = subprocess.run(
        [*prefix, "/usr/bin/python3", "-I", str(main), "check", "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        env={**os.environ, **environment},
    )
    rows = {row["name"]: row for row in json.loads(run.stdout)["sensors"]}
    assert rows.pop(_UNDECLARED)["reason"] == BlindReason.DISABLED.value
    return run.returncode, rows


def test_everything_attaches_with_the_capabilities_of_its_unit(loaded: LoadRun) -> None:
    """CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, bounded to exactly these, attach every program."""
    assert loaded.status == 0, loaded.said
    states = {entry.sensor: entry.blind for entry in loaded.handover.manifest.sensors}
    of_a_driver, undeclared = states.pop(_OF_A_DRIVER), states.pop(_UNDECLARED)
    assert undeclared is not None
    assert undeclared.reason is BlindReason.DISABLED
    assert of_a_driver is None or of_a_driver.reason is BlindReason.NO_KERNEL_SUPPORT
    assert states == dict.fromkeys(_ATTACHED)
    assert loaded.handover.manifest.kernel_boot_id == handover.kernel_boot_id()


def test_no_open_file_is_handed_over_twice(loaded: LoadRun) -> None:
    """The service manager keeps an open file under one name: a second would be missing after a restart."""
    number = {"x86_64": 312, "aarch64": 272}[os.uname().machine]  # kcmp(2)
    call, pid = ctypes.CDLL(None, use_errno=True).syscall, os.getpid()
    handed = loaded.handover.descriptors
    same = [
        (one, other)
        for index, one in enumerate(handed)
        for other in handed[index + 1 :]
        if call(number, pid, pid, 0, one, other) == 0  # KCMP_FILE
    ]
    assert same == []


@pytest.mark.parametrize("missing", ["bpf", "perfmon"])
def test_each_of_the_two_is_needed(missing: str) -> None:
    """With one of the two, every kernel sensor is blind for want of privilege, and says so."""
    left = {"bpf": "perfmon", "perfmon": "bpf"}[missing]
    bounded = [f"--bounding-set=-all,+{left}", f"--inh-caps=-all,+{left}"]
    prefix = [*AS_IN_ITS_UNIT[: -len(BOUNDED)], "setpriv", *bounded]
    status, rows = _check(prefix)
    assert status == 1
    assert {rows[name]["reason"] for name in _ATTACHED} == {BlindReason.NO_PRIVILEGE.value}


def test_check_says_that_all_is_well_and_lets_go() -> None:
    """Exit status 0, every sensor attached but one for a driver that is not there; nothing stays behind."""
    status, rows = _check(AS_IN_ITS_UNIT)
    assert status == 0
    assert {name: rows[name]["state"] for name in _ATTACHED} == dict.fromkeys(_ATTACHED, "attached")
    if rows[_OF_A_DRIVER]["state"] == "blind":
        told = "this kernel has no tracepoint nvidia:nvidia_dev_xid (it is the module nvidia's)"
        assert rows[_OF_A_DRIVER]["detail"] == told


def test_without_headers_the_package_is_named(tmp_path: Path) -> None:
    """Headers that are not there blind everything with what to install, before the compiler complains."""
    empty = tmp_path / "empty"
    empty.mkdir()
    status, rows = _check(AS_IN_ITS_UNIT, BCC_KERNEL_SOURCE=str(empty))
    assert status == 1
    assert {row["reason"] for row in rows.values()} == {BlindReason.NO_HEADERS.value}
    assert all(str(empty) in str(row["detail"]) for row in rows.values())


def test_without_tracefs_the_mount_is_named() -> None:
    """A loader that may not mount says what to mount."""
    prefix = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        'umount -l /sys/kernel/tracing /sys/kernel/debug 2>/dev/null; exec "$@"',
        "sh",
        *BOUNDED,
    ]
    status, rows = _check(prefix)
    assert status == 1
    assert {row["reason"] for row in rows.values()} == {BlindReason.NO_KERNEL_SUPPORT.value}
    assert all("mount -t tracefs" in str(row["detail"]) for row in rows.values())


def test_a_person_without_root_is_told_what_it_takes() -> None:
    """Blind for want of privilege, not for a kernel that lacks something."""
    with tempfile.TemporaryDirectory() as folder:  # the checkout may lie where others cannot read
        Path(folder).chmod(0o755)
        copy = shutil.copytree(MAIN.parent.parent, Path(folder, "probes"))
        main = copy / MAIN.parent.name / MAIN.name
        status, rows = _check(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"], main=main)
    assert status == 1
    assert {row["reason"] for row in rows.values()} == {BlindReason.NO_PRIVILEGE.value}
    assert all("CAP_BPF and CAP_PERFMON" in str(row["detail"]) for row in rows.values())


_WITH_A_BROKEN_ONE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from probes.kernel.loader import load
from probes.kernel.programs import Attachment, KernelProgram
from probes.registry import programs
broken = KernelProgram("test.broken", sys.argv[2], (Attachment("broken", "oom:mark_victim"),), ("no_map",))
manifest = load((broken, *programs())).manifest
blind = [(e.sensor, e.blind) for e in manifest.sensors]
print(json.dumps([[name, told and told.reason, told and told.detail] for name, told in blind]))
"""


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("int broken(void *ctx) { return nonsense; }", "use of undeclared identifier 'nonsense'"),
        ("int broken(u64 *ctx) { return *(int *)0; }", "load broken: "),
        ("int other(void *ctx) { return 0; }", "load broken: Unknown program"),
        ("int broken(void *ctx) { return 0; }", "the program has no map no_map"),
    ],
    ids=["does not compile", "is refused by the verifier", "has no such function", "has no such map"],
)
def test_one_broken_program_blinds_itself_only(tmp_path: Path, source: str, complaint: str) -> None:
    """Whatever is wrong with one program, the others attach, and the reason is told."""
    (tmp_path / "broken.bpf.c").write_text(source)
    root = str(MAIN.parents[2])
    arguments = ["/usr/bin/python3", "-I", "-c", _WITH_A_BROKEN_ONE, root, str(tmp_path / "broken")]
    run = subprocess.run(
        [*AS_IN_ITS_UNIT, *arguments], capture_output=True, text=True, check=True, timeout=50
    )
    first, *others = json.loads(run.stdout)
    assert first[:2] == ["test.broken", BlindReason.ATTACH_FAILED.value]
    assert complaint in first[2]
    seeing = [name for name, reason, _ in others if reason is None and name != _OF_A_DRIVER]
    assert seeing == _ATTACHED


_AS_THE_PAGE_SAYS = """
import json, mmap, sys
sys.path.insert(0, sys.argv[1])
from probes.kernel.loader import load
from probes.kernel.programs import Attachment, KernelProgram
at = (Attachment("task_hang_found", "sched:sched_process_hang"),)
loaded = load((KernelProgram("kernel.task_hang", sys.argv[2], at, ("task_hang_events", "task_hang_ledger")),))
(entry,) = loaded.manifest.sensors
for each in entry.maps:
    mmap.mmap(loaded.descriptors[each.fd], mmap.PAGESIZE).close()
print(json.dumps([entry.blind and entry.blind.detail, [each.name for each in entry.maps]]))
"""


def test_the_program_of_the_page_on_adding_a_sensor_can_be_read(tmp_path: Path) -> None:
    """What docs/adding-a-sensor.md shows compiles, attaches, and has a ring and an account to map."""
    page = (MAIN.parents[2] / "docs/adding-a-sensor.md").read_text()
    (tmp_path / "task_hang.bpf.c").write_text(page.partition("```c\n")[2].partition("```")[0])
    arguments = ["-c", _AS_THE_PAGE_SAYS, str(MAIN.parents[2]), str(tmp_path / "task_hang")]
    run = subprocess.run(
        [*AS_IN_ITS_UNIT, "/usr/bin/python3", "-I", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert run.returncode == 0, run.stderr
    blind, maps = json.loads(run.stdout)
    assert blind is None
    assert maps == ["task_hang_events", "task_hang_ledger"]


def test_root_mounts_tracefs_for_itself_alone() -> None:
    """Unbounded root mounts it in a namespace of its own; the machine's mounts are as before."""
    before = Path("/proc/self/mounts").read_text()
    status, _ = _check([])
    assert status == 0
    assert Path("/proc/self/mounts").read_text() == before


def test_a_missing_tracepoint_blinds_its_own_sensor_only(tmp_path: Path) -> None:
    """A kernel without oom:mark_victim still tells of everything else."""
    # A tracefs in which one event is covered by an empty folder.
    hide = (
        "mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing;"
        f'mount --bind {tmp_path} /sys/kernel/tracing/events/oom/mark_victim; exec "$@"'
    )
    run = run_loader(tmp_path, prefix=["unshare", "--mount", "sh", "-c", hide, "sh", *BOUNDED])
    try:
        blind = {e.sensor: e.blind for e in run.handover.manifest.sensors if e.blind is not None}
        blind.pop(_OF_A_DRIVER, None)
        blind.pop(_UNDECLARED)
        assert list(blind) == ["kernel.oom_kill"]
        told = blind[SensorName("kernel.oom_kill")]
        assert told is not None
        assert told.reason is BlindReason.NO_KERNEL_SUPPORT
        assert told.detail == "this kernel has no tracepoint oom:mark_victim"
        spec = next(s for s in registry.SENSORS if s.name == "kernel.oom_kill")
        with pytest.raises(SensorBlind, match="no_kernel_support: this kernel has no tracepoint"):
            spec.build(registry.surroundings(run.handover)).open()
    finally:
        run.handover.close()


def test_a_disabled_sensor_is_not_loaded(tmp_path: Path) -> None:
    """What the configuration disables is blind by decision, and has no descriptor."""
    run = run_loader(tmp_path, config='disabled = ["kernel.listener"]\n', prefix=AS_IN_ITS_UNIT)
    try:
        entry = run.handover.entry(SensorName("kernel.listener"))
        assert entry is not None
        assert entry.blind is not None
        assert entry.blind.reason is BlindReason.DISABLED
        assert (entry.maps, entry.attachments) == ((), ())
        left_out = {"kernel.listener", _OF_A_DRIVER, _UNDECLARED}
        others = [e.blind for e in run.handover.manifest.sensors if e.sensor not in left_out]
        assert others == [None] * (len(_ATTACHED) - 1)
    finally:
        run.handover.close()


def test_a_capture_without_a_port_is_not_loaded(tmp_path: Path) -> None:
    """It would see nothing, which must not read as sight; and it needs no capability for that."""
    run = run_loader(tmp_path, config="[http]\nports = []\n", prefix=AS_IN_ITS_UNIT)
    try:
        entry = run.handover.entry(SensorName("http.routes"))
        assert entry is not None
        assert entry.blind == Blind(BlindReason.DISABLED, "no port is named in http.ports")
        assert (entry.maps, entry.attachments) == ((), ())
    finally:
        run.handover.close()


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (
            'disabled = ["kernel.lisener"]',
            ":4: sensors.disabled: no sensor 'kernel.lisener'; there are",
        ),
        ("disabled = 3", ":4: sensors.disabled: expected a list of sensor names"),
        ('socket = "relative"', ":4: sensors.socket: expected an absolute path"),
        ("colour = 1", ":4: sensors.colour: unknown key"),
        ("disabled = [", ": is not valid TOML"),
    ],
)
def test_a_broken_configuration_is_named(tmp_path: Path, config: str, complaint: str) -> None:
    """File, line and key, exit status 2, nothing loaded."""
    path = tmp_path / "agent.toml"
    path.write_text(f"[agent]\ncolour = 2\n[sensors]\n{config}\n")
    run = subprocess.run(
        ["/usr/bin/python3", "-I", str(MAIN), "load", "--config", str(path), "--agent-user", "0"],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert run.returncode == 2
    assert run.stderr.startswith(f"nanobot-probes: {path}:")
    assert complaint in run.stderr


def test_a_reader_without_privilege_sees_everything(loaded: LoadRun, cgroups: Callable[..., Cgroups]) -> None:
    """uid 65534 without a capability reads rings and tables through what it was handed."""
    group = cgroups()
    build = next(s.build for s in registry.SENSORS if s.name == "kernel.device_open")
    outcome, answer = os.pipe()
    group.python(
        "import os\nfor _ in range(31):\n    try: os.open('/dev/nvidia93', 2)\n    except OSError: pass"
    )
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            sensor = build(registry.surroundings(loaded.handover))
            sensor.open()
            seen = [o for o in sensor.read(now()) if isinstance(o, DeviceOpens)]
            sensor.close()
            count = sum(o.count for o in seen if o.origin.cgroup_id == group.id)
            status = Path("/proc/self/status").read_text().splitlines()
            capabilities = [line for line in status if line.startswith("CapEff")]
            os.write(answer, json.dumps([os.getuid(), count, capabilities]).encode())
        except BaseException as error:  # noqa: BLE001 - told to the parent, which fails on it
            os.write(answer, json.dumps(repr(error)).encode())
        finally:
            os._exit(0)
    os.close(answer)
    with os.fdopen(outcome, "rb") as result:
        told = json.loads(result.read())
    os.waitpid(child, 0)
    assert told == [65534, 31, ["CapEff:\t0000000000000000"]]


_STORM = """
import socket, time
count = 0
begin = time.monotonic()
while time.monotonic() < begin + {seconds} or count < {least}:
    for _ in range(100):
        s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(); s.close(); count += 1
    while count > {rate} / 2 * (time.monotonic() - begin):
        time.sleep(0.0005)
print(count)
"""
_UNBOUNDED = 10**9


def test_a_storm_is_seen_or_counted(
    loaded: LoadRun, watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups]
) -> None:
    """100 000 events a second through a ring of 1 MiB: every one is seen or counted as lost."""
    watching, group = watch("kernel.listener"), cgroups()
    child = group.start(_STORM.format(seconds=1.5, rate=100_000, least=51_000))
    sensor = watching.sensor
    seen = lost = 0
    try:
        while child.poll() is None:
            found = list(sensor.read(now()))
            seen += sum(1 for o in found if not isinstance(o, Gap) and _mine(o, group))
            lost += sum(o.lost for o in found if isinstance(o, Gap))
        found = list(sensor.read(now()))
        seen += sum(1 for o in found if not isinstance(o, Gap) and _mine(o, group))
        lost += sum(o.lost for o in found if isinstance(o, Gap))
        made = 2 * int(child.communicate()[0])
    finally:
        child.kill()
        child.wait(10)
    assert made > 100_000
    # Other sockets of this machine may be among the lost. And where a reader is preempted inside a map call
    # the kernel skips every tracepoint program of that CPU (bpf_prog_active): one event in a thousand.
    assert abs(seen + lost - made) <= made // 1000


def test_a_ring_that_overflows_counts_every_loss(
    loaded: LoadRun, cgroups: Callable[..., Cgroups], watch: Callable[[str], Watch]
) -> None:
    """Nobody reads for a while: what did not fit is in the count, to the last event, and told once."""
    watching, group = watch("kernel.listener"), cgroups()
    made = 2 * int(group.python(_STORM.format(seconds=2.0, rate=_UNBOUNDED, least=0)).stdout)
    found = list(watching.sensor.read(now()))
    seen = sum(1 for o in found if not isinstance(o, Gap) and _mine(o, group))
    lost = sum(o.lost for o in found if isinstance(o, Gap))
    assert lost > 0, f"{made} events all fit"
    # Other sockets of this machine are among the lost in about the proportion that they are among the seen.
    records = sum(1 for o in found if not isinstance(o, Gap))
    others = 2 * lost * (records - seen) // max(1, records)
    assert made - made // 1000 <= seen + lost <= made + made // 1000 + records - seen + others
    watching.sensor.settle()
    watching.sensor.close()
    again = HandedProgram(sensor=SensorName("kernel.listener"), stem="listener", handover=loaded.handover)
    again.open()
    assert again.losses(now()) == []
    again.close()


def _mine(seen: object, group: Cgroups) -> bool:
    listener = getattr(seen, "listener", None)
    return listener is not None and listener.origin.cgroup_id == group.id
