"""From a real LiteLLM and a bad upstream to an operator's queue; and nothing of what was said is anywhere."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Cgroups, cgroups
from tests.routes.driver import SECRET, Driver
from tests.routes.product import Product
from tests.routes.scenarios import BY_NAME, CANARIES, SAYING, SCENARIOS
from tests.routes.serving import Server, Servers

pytestmark = [pytest.mark.root, pytest.mark.ebpf, pytest.mark.slow, pytest.mark.timeout(180)]

_ASKED = 12
__all__ = ["cgroups"]


@pytest.fixture
def litellm(servers: Servers, cgroups: Callable[..., Cgroups]) -> Iterator[Server]:
    """A LiteLLM in a cgroup of its own, as a unit or a container has one, by which its kind is known."""
    enter = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
    server = servers.start("litellm", prefix=("sh", "-c", enter, str(cgroups().folders[""])))
    yield server
    server.running.stop(deadline=time.monotonic() + 8)  # before its cgroup goes


async def test_empty_answers_behind_litellm_reach_the_queue(product: Product, litellm: Server) -> None:
    """A success in LiteLLM's eyes: a person is shown what to run, what it costs and what proves the cure."""
    assert litellm.upstream is not None
    async with Driver(litellm.url) as driver:
        for _ in range(_ASKED):
            seen = await driver.one(BY_NAME["whole-empty"])
            assert (seen.truth.status, seen.content) == (200, "")
    behind = product.entry("route.empty_completion", _subject(litellm.upstream))
    before = product.entry("route.empty_completion", _subject(litellm))
    for entry in (before, behind):
        assert (entry["state"], entry["action"]["whole"]) == ("proposed", True)
        assert entry["count"] >= 5
        assert entry["risk"]
        assert "none is empty for 10 minutes" in json.dumps(entry)
    assert [entry["evidence"][0]["server"] for entry in (before, behind)] == ["litellm", "other"]
    # The recommended command does what is said of it; its key, which this proxy asks nobody for, is left out.
    listed = json.loads(_get(before["action"]["command"][-1]))["data"]
    assert {entry["model_info"]["db_model"] for entry in listed} == {False}


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return bytes(answer.read())


def _subject(server: Server) -> str:
    return f"{server.port}/chat_completions whole-empty"


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield str(path.relative_to(folder)), path.read_bytes()


def _memory(pid: int) -> Iterator[tuple[str, bytes]]:
    """Yield what a core dump of a process would hold, but for the ring that the kernel fills with packets."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            found = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+\s*(.*)", line)
            assert found is not None
            first, last = int(found[1], 16), int(found[2], 16)
            if found[3][0] != "r" or "bpf-map" in found[4] or found[4] in ("[vvar]", "[vsyscall]"):
                continue
            try:
                memory.seek(first)
                yield line, memory.read(last - first)
            except (OSError, OverflowError):
                continue  # pages that no one may read, of devices and of the kernel


async def test_of_what_was_said_nothing_is_anywhere(product: Product, serve: Callable[[str], Server]) -> None:
    """Prompts, answers, thoughts, arguments, errors, keys: in no file, on no page, no longer in memory."""
    server = serve("uvicorn-asyncio")
    async with Driver(server.url) as driver:
        for scenario in SAYING * 5:
            await driver.one(scenario)
    async with Driver(server.url, connections=8, key="another") as driver:
        for _ in range(3):
            await driver.at_once([s for s in SCENARIOS if s.name.startswith(("whole-", "stream-ok"))][:24])
    canaries = {name: text.encode() for name, text in (*CANARIES.items(), ("key", SECRET))}
    metrics = product.page(f"http://127.0.0.1:{product.ports.metrics}/metrics")
    assert b"saying" in metrics  # the exchanges were seen
    places = [
        *_files(product.folder),
        ("the agent's metrics", metrics),
        ("the orchestrator's metrics", product.page(f"{product.url}/metrics")),
        ("the queue", json.dumps(product.queue()).encode()),
        *_memory(product.agent.pid),
    ]
    assert sum(len(data) for _, data in places) > 10_000_000
    found = [(place, name) for place, data in places for name, text in canaries.items() if text in data]
    assert found == []
