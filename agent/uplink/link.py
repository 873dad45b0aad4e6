"""The real uplink, made from the agent's settings and put behind the Link that the agent knows."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

from agent.config import Orchestrator
from agent.uplink.delivery import LinkStatus
from agent.uplink.spooling import Spooling
from escalation.failpoints import reach
from escalation.model import BootId
from escalation.outbox import Stored
from escalation.uplink import Uplink, UplinkState
from escalation.wire.credentials import Files


class _Calls:
    """The spool as the uplink sees it, with the places where a crash test may die."""

    def __init__(self, *, spooling: Spooling) -> None:
        self._spooling = spooling

    async def pending(self, *, after_row: int, limit: int, max_bytes: int) -> tuple[Stored, ...]:
        """Return waiting reports; asking for more says that the ones before went out."""
        if after_row:
            reach("uplink.after_send")
        return await self._spooling.pending(after_row=after_row, limit=limit, max_bytes=max_bytes)

    async def acknowledge(self, boot_id: BootId, sequence: int) -> int:
        """Forget what the other side has committed."""
        reach("uplink.before_forget")
        return await self._spooling.acknowledge(boot_id, sequence)

    async def set_aside(self, row: int, *, now_ns: int) -> None:
        """Take a refused report out of the queue."""
        await self._spooling.set_aside(row, now_ns=now_ns)


class OrchestratorLink:
    """Drains the spool to one orchestrator."""

    def __init__(self, *, spooling: Spooling, settings: Orchestrator) -> None:
        options = (
            () if settings.server_name is None else (("grpc.ssl_target_name_override", settings.server_name),)
        )
        self._uplink = Uplink(
            outbox=_Calls(spooling=spooling),
            target=settings.address,
            files=Files(authority=Path(settings.ca), certificate=Path(settings.cert), key=Path(settings.key)),
            now_ns=time.time_ns,
            dice=random.Random(),  # noqa: S311  # jitter, not a secret
            pause=asyncio.sleep,
            options=options,
        )

    def __repr__(self) -> str:
        return f"OrchestratorLink({self._uplink!r})"

    async def run(self) -> None:
        """Deliver until cancelled."""
        await self._uplink.run()

    def wake(self) -> None:
        """Say that something waits."""
        self._uplink.wake()

    def status(self) -> LinkStatus:
        """Return how it is."""
        now = self._uplink.status
        connected = now.state is UplinkState.DELIVERING
        error = None if connected else f"{now.state.value}: {now.detail}".rstrip(": ")
        return LinkStatus(connected, now.acked_reports, now.last_ack_ns, error)
