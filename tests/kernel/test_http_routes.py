"""The whole sensor of model routes on real eBPF: a server that answers, and what is told of its answers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from probes.http.facts import Ending, FinishReason, Route, UnobservedReason
from probes.observation import Exchange, Observation, RequestsInFlight, Unobserved
from tests.kernel.conftest import Cgroups, LoadRun, Watch

pytestmark = [pytest.mark.root, pytest.mark.ebpf]

_PORT = 11434
# Server and clients in one process and one network namespace of its own, so that the port is free.
_SERVE = """
import ctypes, fcntl, http.client, http.server, json, os, socket, struct, sys, threading
assert ctypes.CDLL(None, use_errno=True).unshare(0x40000000) == 0, ctypes.get_errno()  # CLONE_NEWNET
with socket.socket() as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 0x41))
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if asked["model"] == "hangs":
            gate.wait(30)
        text = "" if asked["model"] == "empty" else "An answer with some words."
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 7, "completion_tokens": 0 if not text else 6, "total_tokens": 13}
        body = json.dumps({"model": asked["model"], "choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
gate = threading.Event()
server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
def ask(model, connection=None):
    c = connection or http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
    body = json.dumps({"messages": [{"role": "user", "content": "Tell me something."}], "model": model})
    c.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    return len(c.getresponse().read())
""".replace("PORT", str(_PORT))


def of(group: Cgroups, seen: list[Observation]) -> list[Exchange]:
    """Return the exchanges that a cgroup served."""
    return [o for o in seen if isinstance(o, Exchange) and o.origin.cgroup_id == group.id]


def test_tells_every_exchange_of_a_cgroup(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups]
) -> None:
    """Seven answers over one connection, two of them empty, are seven exchanges with their facts."""
    watching, group = watch("http.routes"), cgroups()
    models = ["qwen3", "empty", "qwen3", "qwen3", "empty", "qwen3", "qwen3"]
    done = group.python(
        _SERVE
        + "c = http.client.HTTPConnection('127.0.0.1', 11434, timeout=30)\n"
        + f"for m in {models}: ask(m, c)\n"
    )
    assert done.returncode == 0, done.stderr
    seen = of(group, watching.until(lambda found: len(of(group, found)) >= len(models)))
    assert [exchange.facts.name.model for exchange in seen] == models
    for exchange in seen:
        facts = exchange.facts
        assert (facts.name.port, facts.name.route) == (_PORT, Route.CHAT_COMPLETIONS)
        assert (facts.status, facts.ending, facts.finish) == (200, Ending.COMPLETE, FinishReason.STOP)
        empty = facts.name.model == "empty"
        assert facts.content_characters == (0 if empty else len("An answer with some words."))
        assert facts.completion_tokens == (0 if empty else 6)
        assert 0 < facts.duration_s < 30


def test_tells_of_a_request_that_waits(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups]
) -> None:
    """While nothing is answered the request is in flight; afterwards it is an exchange."""
    watching, group = watch("http.routes"), cgroups()
    with group.start(
        _SERVE
        + "t = threading.Thread(target=ask, args=('hangs',)); t.start()\n"
        + "print(flush=True); sys.stdin.readline(); gate.set(); t.join()\n"
    ) as server:
        assert server.stdout is not None
        server.stdout.readline()
        waits = [
            o
            for o in watching.until(lambda found: any(map(is_flight(group), found)), 20)
            if is_flight(group)(o)
        ]
        server.communicate("\n", timeout=30)
    assert waits
    assert isinstance(waits[-1], RequestsInFlight)
    assert (waits[-1].facts.requests, waits[-1].facts.waiting) == (1, 1)
    seen = watching.until(lambda found: bool(of(group, found)))
    assert [exchange.facts.name.model for exchange in of(group, seen)] == ["hangs"]


def is_flight(group: Cgroups) -> Callable[[Observation], bool]:
    """Return whether an observation tells of requests that a cgroup has not answered."""
    return lambda o: isinstance(o, RequestsInFlight) and o.origin.cgroup_id == group.id


def test_tls_is_told_as_not_to_be_seen(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups]
) -> None:
    """A connection that begins with a TLS hello is unobserved, with that reason, and no exchange."""
    watching, group = watch("http.routes"), cgroups()
    done = group.python(
        _SERVE + "s = socket.create_connection(('127.0.0.1', 11434))\n"
        "s.sendall(bytes.fromhex('1603010200010001fc0303') + bytes(200)); s.close()\n"
    )
    assert done.returncode == 0, done.stderr

    def told(found: list[Observation]) -> list[Unobserved]:
        return [o for o in found if isinstance(o, Unobserved) and o.origin.cgroup_id == group.id]

    seen = watching.until(lambda found: bool(told(found)))
    assert [(o.facts.reason, o.facts.count) for o in told(seen)] == [(UnobservedReason.TLS, 1)]
    assert of(group, seen) == []


def test_a_reader_without_the_programs_says_why(loaded: LoadRun) -> None:
    """The loader's word about the sensor stands in the manifest."""
    entry = next(e for e in loaded.handover.manifest.sensors if e.sensor == "http.routes")
    assert entry.blind is None
    assert len(entry.attachments) == 2
