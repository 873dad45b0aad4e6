"""The capture on the servers' ports and an observer behind it, read beside the clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from probes import registry
from probes.host.clock import now
from probes.http.facts import ExchangeFacts, FlightFacts, UnobservedFacts
from probes.http.observer import Observer
from probes.http.segment import Segment
from probes.kernel import handover
from probes.kernel.capture import capture_of
from probes.kernel.http_capture import NAME
from tests.kernel.conftest import AS_IN_ITS_UNIT, run_loader

_READ_S = 0.02
_QUIET_S = 0.2


def load_capture(folder: Path, ports: Iterable[int], *, way: str = "cgroup") -> handover.Handover:
    """Have the loader attach the capture to `ports`, with its own privileges; take what it hands over."""
    others = [spec.name for spec in registry.SENSORS if spec.name != NAME]
    table = f"[http]\nports = {json.dumps(list(ports))}\ncapture = {json.dumps(way)}\n"
    prefix = AS_IN_ITS_UNIT
    if way == "packet":
        prefix = [word.replace("+net_admin", "+net_admin,+net_raw") for word in prefix]
    run = run_loader(folder, config=f"disabled = {json.dumps(others)}\n{table}", prefix=prefix)
    assert run.status == 0, run.said
    return run.handover


class Observing:
    """Reads the capture into an observer for the time of a block, and keeps what it says of some ports."""

    def __init__(
        self,
        handed: handover.Handover,
        *ports: int,
        observer: Observer | None = None,
        also: Callable[[Segment], None] | None = None,
    ) -> None:
        self._capture = capture_of(handed)
        self._ports = frozenset(ports)
        self.observer = observer or Observer()
        self._also = also
        self.exchanges: list[ExchangeFacts] = []
        self.unobserved: list[UnobservedFacts] = []
        self.lost = 0
        self.holes_in_answers = 0  # pieces of answers that the capture left out of long segments
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Observing:
        self._capture.open()
        await asyncio.sleep(_QUIET_S)  # the last of what went on before
        for _ in self._capture.segments():
            pass
        self._capture.losses(now())
        self._reading = asyncio.ensure_future(self._read_on())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._reading is not None
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._capture.close()

    async def _read_on(self) -> None:
        while True:
            self.read()
            await asyncio.sleep(_READ_S)

    def read(self) -> None:
        """Take what was captured since the last time."""
        for segment in self._capture.segments():
            if segment.port in self._ports:
                self.observer.feed(segment)
                self.holes_in_answers += segment.skipped > 0 and not segment.to_server
                if self._also is not None:
                    self._also(segment)
        moment = now()
        lost = sum(gap.lost for gap in self._capture.losses(moment))
        if lost:
            self.lost += lost
            self.observer.lost(lost, moment.boot_ns)
        self.observer.advance(moment.boot_ns)
        for facts in self.observer.take():
            if isinstance(facts, ExchangeFacts):
                self.exchanges.append(facts)
            else:
                self.unobserved.append(facts)

    def in_flight(self) -> list[FlightFacts]:
        """Return the requests that have not been answered."""
        return self.observer.in_flight(now().boot_ns)

    async def until(self, enough: Callable[[], bool], seconds: float = 15.0) -> None:
        """Wait until it is enough or time is up; what is missing then, the caller's comparison tells."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not enough():  # noqa: ASYNC110 - what is waited for is read from the kernel by polling
                    await asyncio.sleep(_READ_S)

    def of(self, port: int) -> list[ExchangeFacts]:
        """Return the exchanges of one port that named a model, as they ended."""
        return [facts for facts in self.exchanges if facts.name.port == port and facts.name.model is not None]

    async def settled(self, port: int, count: int) -> list[ExchangeFacts]:
        """Wait for so many exchanges of a port and a little for what must not come; return them."""
        await self.until(lambda: len(self.of(port)) + sum(u.count for u in self.unobserved) >= count)
        await asyncio.sleep(_QUIET_S)
        return self.of(port)
