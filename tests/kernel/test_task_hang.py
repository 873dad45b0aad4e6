"""Tasks that the kernel's watchdog finds stuck, on real eBPF: a write to a frozen filesystem."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probes.observation import TaskHung
from tests.kernel.conftest import Cgroups, Watch

pytestmark = [pytest.mark.root, pytest.mark.ebpf]

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


@pytest.mark.usefixtures("impatient_kernel")
def test_a_task_that_hangs_is_told_by_its_process(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups], frozen: Path
) -> None:
    """The watchdog's word, with the process of the stuck task and its group."""
    watching, group = watch("kernel.task_hang"), cgroups()
    process = group.start(f"open({str(frozen / 'file')!r}, 'w').write('x')")

    def mine(found: object) -> bool:
        return isinstance(found, TaskHung) and found.origin.pid == process.pid

    try:
        told = next(filter(mine, watching.until(lambda found: any(map(mine, found)), 8)), None)
    finally:
        subprocess.run(["fsfreeze", "-u", frozen], check=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=10)
    assert isinstance(told, TaskHung)
    assert told.origin.cgroup_path == group.name
    assert (told.origin.process_name or "").startswith("python")
    assert process.returncode == 0
