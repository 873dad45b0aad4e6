"""A recording orchestrator: a real gRPC server with mutual TLS that remembers what it was sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, Self, cast

import grpc
import grpc.aio

from escalation.model import AgentId, BootId, Report
from escalation.wire import codec, credentials
from escalation.wire.channel import METHOD, SERVICE


class RecordingOrchestrator:
    """Takes batches, ignores what it has, acknowledges; can be stopped and started again on its port.

    Behaviour can be changed while it runs: `ack_pause_s` before each acknowledgement, `status` to refuse
    every stream with, `is_invalid` to refuse batches that hold such a report, `break_after` to cut a stream
    once when so many reports came (the last ones unacknowledged), `silent` to acknowledge nothing,
    `ack_beyond` to acknowledge so many more than came, `keep` to remember reports or only to count them.
    """

    def __init__(self, files: credentials.Files) -> None:
        self._files = files
        self._server: grpc.aio.Server | None = None
        self.port = 0
        self.reports: dict[tuple[AgentId, BootId, int], Report] = {}
        self.redelivered = 0
        self.batches = 0
        self.streams = 0
        self.complaints: list[str] = []
        self.ack_pause_s = 0.0
        self.status: grpc.StatusCode | None = None
        self.is_invalid: Callable[[Report], bool] = lambda _: False
        self.break_after: int | None = None
        self.silent = False
        self.ack_beyond = 0
        self.keep = True
        self.count = 0
        self.arrived = asyncio.Event()

    def __repr__(self) -> str:
        return f"<RecordingOrchestrator :{self.port} reports={len(self.reports)} streams={self.streams}>"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen on loopback, on the same port as before."""
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        handler = cast("Any", grpc.stream_stream_rpc_method_handler(cast("Any", self._escalate)))
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),)
        )
        server_credentials = credentials.for_server(self._files, note=self.complaints.append)
        self.port = self._server.add_secure_port(f"127.0.0.1:{self.port}", server_credentials)
        await self._server.start()

    async def stop(self) -> None:
        """Cut every stream and stop listening."""
        if self._server is not None:
            await self._server.stop(grace=None)
            self._server = None

    async def _escalate(
        self, batches: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        self.streams += 1
        came = 0
        async for batch in batches:
            if self.status is not None:
                await context.abort(self.status, "as the test asked")
            payloads = codec.split(batch)
            came += len(payloads)
            if self.break_after is not None and came >= self.break_after:
                self.break_after = None
                await context.abort(grpc.StatusCode.UNAVAILABLE, "broken by the test")
            committed = self._take(payloads)
            if committed is None:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a report that is invalid")
            if self.silent:
                continue
            if self.ack_pause_s:
                await asyncio.sleep(self.ack_pause_s)
            committed = replace(committed, sequence=committed.sequence + self.ack_beyond)
            await context.write(codec.encode_ack(committed))

    def _take(self, payloads: tuple[bytes, ...]) -> codec.Committed | None:
        self.batches += 1
        self.count += len(payloads)
        self.arrived.set()
        if not self.keep:
            last = codec.peek(payloads[-1])
            return codec.Committed(last.boot_id, last.sequence)
        reports = [codec.decode(payload) for payload in payloads]
        if any(self.is_invalid(report) for report in reports):
            return None
        for report in reports:
            key = (report.agent_id, report.boot_id, report.sequence)
            self.redelivered += key in self.reports
            if self.reports.setdefault(key, report) != report:
                self.complaints.append(f"another report under the known number {key}")
        return codec.Committed(reports[-1].boot_id, reports[-1].sequence)
