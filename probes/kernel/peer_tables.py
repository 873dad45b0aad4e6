"""The tables that `listener_peers.bpf.c` fills, read through their descriptors: what rose meanwhile.

They belong to the program of `kernel.listener`. A look walks them, so it is taken only when the account
beside them moved, which costs one read of memory. Rows that were idle for `_IDLE_NS` are removed, so that a
walk stays short; but those of peers that failed time and again stay, because a later success is told by
them, until newer ones push them out. What had been counted before this process opened them belongs to no
window and is left out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from probes.host.sockets import canonical
from probes.kernel import listener
from probes.kernel.handed import attached_entry
from probes.kernel.handover import HandedMap, Handover
from probes.kernel.libbpf import Ledger, Libbpf, LibraryMissing, Map
from probes.observation import BlindReason, CgroupId
from probes.sensor import SensorBlind

_MOVED: Final = 1  # SENT, ring.bpf.h
_IDLE_NS: Final = 600_000_000_000
_SWEEP_NS: Final = 60_000_000_000
_FEW: Final = 3
_PEER_COUNTS: Final = (
    "retransmitted",
    "syn_retransmitted",
    "resets",
    "refused",
    "unreachable",
    "timed_out",
    "barred",
    "failed",
    "succeeded",
)
_CLIENT_COUNTS: Final = ("barred", "failed", "succeeded")
_KEY: Final = struct.Struct("=16sI4x")  # struct listener_peer_key, whose size and fields `open` checks
_Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRise:
    """By how much one peer's counts rose; `port` is 0 for what happened to established connections.

    `reached` says that a connection to it was seen, now or at any time that the kernel still remembers.
    """

    address: str
    port: int
    last_ns: int
    reached: bool
    retransmitted: int = 0
    syn_retransmitted: int = 0
    resets: int = 0
    refused: int = 0
    unreachable: int = 0
    timed_out: int = 0
    barred: int = 0
    barred_errno: int = 0
    failed: int = 0
    succeeded: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRise:
    """By how much the counts of one cgroup's attempts to one peer rose; the process is the last that
    tried."""

    address: str
    port: int
    cgroup_id: CgroupId
    pid: int
    process: bytes
    last_ns: int
    barred: int = 0
    failed: int = 0
    succeeded: int = 0


class PeerTables:
    """The kernel's counts of peers and of who tried them."""

    def __init__(self, *, handover: Handover | None) -> None:
        self._handover = handover
        self._ledger: Ledger | None = None
        self._peers: _Counted | None = None
        self._clients: _Counted | None = None
        self._reached: Map | None = None
        self._looked_at = 0
        self._swept_ns = 0

    def __repr__(self) -> str:
        return f"PeerTables({'closed' if self._peers is None else self._peers})"

    def open(self) -> None:
        """Take hold of the tables; raise SensorBlind with the manifest's reason where they are missing."""
        self.close()
        attached_entry(self._handover, listener.NAME)
        try:
            libbpf = Libbpf()
            ledger, reached = self._handed("peer_ledger"), self._handed("reached")
            if reached.entry.key_size != _KEY.size:
                raise SensorBlind(BlindReason.READ_FAILED, f"a peer's key of {reached.entry.key_size} bytes")
            self._reached = _map(libbpf, reached)
            self._ledger = Ledger(fd=ledger.fd)
            self._looked_at = self._ledger.count(_MOVED)
            self._peers = _Counted(libbpf, self._handed("peers"), _PEER_COUNTS)
            self._clients = _Counted(libbpf, self._handed("clients"), _CLIENT_COUNTS)
        except LibraryMissing as error:
            raise SensorBlind(BlindReason.NO_LIBRARY, str(error)) from error
        except OSError as error:
            raise SensorBlind(BlindReason.READ_FAILED, str(error.strerror)) from error

    def moved(self) -> bool:
        """Whether anything was counted since the last look."""
        return self._ledger is not None and self._ledger.count(_MOVED) != self._looked_at

    def rises(self, now_ns: int) -> tuple[tuple[PeerRise, ...], tuple[ClientRise, ...]]:
        """Return what rose since the last look, and remove what has been idle."""
        if self._ledger is None or self._peers is None or self._clients is None:
            raise SensorBlind(BlindReason.READ_FAILED, "the sensor is not open")
        self._looked_at = self._ledger.count(_MOVED)
        try:
            peers = tuple(self._peer(*row) for row in self._peers.rises())
            clients = tuple(_client(*row) for row in self._clients.rises())
            if now_ns - self._swept_ns >= _SWEEP_NS:
                self._swept_ns = now_ns
                self._peers.remove(lambda key, row: _is_idle(key, row, now_ns))
                self._clients.remove(lambda _, row: now_ns - row["last_ns"] > _IDLE_NS)
        except OSError as error:
            raise SensorBlind(BlindReason.READ_FAILED, str(error.strerror)) from error
        return peers, clients

    def lossy(self, least: int) -> tuple[str, ...]:
        """Return the addresses to which at least so many segments were sent again, as of the last look."""
        rows = iter(()) if self._peers is None else self._peers.rows()
        return tuple(canonical(_KEY.unpack(key)[0]) for key, row in rows if row["retransmitted"] >= least)

    def close(self) -> None:
        """Let go; the descriptors belong to the handover."""
        if self._ledger is not None:
            self._ledger.close()
        self._ledger = self._peers = self._clients = self._reached = None

    def _peer(self, key: bytes, row: _Row, rises: dict[str, int]) -> PeerRise:
        assert self._reached is not None, "open() comes first"
        address, port = _KEY.unpack(key)
        reached = row["succeeded"] > 0 or self._reached.lookup(key) is not None
        return PeerRise(
            address=canonical(address),
            port=port,
            last_ns=row["last_ns"],
            reached=reached,
            barred_errno=row["barred_errno"],
            **rises,
        )

    def _handed(self, suffix: str) -> HandedMap:
        assert self._handover is not None, "attached_entry comes first"
        name = f"{listener.PROGRAM.stem}_{suffix}"
        handed = self._handover.maps(listener.NAME).get(name)
        if handed is None or handed.entry.key is None or handed.entry.value is None:
            detail = f"the programs were loaded by a version without {name}: restart nanobot-probes"
            raise SensorBlind(BlindReason.NOT_HANDED_OVER, detail)
        return handed


