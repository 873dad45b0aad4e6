"""The stale container in a booted host: a server loses the GPU, computes on the CPU, and still answers 200.

Real: the service manager and its reload, the device control group that refuses the node, the kernel sensors,
the HTTP traffic, the cores that burn. Stood in for: the driver's library (`tests/fake_nvml`), whose list of
processes the server keeps itself, as a driver would: it is on it while it has the node open. A server of this
kind looks for its GPU when it loads a model and falls back to the CPU without a word.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fake_nvml.fake import NAME, build
from tests.fake_nvml.profiles import LAPTOP, Machine
from tests.system.booted_host import BootedHost
from tests.system.deployment import AGENT, Deployment
from tests.system.gpu_workload import DEVICES, GpuWorkload

pytestmark = [
    pytest.mark.root,
    pytest.mark.systemd,
    pytest.mark.ebpf,
    pytest.mark.slow,
    pytest.mark.timeout(300),
]

UNIT = "ollama.service"
FALLBACK = "gpu.cpu_fallback"
FOLDER = "/opt/fake-nvml"

_PLACEMENT = """
[[placement]]
unit = "ollama.service"
on = "gpu"

[detectors.gpu_placement]
cores = 0.2
window_s = 10
lasting_s = 5
absent_s = 2
clear_hold_s = 1
"""

# A request that finds the node is answered at once, any other after a second of a core's time; both with 200.
_SERVER = f"""\
import http.server, json, os, time
ALONE = open("{FOLDER}/alone").read()

