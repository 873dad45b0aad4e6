"""The servers under test as processes on loopback: started, waited for, ended, and what each was asked."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dev.processes import Part, Processes, Running
from tests.routes import scenarios

HERE = Path(__file__).resolve().parent
SERVED = HERE / "served"
VENV = HERE.parent.parent / ".venv"
_PYTHONS = {name: VENV / name / "bin" / "python" for name in ("servers", "litellm", "llamacpp")}
READY_S = 50.0
_PORTS = 40


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers."""

    name: str
    host: str
    port: int
    running: Running
    journal: Path
    upstream: Server | None = None

    @property
    def url(self) -> str:
        """Return where it is."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def asked(self) -> list[dict[str, Any]]:
        """Return what a misbehaving upstream was asked, in order."""
        if not self.journal.exists():
            return []
        return [json.loads(line) for line in self.journal.read_text().splitlines()]


def _free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, neither over IPv4 nor over IPv6."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket(socket.AF_INET6)) for _ in range(count)]
        for probe in probes:
            probe.bind(("::", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


class Servers:
    """Start servers of one folder; `processes` ends them."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.folder = folder
        self.ports = _free_ports(_PORTS)  # all of them known to a capture before the first server starts
        self._unused = list(self.ports)
        self._prefix: tuple[str, ...] = ()
        self.processes = processes
        self.scripts = folder / "scripts.json"
        self.scripts.write_text(scenarios.scripts())

    def start(self, kind: str, *, host: str = "127.0.0.1", prefix: tuple[str, ...] = ()) -> Server:
        """Start a server of `kind`, and what stands behind it, and wait; skip where it is not installed.

        `prefix` is a command that runs the server's own.
        """
        before, self._prefix = self._prefix, prefix
        try:
            return KINDS[kind](self, kind, host, self.unused_port())
        finally:
            self._prefix = before

    def unused_port(self) -> int:
        """Return a port of this run's own that no server has."""
        return self._unused.pop()

    def launch(
        self,
        name: str,
        command: list[str],
        *,
        host: str,
        port: int,
        environment: Mapping[str, str] | None = None,
        upstream: Server | None = None,
        ready: str = "/health",
    ) -> Server:
        """Start one process and wait until it answers."""
        journal = self.folder / f"{name}-{port}.journal"
        running = self.processes.start(
            Part(
                name=name,
                command=[*self._prefix, *command],
                capabilities=("sys_admin",) if self._prefix else (),
                log=self.folder / f"{name}-{port}.log",
                environment={
                    "ROUTES_SCRIPTS": str(self.scripts),
                    "ROUTES_JOURNAL": str(journal),
                    "ROUTES_HOST": host,
                    "ROUTES_PORT": str(port),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    **(environment or {}),
                },
            )
        )
        server = Server(name, host, port, running, journal, upstream)
        _await(server, ready)
        return server


def _await(server: Server, path: str) -> None:
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        if server.running.status is not None:
            break
        try:
            with urllib.request.urlopen(server.url + path, timeout=2):
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"{server.name} does not answer: {server.running.last_words(20)}")


def _program(name: str, package: str) -> str:
    found = shutil.which(name, path=f"{VENV}/nginx/usr/sbin:{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip(f"needs {name} (package {package}; dev/setup.sh tests installs it)")
    return found


def _python(name: str) -> str:
    """Return the interpreter of an environment of the tests' own."""
    if not _PYTHONS[name].exists():
        pytest.skip(f"needs .venv/{name} (dev/setup.sh tests makes it)")
    return str(_PYTHONS[name])


def _uvicorn(loop: str, http: str) -> Callable[[Servers, str, str, int], Server]:
    def start(servers: Servers, kind: str, host: str, port: int) -> Server:
        command = [_python("servers"), "-m", "uvicorn", "asgi:app", "--app-dir", str(SERVED)]
        command += ["--host", host, "--port", str(port), "--loop", loop, "--http", http]
        command += ["--no-access-log", "--no-proxy-headers", "--lifespan", "off"]
        return servers.launch(kind, command, host=host, port=port)

    return start


def _granian(servers: Servers, kind: str, host: str, port: int) -> Server:
    command = [_python("servers"), "-m", "granian", "asgi:app", "--working-dir", str(SERVED)]
    command += ["--interface", "asginl", "--host", host, "--port", str(port), "--no-ws", "--no-access-log"]
    return servers.launch(kind, command, host=host, port=port)


def _node(servers: Servers, kind: str, host: str, port: int) -> Server:
    return servers.launch(kind, [_program("node", "nodejs"), str(SERVED / "http.js")], host=host, port=port)


def _go(servers: Servers, kind: str, host: str, port: int) -> Server:
    program = servers.folder / "upstream-go"
    if not program.exists():
        subprocess.run(
            [_program("go", "golang-go"), "build", "-o", str(program), str(SERVED / "main.go")],
            check=True,
            cwd=servers.folder,
            timeout=120,
            env={**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod", "GO111MODULE": "off"},
        )
    return servers.launch(kind, [str(program)], host=host, port=port)


def _nginx(template: str) -> Callable[[Servers, str, str, int], Server]:
    def start(servers: Servers, kind: str, host: str, port: int) -> Server:
        nginx = _program("nginx", "nginx")
        upstream = servers.start("uvicorn-uvloop")
        folder = servers.folder / f"{kind}-{port}"
        folder.mkdir()
        settings = (SERVED / "nginx.conf").read_text()
        for word, value in {
            "FOLDER": str(folder),
            "LISTEN": f"{host}:{port}",
            "UPSTREAM": f"{upstream.host}:{upstream.port}",
            "EXTRA": template,
        }.items():
            settings = settings.replace(f"@{word}@", value)
        (folder / "nginx.conf").write_text(settings)
        command = [nginx, "-e", str(folder / "error.log"), "-p", str(folder), "-c", "nginx.conf"]
        return servers.launch(kind, command, host=host, port=port, upstream=upstream)

    return start


def _litellm(servers: Servers, kind: str, host: str, port: int) -> Server:
    program = Path(_python("litellm")).with_name("litellm")
    upstream = servers.start("node")
    settings = servers.folder / f"litellm-{port}.yaml"
    settings.write_text((SERVED / "litellm.yaml").read_text().replace("@UPSTREAM@", upstream.url))
    command = [str(program), "--config", str(settings), "--host", host, "--port", str(port)]
    return servers.launch(
        kind,
        [*command, "--telemetry", "False"],
        host=host,
        port=port,
        upstream=upstream,
        ready="/health/liveliness",
        environment={
            "HOME": str(servers.folder),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
            "LITELLM_MODE": "PRODUCTION",
            "NO_DOCS": "True",
        },
    )


def _llamacpp(servers: Servers, kind: str, host: str, port: int) -> Server:
    model = servers.folder / f"tiny-{port}.gguf"
    command = [_python("llamacpp"), str(SERVED / "llamacpp.py"), str(model)]
    return servers.launch(kind, command, host=host, port=port)


KINDS: Mapping[str, Callable[[Servers, str, str, int], Server]] = {
    "uvicorn-asyncio": _uvicorn("asyncio", "h11"),
    "uvicorn-uvloop": _uvicorn("uvloop", "httptools"),
    "granian": _granian,
    "node": _node,
    "go": _go,
    "nginx-unbuffered": _nginx("proxy_buffering off;"),
    "nginx-gzip": _nginx(
        "proxy_buffering on; gzip on; gzip_min_length 1; gzip_proxied any; "
        "gzip_types application/json text/event-stream application/x-ndjson;"
    ),
    "litellm": _litellm,
    "llamacpp": _llamacpp,
}
