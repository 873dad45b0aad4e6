"""The agent's side of the handover: a socket that the loader hands descriptors to, and their safe keeping.

Descriptors are taken only from uid 0, as the kernel names the peer. They are kept with the service manager,
with their manifest beside them in a memory file, before the loader is told that they arrived; so from that
moment no death of the agent needs a second, privileged step. A set that comes back incomplete, or from
another boot of the kernel, is let go as a whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self

import structlog

from agent.process.supervisor import Supervisor
from probes.kernel import handover as wire
from probes.kernel.handover import Handover, HandoverError, Manifest

_PREFIX: Final = "nanobot."
_MANIFEST: Final = "nanobot.manifest"
_TIMEOUT_S: Final = 5.0

log = structlog.get_logger("nanobot.descriptors")


def keep(supervisor: Supervisor, handover: Handover, *, before: int) -> None:
    """Put `handover` into safe keeping in place of an earlier one of `before` descriptors.

    The manifest goes last: a set without it is incomplete, and is not taken for whole after a crash here.
    """
    if sys.platform != "linux":
        return  # nothing is handed over there
    supervisor.drop(_MANIFEST)
    for number in range(max(before, len(handover.descriptors))):
        supervisor.drop(f"{_PREFIX}{number}")
    for number, descriptor in enumerate(handover.descriptors):
        supervisor.keep(f"{_PREFIX}{number}", descriptor)
    memory = os.memfd_create("nanobot-manifest")
    try:
        os.write(memory, handover.manifest.to_bytes())
        supervisor.keep(_MANIFEST, memory)
    finally:
        os.close(memory)


def restore(supervisor: Supervisor, *, kernel_boot_id: str) -> Handover | None:
    """Return the handover that was kept, or None; what cannot be used is closed and dropped."""
    kept = supervisor.kept()
    if not kept:
        return None
    try:
        return _assemble(kept, kernel_boot_id)
    except (HandoverError, OSError) as error:
        log.warning("kept_descriptors_unusable", error=str(error), descriptors=len(kept))
    for name, descriptor in kept:
        supervisor.drop(name)
        os.close(descriptor)
    return None


def _assemble(kept: object, kernel_boot_id: str) -> Handover:
    by_name: dict[str, int] = {}
    for name, descriptor in kept:  # type: ignore[attr-defined]
        if name in by_name:
            raise HandoverError(f"{name} was kept twice")
        by_name[name] = descriptor
    if _MANIFEST not in by_name:
        raise HandoverError("descriptors were kept without their manifest")
    memory = by_name[_MANIFEST]
    manifest = Manifest.from_bytes(os.pread(memory, wire.MAX_MANIFEST_BYTES + 1, 0))
    if manifest.kernel_boot_id != kernel_boot_id:
        raise HandoverError("descriptors were kept from another boot of the kernel")
    count = len(by_name) - 1
    missing = [number for number in range(count) if f"{_PREFIX}{number}" not in by_name]
    if missing:
        raise HandoverError(f"descriptor {missing[0]} of {count} was not kept")
    handover = Handover(manifest, tuple(by_name[f"{_PREFIX}{number}"] for number in range(count)))
    os.close(memory)
    return handover


class Reception:
    """Listens for the loader. `async with`; `received` is awaited with each handover that was taken.

    Taking one blocks on a peer that root runs, so it happens on a thread of its own, one at a time.
    """

    def __init__(
        self,
        *,
        path: Path,
        loader_uid: int,
        take: Callable[[Handover], None],
        received: Callable[[Handover], Awaitable[None]],
    ) -> None:
        self._path = path
        self._loader_uid = loader_uid
        self._take = take
        self._received = received
        self._socket: socket.socket | None = None
        self._busy: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="handover")
        self.refused = 0
        self.error: str | None = None

    def __repr__(self) -> str:
        return f"Reception({self._path}, listening={self._socket is not None}, refused={self.refused})"

    async def __aenter__(self) -> Self:
        try:
            self._socket = _listen(self._path)
        except OSError as error:
            self.error = f"listen on {self._path}: {error.strerror or error}"
            log.warning("handover_not_possible", path=str(self._path), error=str(error))
        else:
            asyncio.get_running_loop().add_reader(self._socket.fileno(), self._ready)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            with contextlib.suppress(OSError):
                self._path.unlink()
            self._socket = None
        if self._busy is not None:
            await asyncio.wait([self._busy], timeout=_TIMEOUT_S)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _ready(self) -> None:
        assert self._socket is not None
        if self._busy is not None and not self._busy.done():
            return  # level-triggered: the next one waits in the backlog until this one is done
        try:
            connection, _ = self._socket.accept()
        except OSError:
            return
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._busy = asyncio.ensure_future(self._serve(connection))

    async def _serve(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            handover = await loop.run_in_executor(self._thread, self._receive, connection)
            if handover is not None:
                await self._received(handover)
        finally:
            if self._socket is not None:
                loop.add_reader(self._socket.fileno(), self._ready)

    def _receive(self, connection: socket.socket) -> Handover | None:
        with connection:
            try:
                handover = wire.receive(connection, loader_uids=(self._loader_uid,), timeout_s=_TIMEOUT_S)
                try:
                    self._take(handover)
                    wire.accept(connection)
                except OSError:
                    handover.close()
                    raise
            except (HandoverError, OSError) as error:
                self.refused += 1
                log.warning("handover_refused", error=str(error))
                with contextlib.suppress(OSError):
                    wire.refuse(connection, "not taken")
                return None
        return handover


def _listen(path: Path) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.settimeout(0)
    try:
        listener.bind(str(path))
        # uid 0 without CAP_DAC_OVERRIDE must be able to connect; who it is, the kernel tells.
        path.chmod(0o666)
        listener.listen(4)
    except OSError:
        listener.close()
        raise
    return listener
