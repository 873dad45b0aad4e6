"""Markers that need more than an interpreter skip loudly, and a run ends with a count of skips per reason.

Property tests ask for the same examples in every run, so that a run tells of the change and not of its luck,
and none has a deadline. `make fuzz` asks for new ones (`--hypothesis-profile=searching`).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

from dev import postgres

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("searching", deadline=None)
settings.load_profile("repeatable")


@cache
def _no_root() -> str | None:
    return None if os.geteuid() == 0 else "needs root"


@cache
def _no_ebpf() -> str | None:
    if os.geteuid() != 0:
        return "needs root to load eBPF programs"
    if not os.access("/usr/bin/python3", os.X_OK):
        return "needs the system's own Python at /usr/bin/python3"
    try:
        level = int(Path("/proc/sys/kernel/perf_event_paranoid").read_text())
    except (OSError, ValueError):
        return "needs a kernel with perf events"
    if level > 2:
        return "needs kernel.perf_event_paranoid at 2 or less, as installing an agent sets it"
    found = subprocess.run(
        ["/usr/bin/python3", "-I", "-c", "import bcc"], capture_output=True, check=False, timeout=60
    )
    return None if found.returncode == 0 else "needs bcc's Python bindings (package python3-bpfcc)"


@cache
def _no_systemd() -> str | None:
    if os.geteuid() != 0:
        return "needs root to boot a container"
    return None if shutil.which("systemd-nspawn") else "needs systemd-nspawn (package systemd-container)"


@cache
def _no_gpu() -> str | None:
    return None if Path("/dev/nvidiactl").exists() else "needs an NVIDIA GPU with its driver"


@cache
def _no_postgres() -> str | None:
    return None if postgres.programs() is not None else "needs PostgreSQL's server (dev/setup.sh tests)"


@cache
def _no_chromium() -> str | None:
    if not Path("/usr/bin/chromium").exists():
        return "needs a browser (package chromium)"
    return None if importlib.util.find_spec("playwright") else "needs playwright (dev/setup.sh tests)"


_NEEDS = {
    "root": _no_root,
    "ebpf": _no_ebpf,
    "gpu": _no_gpu,
    "systemd": _no_systemd,
    "postgres": _no_postgres,
    "chromium": _no_chromium,
}


_ON_THE_MACHINE = frozenset({"root", "ebpf", "gpu", "systemd"})
_PLACES = (
    "agent/drills",
    "bench",
    "dev",
    "escalation/server/test_gpu_queue.py",
    "kernel",
    "monitoring",
    "probes/gpu",
    "probes/host",
    "real",
    "routes",
    "system",
)
_TESTS = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, with the reason; mark what has to have the machine for itself.

    Those that load programs, boot hosts or start servers see what everybody else does meanwhile, so they run
    alone; the rest may run side by side.
    """
    for item in items:
        if _is_on_the_machine(item):
            item.add_marker("machine")
        for marker, reason_of in _NEEDS.items():
            if item.get_closest_marker(marker) is not None:
                reason = reason_of()
                if reason is not None:
                    item.add_marker(pytest.mark.skip(reason=reason))
                    break


def _is_on_the_machine(item: pytest.Item) -> bool:
    if any(item.get_closest_marker(marker) for marker in _ON_THE_MACHINE):
        return True
    return any(item.path.is_relative_to(_TESTS / place) for place in _PLACES)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count the skips by reason."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        told = report.longrepr
        reasons[told[2].removeprefix("Skipped: ") if isinstance(told, tuple) else str(told)] += 1
    if reasons:
        terminalreporter.section("skipped, by reason")
        for reason, count in sorted(reasons.items()):
            terminalreporter.write_line(f"{count:5d}  {reason}")
