"""Every bad shape on the wire of a real server reaches the queue as its own fault, and no look-alike does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.routes.driver import Driver
from tests.routes.product import Product
from tests.routes.scenarios import BY_NAME
from tests.routes.serving import Server

pytestmark = [pytest.mark.root, pytest.mark.ebpf, pytest.mark.slow, pytest.mark.timeout(180)]

_TIMES, _TIMES_AT_MOST = 12, 60
_PAUSE_S = 0.5
_FAULTS = {
    "whole-null": "route.empty_completion",
    "stream-empty": "route.empty_completion",
    "ollama-empty": "route.empty_completion",
    "text-empty": "route.empty_completion",
    "whole-reasoning-length": "route.reasoning_budget_exhausted",
    "whole-reasoning-stop": "route.answer_misrouted",
    "stream-reasoning-stop": "route.answer_misrouted",
    "whole-marks": "route.answer_misrouted",
    "degenerate-loop": "route.degenerate_output",
    "degenerate-marks": "route.degenerate_output",
    "degenerate-blank": "route.degenerate_output",
    "degenerate-fragments": "route.degenerate_output",
    "stream-degenerate": "route.degenerate_output",
    "stream-cut": "route.broken_stream",
    "stream-reset": "route.broken_stream",
    "stream-no-done": "route.broken_stream",
    "stream-no-finish": "route.broken_stream",
    "stream-error": "route.broken_stream",
    "stream-error-left": "route.broken_stream",
    "ollama-error": "route.broken_stream",
    "ollama-not-done": "route.broken_stream",
    "whole-cut": "route.broken_stream",
    "whole-error-in-200": "route.broken_stream",
    "whole-context": "route.context_overflow",
    "ollama-busy": "route.saturated",
    "whole-429": "route.saturated",
}
_SOUND = (
    "sound-table",
    "sound-code",
    "sound-exclaims",
    "sound-indented",
    "sound-short",
    "whole-ok",
    "whole-length",
    "whole-tool-valid",
    "whole-tools-not-called",
    "whole-reasoning-and-answer",
    "whole-spoofing",
    "whole-big-request",
    "embeddings-ok",
    "text-ok",
    "stream-usage",
    "stream-comments",
    "stream-crlf",
    "stream-tools",
    "stream-length",
    "stream-reasoning",
    "stream-reasoning-length",  # three tokens allowed: a probe
    "stream-cancelled",
    "ollama-stream",
    "ollama-length",
    "ollama-thinking",
    "ollama-tools",
)


async def test_bad_shapes_are_cases_and_look_alikes_are_none(
    product: Product, serve: Callable[[str], Server]
) -> None:
    """A dozen of each, mixed, through one server: each opens its own fault or nothing.

    Where the machine is too busy for the ring to be read in time, what ends by a close is not judged: it is
    asked for until there was enough of it.
    """
    server = serve("go")

    def found() -> dict[str, str]:
        named = ((entry["subject"]["name"], entry["fault_class"]) for entry in product.queue())
        here = f"{server.port}/"
        return {name.rpartition(" ")[2]: fault for name, fault in named if name.startswith(here)}

    async with Driver(server.url, connections=8) as driver:
        for asked in range(_TIMES_AT_MOST):
            await driver.at_once(BY_NAME[name] for name in (*_FAULTS, *_SOUND))
            await asyncio.sleep(_PAUSE_S)
            if asked >= _TIMES and set(found()) >= set(_FAULTS):
                break
    assert found() == _FAULTS
