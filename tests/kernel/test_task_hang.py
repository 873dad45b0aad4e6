"""Tasks that the kernel's watchdog finds stuck, on real eBPF: a write to a frozen filesystem."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from probes.observation import TaskHung
from tests.kernel.conftest import Cgroups, Watch

pytestmark = [pytest.mark.root, pytest.mark.ebpf]


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
