"""The product as it runs on a host, in processes of its own: orchestrator, agent and the loader's one run."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dev import folder, setup_files, up
from dev.folder import RunFolder
from dev.processes import Processes, Running
from dev.screen import Api
from dev.units import environment_of
from probes import registry
from probes.http.routes import NAME
from tests.kernel.conftest import AS_IN_ITS_UNIT

CLONE = Path(__file__).resolve().parents[2]
# The agent's unit has the allocator overwrite what is freed: what a search of its memory finds is held.
WIPING = environment_of("nanobot-agent.service")
_UP_S = 45.0


@dataclass(frozen=True, slots=True)
class Product:
    """What runs, and where everything that it writes lies."""

    folder: Path
    agent: Running
    api: Api
    ports: setup_files.Ports
    url: str
    token: str

    def queue(self) -> list[dict[str, Any]]:
        """Return what waits for a person."""
        return list(self.api.get("queue?state=all")["entries"])

    def until(self, enough: Callable[[], bool], within_s: float = 40.0) -> bool:
        """Wait until it is so; say whether it came."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            if enough():
                return True
            time.sleep(0.2)
        return False

    def entry(self, fault_class: str, subject: str) -> dict[str, Any]:
        """Wait for the entry of a fault and return it whole."""

        def found() -> list[str]:
            return [
                str(entry["id"])
                for entry in self.queue()
                if entry["fault_class"] == fault_class and entry["subject"]["name"] == subject
            ]

        assert self.until(lambda: bool(found())), json.dumps(self.queue(), indent=1)
        (number,) = found()
        return self.api.get(f"queue/{number}")

    def page(self, url: str) -> bytes:
        """Return a page as an operator gets it."""
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bytes(answer.read())


@contextlib.contextmanager
def _home() -> Iterator[RunFolder]:
    """Lend a folder with a copy of the code that the parts' own users can read."""
    path = Path(tempfile.mkdtemp(prefix="nanobot-routes-"))
    try:
        path.chmod(0o755)
        code = folder._copy_code(CLONE, path)
        yield RunFolder(
            path,
            code / "venv/bin/python",
            code / "loader/probes/kernel/__main__.py",
            agent=folder.owner("nobody"),
            orchestrator=folder.owner("daemon"),
        )
    finally:
        shutil.rmtree(path)


def _watch(files: setup_files.Files, watched: Sequence[int]) -> None:
    """Have only the routes of these ports be watched."""
    others = [spec.name for spec in registry.SENSORS if spec.name != NAME]
    text = files.agent.read_text().replace("[sensors]\n", f"[sensors]\ndisabled = {json.dumps(others)}\n")
    files.agent.write_text(f"{text}\n[http]\nports = {json.dumps(list(watched))}\n")


def _await(part: Running, ready: Callable[[], bool]) -> None:
    end = time.monotonic() + _UP_S
    while not ready():
        assert part.status is None, part.last_words(20)
        assert time.monotonic() < end, f"{part!r} is not ready: {part.last_words(20)}"
        time.sleep(0.1)


@contextlib.contextmanager
def running(watched: Sequence[int], ports: setup_files.Ports) -> Iterator[Product]:
    """Start everything with the capture on the ports `watched`; end it with the block."""
    with _home() as home, setup_files.written(home, ports) as files, Processes() as processes:
        _watch(files, watched)
        api = Api(url=files.url, token=files.token)
        orchestrator = processes.start(up._orchestrator(home, files))
        _await(orchestrator, api.ready)
        agent = processes.start(replace(up._agent(home, files), environment=WIPING))
        _await(agent, files.handover.exists)
        loaded = subprocess.run(
            [*AS_IN_ITS_UNIT, *up._loader(home, files).command],
            capture_output=True,
            text=True,
            check=False,
            timeout=_UP_S,
        )
        assert loaded.returncode == 0, loaded.stdout + loaded.stderr
        product = Product(home.path, agent, api, ports, files.url, files.token)
        seeing = product.until(
            lambda: any(
                row["sensor"] == NAME and row["seeing"]
                for host in api.get("hosts")["hosts"]
                for row in host["coverage"]
            )
        )
        assert seeing, agent.last_words(20)
        yield product