class _Counted:
    """One table of counts and how it stood at the last look, undecoded: most rows stand still."""

    def __init__(self, libbpf: Libbpf, handed: HandedMap, counts: tuple[str, ...]) -> None:
        assert handed.entry.value is not None, "checked before"
        self._map = _map(libbpf, handed)
        self._read = handed.entry.value.reader()
        self._counts = counts
        self._stood = self._rows()

    def __repr__(self) -> str:
        return f"{len(self._stood)} rows"

    def rises(self) -> Iterator[tuple[bytes, _Row, dict[str, int]]]:
        """Yield each key whose counts rose, with its row and the rises."""
        before, self._stood = self._stood, self._rows()
        for key, raw in self._stood.items():
            if before.get(key) == raw:
                continue
            row, old = self._read(raw), self._read(before[key]) if key in before else None
            if old is not None and any(row[name] < old[name] for name in self._counts):
                old = None  # it was pushed out and came again, from 0
            rises = {name: row[name] - (old[name] if old else 0) for name in self._counts}
            if any(rises.values()):
                yield key, row, rises

    def rows(self) -> Iterator[tuple[bytes, _Row]]:
        """Yield all rows as of the last look."""
        for key, raw in self._stood.items():
            yield key, self._read(raw)

    def remove(self, is_old: Callable[[bytes, _Row], bool]) -> None:
        """Remove rows."""
        for key in [key for key, row in self.rows() if is_old(key, row)]:
            self._map.delete(key)
            del self._stood[key]

    def _rows(self) -> dict[bytes, bytes]:
        values = ((key, self._map.lookup(key)) for key in list(self._map.keys()))
        return {key: value for key, value in values if value is not None}


def _is_idle(key: bytes, row: _Row, now_ns: int) -> bool:
    """Whether a row may go: that of a peer that failed time and again is needed to see it succeed."""
    often = _KEY.unpack(key)[1] and row["failed"] + row["barred"] >= _FEW
    return not often and now_ns - row["last_ns"] > _IDLE_NS


def _map(libbpf: Libbpf, handed: HandedMap) -> Map:
    entry = handed.entry
    return Map(libbpf=libbpf, fd=handed.fd, key_size=entry.key_size, value_size=entry.value_size)


def _client(key: bytes, row: _Row, rises: dict[str, int]) -> ClientRise:
    address, port = _KEY.unpack(key[: _KEY.size])
    return ClientRise(
        address=canonical(address),
        port=port,
        cgroup_id=CgroupId(struct.unpack_from("=Q", key, _KEY.size)[0]),
        pid=row["pid"],
        process=row["process"],
        last_ns=row["last_ns"],
        **rises,
    )
