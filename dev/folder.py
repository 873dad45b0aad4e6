"""Where a development run keeps its files, so that each part reaches its own and no other.

Run by an ordinary user it is `.run` in the clone, and the parts run from the clone's own virtual environment.
Run by root the parts run as users of their own, who may not enter a clone under a private home folder:
there `.run` is a link to a folder below /var/lib/nanobot-dev, with a copy of the code that all can read.
Rejected: opening up the clone's modes (it is not ours to do), and dropping privilege after the imports (what
is imported later fails, and a process that began as root has seen more than it needs).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dev.ground import GroundError

SHARED = Path("/var/lib/nanobot-dev")
PACKAGES = ("agent", "probes", "escalation")
_CACHES = shutil.ignore_patterns("__pycache__")
_TOOLS = (
    "mypy*",
    "ruff*",
    "grpc_tools*",
    "hypothesis*",
    "_pytest*",
    "pytest*",
    "pip",
    "pip-*",
    "atheris*",
    "httptools*",  # a server takes it up by itself where it is installed, and users have none
    "jiter*",
    "openai*",
    "pydantic*",
    "__editable__*",
)


@dataclass(frozen=True, slots=True)
class Owner:
    """A user that a part runs as; None where the run has no privilege to give away."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A prepared folder: `path` holds state, configuration and logs, `python` runs the parts' code."""

    path: Path
    python: Path
    loader: Path
    agent: Owner | None
    orchestrator: Owner | None

    def state_of(self, part: str, owner: Owner | None) -> Path:
        """Make the folder of `part` that nobody but its owner may enter, and return it."""
        return private_folder(self.path / part, owner)


@contextlib.contextmanager
def claimed(clone: Path) -> Iterator[None]:
    """Hold the clone for the block's time; raise GroundError where another run has it.

    A second run would take away the first one's certificates, token and code while it uses them.
    """
    folder = os.open(clone, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise GroundError(
                f"{clone} is run already: end that run with Ctrl-C where it was begun"
            ) from error
        yield
    finally:
        os.close(folder)


def prepare(clone: Path, *, root: bool) -> RunFolder:
    """Make the folder and, for root, the copy of the code; what an earlier run stored is kept."""
    link = clone / ".run"
    if not root:
        if link.is_symlink():
            link.unlink()
        link.mkdir(mode=0o700, exist_ok=True)
        loader = clone / "probes/kernel/__main__.py"
        return RunFolder(link, Path(sys.executable), loader, agent=None, orchestrator=None)
    path = SHARED / hashlib.sha256(str(clone).encode()).hexdigest()[:12]
    for folder in (SHARED, path):
        folder.mkdir(mode=0o755, exist_ok=True)
        folder.chmod(0o755)  # whatever the caller's umask is
    if link.is_symlink() or link.is_file():
        link.unlink()
    elif link.is_dir():
        shutil.rmtree(link)  # of an earlier run without root
    link.symlink_to(path)
    code = _copy_code(clone, path)
    return RunFolder(
        path,
        code / "venv/bin/python",
        code / "loader/probes/kernel/__main__.py",
        agent=owner("nobody"),
        orchestrator=owner("daemon"),
    )


def owner(name: str) -> Owner:
    """Return the system's user `name`; raise GroundError where there is none."""
    import pwd  # noqa: PLC0415 - absent on platforms where this is never reached

    try:
        entry = pwd.getpwnam(name)
    except KeyError as error:
        raise GroundError(f"this system has no user {name!r} to run a part as") from error
    return Owner(name, entry.pw_uid, entry.pw_gid)


def private_folder(path: Path, owner: Owner | None) -> Path:
    """Make `path` for its owner alone."""
    path.mkdir(mode=0o700, exist_ok=True)
    path.chmod(0o700)
    if owner is not None:
        os.chown(path, owner.uid, owner.gid)
    return path


def _copy_code(clone: Path, path: Path) -> Path:
    """Copy the virtual environment and our packages, readable by all; the loader gets `probes` alone."""
    code, old = path / "code", path / "code.old"
    for stale in (old, code):
        shutil.rmtree(stale, ignore_errors=True)
    code.mkdir()
    done = subprocess.run(
        [str(_base_python()), "-m", "venv", "--without-pip", str(code / "venv")],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise GroundError(
            f"make a virtual environment in {code}: {done.stderr.strip() or done.stdout.strip()}"
        )
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = code / "venv/lib" / version / "site-packages"
    skipped = shutil.ignore_patterns(*_TOOLS, "__pycache__")
    shutil.copytree(sysconfig.get_path("purelib"), packages, ignore=skipped, dirs_exist_ok=True)
    for name in PACKAGES:
        shutil.copytree(clone / name, packages / name, ignore=_CACHES, dirs_exist_ok=True)
    shutil.copytree(clone / "probes", code / "loader/probes", ignore=_CACHES)
    subprocess.run(["chmod", "-R", "u=rwX,go=rX", str(code)], check=True)
    return code


def _base_python() -> Path:
    """Return the interpreter under the virtual environment; raise GroundError where others may not run it."""
    base = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    for folder in (base, *base.parents):
        if not folder.stat().st_mode & 0o001:
            raise GroundError(
                f"{base} cannot be run by an unprivileged user ({folder} is private): "
                f"make .venv with the system's own Python (rm -rf .venv; make setup)"
            )
    return base
