"""The clients: the real `openai` client and httpx, over a transport that keeps what the socket said."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.routes.scenarios import EMBED, OLLAMA_CHAT, OLLAMA_GENERATE, TEXT, Scenario
from tests.routes.truth import Recorded, Truth, events

_NEEDS = "needs the clients of the extra routes (dev/setup.sh tests installs them)"
httpx = pytest.importorskip("httpx", reason=_NEEDS)
openai = pytest.importorskip("openai", reason=_NEEDS)

SECRET = "sk-canary-5f2c9d71e0"


class _Body(httpx.AsyncByteStream):
    """A response body that is written down as it passes."""

    def __init__(self, inner: httpx.AsyncByteStream, kept: Recorded, begun: float) -> None:
        self._inner, self._kept, self._begun = inner, kept, begun

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._inner:
                self._kept.body += piece
                self._kept.duration_s = time.monotonic() - self._begun
                yield piece
        except (httpx.RemoteProtocolError, httpx.ReadError):
            self._kept.ended = "broken"
            raise
        self._kept.ended = "whole"
        self._kept.duration_s = time.monotonic() - self._begun

    async def aclose(self) -> None:
        await self._inner.aclose()


class Recording(httpx.AsyncBaseTransport):
    """httpx's own transport, and every exchange over it."""

    def __init__(self, connections: int) -> None:
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._inner = httpx.AsyncHTTPTransport(limits=limits)
        self.exchanges: list[Recorded] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        kept = Recorded(path=request.url.path, request=await request.aread())
        self.exchanges.append(kept)
        begun = time.monotonic()
        try:
            response = await self._inner.handle_async_request(request)
        except (httpx.RemoteProtocolError, httpx.ReadError):
            kept.ended = "broken"
            raise
        finally:
            kept.duration_s = time.monotonic() - begun
        kept.status = response.status_code
        kept.headers = dict(response.headers)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=_Body(response.stream, kept, begun),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


@dataclass(frozen=True, slots=True)
class Seen:
    """One driven scenario: what the client library made of it and what was true on its socket."""

    scenario: Scenario
    truth: Truth
    duration_s: float
    content: str  # as the client library gave it
    failed: str  # the exception that it raised, by name; empty: none


@dataclass
class Driver:
    """Clients of one server. `connections` at most are open, and all are kept alive."""

    url: str
    connections: int = 1
    key: str = SECRET
    _made: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def __aenter__(self) -> Driver:
        self._wire = Recording(self.connections)
        self._http = await self._made.enter_async_context(httpx.AsyncClient(transport=self._wire, timeout=20))
        self._openai = openai.AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, http_client=self._http
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._made.aclose()

    async def one(self, scenario: Scenario) -> Seen:
        """Ask once and say what came."""
        before = len(self._wire.exchanges)
        content, failed = "", ""
        try:
            async with asyncio.timeout(scenario.waits_s):
                content = await self._ask(scenario)
        except (openai.APIError, httpx.HTTPError, TimeoutError) as error:
            failed = type(error).__name__
        mine = [e for e in self._wire.exchanges[before:] if _is_of(e, scenario)]
        assert len(mine) == 1, f"{scenario.name}: {len(mine)} requests instead of one"
        return Seen(scenario, mine[0].truth(), mine[0].duration_s, content, failed)

    async def all(self, scenarios: Iterable[Scenario]) -> list[Seen]:
        """Ask for each in turn, on connections that are kept."""
        return [await self.one(scenario) for scenario in scenarios]

    async def at_once(self, scenarios: Iterable[Scenario]) -> list[Seen]:
        """Ask for all at the same time; each scenario once at most."""
        return list(await asyncio.gather(*(self.one(scenario) for scenario in scenarios)))

    async def _ask(self, scenario: Scenario) -> str:
        if scenario.reads_out:
            return await self._read_out(scenario)
        if scenario.path in (OLLAMA_CHAT, OLLAMA_GENERATE):
            return await self._native(scenario)
        if scenario.path == EMBED:
            await self._openai.embeddings.create(
                model=scenario.name, input=scenario.prompt, encoding_format="float"
            )
            return ""
        if scenario.path == TEXT:
            return await self._text(scenario)
        return await self._chat(scenario)

    async def _chat(self, scenario: Scenario) -> str:
        asks: dict[str, Any] = {
            "messages": [{"role": "user", "content": scenario.prompt}],
            "model": scenario.name,
            **scenario.asks,
        }
        if not scenario.stream:
            answer = await self._openai.chat.completions.create(**asks)
            return (answer.choices and answer.choices[0].message.content) or ""
        content, events = "", 0
        async with await self._openai.chat.completions.create(**asks, stream=True) as stream:
            async for event in stream:
                events += 1
                if event.choices:
                    content += event.choices[0].delta.content or ""
                if events == scenario.leaves_after:
                    break
        return content

    async def _read_out(self, scenario: Scenario) -> str:
        body = {
            "model": scenario.name,
            "messages": [{"role": "user", "content": scenario.prompt}],
            "stream": scenario.stream,
            **scenario.asks,
        }
        response = await self._http.post(self.url + scenario.path, json=body)
        body_ = events(response.content, response.headers["content-type"])
        said = [json.loads(data) for data in body_ if data != b"[DONE]"]
        return "".join(c["delta"].get("content") or "" for one in said for c in one.get("choices", ()))

    async def _text(self, scenario: Scenario) -> str:
        asks: dict[str, Any] = {"prompt": scenario.prompt, "model": scenario.name, **scenario.asks}
        if not scenario.stream:
            answer = await self._openai.completions.create(**asks)
            return answer.choices[0].text
        content = ""
        async with await self._openai.completions.create(**asks, stream=True) as stream:
            async for event in stream:
                content += (event.choices and event.choices[0].text) or ""
        return content

    async def _native(self, scenario: Scenario) -> str:
        body: dict[str, Any] = {"model": scenario.name, **scenario.asks, "stream": scenario.stream}
        if scenario.path == OLLAMA_CHAT:
            body["messages"] = [{"role": "user", "content": scenario.prompt}]
        else:
            body["prompt"] = scenario.prompt
        content = ""
        async with self._http.stream("POST", self.url + scenario.path, json=body) as response:
            async for line in response.aiter_lines():
                said = json.loads(line)
                content += said.get("response") or said.get("message", {}).get("content") or ""
        return content


def _is_of(exchange: Recorded, scenario: Scenario) -> bool:
    return f'"{scenario.name}"'.encode() in exchange.request
