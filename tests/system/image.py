"""The product as `systemd/install.sh` puts it on a host, built once per test run as a layer over our root.

What the virtual environment of the checkout already holds is copied in beforehand, so that the install
script's own pip finds every requirement met and nothing is fetched.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from contextlib import AbstractContextManager
from pathlib import Path

from tests.system.booted_host import HostError, layer_over_root

CHECKOUT = Path(__file__).resolve().parents[2]
_OURS = (
    "agent",
    "probes",
    "escalation",
    "__editable__*",
    "host_nanobot*",
    "__pycache__",
    "mypy*",
    "ruff*",
    "grpc_tools*",
    "hypothesis*",
)
_SOURCES = ("agent", "probes", "escalation", "systemd", "docs", "pyproject.toml", "README.md", "LICENSE")


def installed() -> AbstractContextManager[Path]:
    """Yield a layer that holds the checkout's agent and orchestrator, installed."""
    return layer_over_root(_install)


def _install(root: Path) -> None:
    source = root / "opt/source"
    for name in _SOURCES:
        _copy(CHECKOUT / name, source / name)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = root / "opt/nanobot/venv/lib" / version / "site-packages"
    _run("chroot", str(root), "/usr/bin/python3", "-m", "venv", "--without-pip", "/opt/nanobot/venv")
    shutil.rmtree(packages)
    ours = shutil.ignore_patterns(*_OURS)
    shutil.copytree(sysconfig.get_path("purelib"), packages, ignore=ours, symlinks=True)
    _run(
        sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps", "--no-index",
        "--no-build-isolation", "-w", str(source), str(source),
    )  # fmt: skip
    wheel = next(source.glob("*.whl")).name
    _run(
        "chroot", str(root), "/usr/bin/env", "PIP_NO_INDEX=1", "PIP_ROOT_USER_ACTION=ignore",
        "/opt/source/systemd/install.sh", "--wheel", f"/opt/source/{wheel}", "agent", "orchestrator",
    )  # fmt: skip
    shutil.rmtree(source)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    elif source.exists():
        shutil.copy2(source, target)


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise HostError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