def listed(on):
    line = f"process compute {{os.getpid()}} 1073741824 4294967295 4294967295\\n" if on else ""
    with open("{FOLDER}/fresh", "w") as file:
        file.write(ALONE + line)
    os.replace("{FOLDER}/fresh", "{FOLDER}/state")

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        try:
            os.close(os.open("/dev/nvidiactl", os.O_RDWR))
            listed(True)
        except OSError:
            listed(False)
            until = time.process_time() + 1
            while time.process_time() < until:
                sum(range(10000))
        message = {{"role": "assistant", "content": "an answer " * 20}}
        choice = {{"index": 0, "message": message, "finish_reason": "stop"}}
        usage = {{"prompt_tokens": 9, "completion_tokens": 40}}
        body = json.dumps({{"object": "chat.completion", "choices": [choice], "usage": usage}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", 11434), Handler).serve_forever()
"""
_CLIENT = """\
import json, os, time, urllib.request
answers = 0
body = json.dumps({"model": "qwen3", "messages": [{"role": "user", "content": "x"}]}).encode()
while True:
    try:
        request = urllib.request.Request(
            "http://127.0.0.1:11434/v1/chat/completions", body, {"Content-Type": "application/json"}
        )
        answers += urllib.request.urlopen(request, timeout=30).status == 200
        with open("/run/answers.new", "w") as file:
            file.write(str(answers))
        os.replace("/run/answers.new", "/run/answers")
    except OSError:
        pass
    time.sleep(0.2)
"""


@contextlib.contextmanager
def ollama(host: BootedHost) -> Iterator[GpuWorkload]:
    """Run a server that is called Ollama, and somebody who asks it without a pause."""
    if not (DEVICES / "devices.deny").exists() and not (DEVICES / "devices.list").exists():
        pytest.skip("needs the v1 hierarchy of device control groups at /sys/fs/cgroup/devices")
    group = DEVICES / f"{host.name}-{os.getpid()}"
    host.shell("test -e /dev/nvidiactl || mknod -m 666 /dev/nvidiactl c 1 3")
    host.write("/opt/ollama.py", _SERVER)
    host.write("/opt/client.py", _CLIENT)
    command = "@/usr/bin/python3 ollama /opt/ollama.py serve"
    host.write(f"/etc/systemd/system/{UNIT}", f"[Service]\nExecStart={command}\n")
    host.write("/etc/systemd/system/client.service", "[Service]\nExecStart=/usr/bin/python3 /opt/client.py\n")
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "start", UNIT, "client.service")
    group.mkdir()
    try:
        pid = host.outer_pid(int(host.show(UNIT, "MainPID")))
        (group / "cgroup.procs").write_text(str(pid))
        yield GpuWorkload(host=host, unit=UNIT, group=group)
    finally:
        host.run("systemctl", "stop", UNIT, "client.service", check=False)
        with contextlib.suppress(OSError):
            group.rmdir()


@pytest.fixture
def with_gpu(deployment: Deployment, tmp_path: Path) -> Deployment:
    """The deployment on a host whose driver lists nobody yet, and with what the operator declared."""
    host = deployment.host
    built = build(tmp_path)
    host.path(FOLDER).mkdir(exist_ok=True)
    host.path(f"{FOLDER}/{NAME}").write_bytes(built.read_bytes())
    host.write(f"{FOLDER}/alone", Machine((LAPTOP,)).text())
    host.write(f"{FOLDER}/state", Machine((LAPTOP,)).text())
    settings = host.path("/etc/nanobot/agent.toml").read_text()
    host.write("/etc/nanobot/agent.toml", settings + _PLACEMENT)
    deployment.environment(AGENT, {"LD_LIBRARY_PATH": FOLDER, "FAKE_NVML_STATE": f"{FOLDER}/state"})
    host.run("systemctl", "restart", AGENT)
    deployment.settle()
    return deployment


def test_a_stale_container_is_one_decision_and_its_cure_is_proven_by_placement(with_gpu: Deployment) -> None:
    """The refusal explains the fallback, one restart is advised, and the list of the driver proves it."""
    host = with_gpu.host
    with ollama(host) as workload:
        host.wait(
            "the driver lists the server", lambda: "process" in host.path(f"{FOLDER}/state").read_text()
        )
        assert with_gpu.queue() == []
        host.run("systemctl", "daemon-reload")
        workload.revoke()
        entry = with_gpu.until_entry(fault_class="gpu.access_revoked", host=host.name, state="proposed")
        host.wait("the fallback is seen", lambda: bool(_incidents(with_gpu, FALLBACK)), within_s=90)

        (fallback,) = _incidents(with_gpu, FALLBACK)
        assert fallback["explained_by"] == entry["incident_id"]
        assert fallback["subject"] == {"kind": "unit", "name": UNIT}
        assert _says(fallback, "kept many cores busy", "lists none of the server's processes")
        (only,) = with_gpu.queue(state="proposed")
        assert only["action"]["command"] == ["systemctl", "restart", UNIT]
        assert [each["fault_class"] for each in only["explains"]] == [FALLBACK]
        assert _says(only, "The service manager read its units again")

        answered = _answers(host)
        host.wait("requests go on being answered with 200", lambda: _answers(host) > answered + 3)
        assert [each["open"] for each in _incidents(with_gpu, FALLBACK)] == [True]

        host.run("nanobotctl", "approve", only["id"], "--reason", "drained")
        workload.restore()
        host.run(*only["action"]["command"])
        host.run("nanobotctl", "done", only["id"])
        with_gpu.until_entry(id=only["id"], state="verified", within_s=60)
        host.wait("the fallback is over", lambda: not _incidents(with_gpu, FALLBACK)[0]["open"], within_s=90)
        (over,) = _incidents(with_gpu, FALLBACK)
        assert _says(over, "The driver lists the server's processes on a GPU again")
        assert with_gpu.queue(state="proposed") == []


def _incidents(deployment: Deployment, fault_class: str) -> list[dict[str, Any]]:
    return [each for each in deployment.ask("incidents") if each["fault_class"] == fault_class]


def _says(shown: dict[str, Any], *words: str) -> bool:
    told = " ".join(shown["reasons"])
    return all(word in told for word in words)


def _answers(host: BootedHost) -> int:
    return int(host.path("/run/answers").read_text())
