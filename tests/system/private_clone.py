"""A clone in a folder that nobody but its owner may enter, with a virtual environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
_PACKAGES = ("agent", "probes", "escalation", "dev")
_TOOLS = ("mypy*", "ruff*", "grpc_tools*", "hypothesis*", "_pytest*", "pip", "pip-*", "__editable__*")


def make(folder: Path, *, uid: int) -> Path:
    """Make the clone below `folder` for the user `uid` and return it."""
    home = folder / "home"
    clone = home / "host-nanobot"
    clone.mkdir(parents=True)
    skipped = shutil.ignore_patterns(*_TOOLS, "__pycache__")
    for name in _PACKAGES:
        shutil.copytree(CHECKOUT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    venv = clone / ".venv"
    base = Path(getattr(sys, "_base_executable", sys.executable))
    subprocess.run([base, "-m", "venv", "--without-pip", venv], check=True, capture_output=True)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = venv / "lib" / version / "site-packages"
    shutil.copytree(sysconfig.get_path("purelib"), packages, ignore=skipped, dirs_exist_ok=True)
    (packages / "clone.pth").write_text(f"{clone}\n")
    script = venv / "bin/nanobotctl"
    script.write_text(f"#!{venv}/bin/python\nfrom escalation.cli.__main__ import main\nmain()\n")
    subprocess.run(["chmod", "-R", "go=", home], check=True)
    script.chmod(0o700)
    for path in (home, *home.rglob("*")):
        os.chown(path, uid, uid, follow_symlinks=False)
    folder.chmod(0o755)
    return clone
