"""Opens of the NVIDIA device nodes by cgroup, device and result (`device_open.bpf.c`).

The ring only says which counters move: the first open of a (cgroup, device, errno) in each second. The counts
come from the kernel's own table, so they are exact however many opens that second had. What has been reported
and is on disk is noted in a table beside it, which outlives this process: its successor reports the rest.

Seen are paths that begin with `/dev/nvidia`; a link elsewhere to the same node, a path relative to /dev, a
32-bit program's call and io_uring are not.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from typing import Any

from probes.host.cgroups import CgroupPaths
from probes.host.clock import at_boot_ns
from probes.host.identity import Identifier
from probes.kernel.handed import HandedProgram
from probes.kernel.handover import Handover
from probes.kernel.libbpf import Map
from probes.kernel.programs import Attachment, KernelProgram
from probes.observation import (
    BlindReason,
    CgroupId,
    DeviceOpens,
    Instant,
    NvidiaDevice,
    Observation,
    SensorName,
)
from probes.sensor import SensorBlind

NAME = SensorName("kernel.device_open")
PROGRAM = KernelProgram(
    sensor=NAME,
    stem="device_open",
    attachments=(
        Attachment("device_open_openat", "syscalls:sys_exit_openat"),
        Attachment("device_open_openat2", "syscalls:sys_exit_openat2", required=False),
        Attachment("device_open_open", "syscalls:sys_exit_open", required=False),
    ),
    maps=(
        "device_open_counts",
        "device_open_reported",
        "device_open_successes",
        "device_open_events",
        "device_open_ledger",
        "device_open_starved",
        "device_open_starved_ledger",
    ),
)
_DEVICES = (  # enum device_open_kind
    NvidiaDevice.OTHER,
    NvidiaDevice.GPU,
    NvidiaDevice.CONTROL,
    NvidiaDevice.UVM,
    NvidiaDevice.UVM_TOOLS,
    NvidiaDevice.MODESET,
)
_QUIET_NS = 1_100_000_000  # a counter that stood still this long will speak up again by the ring
_SWEEP_NS = 60_000_000_000


class DeviceOpenSensor:
    """Counts device opens exactly and tells them as they come."""

    name = NAME
    period_s = 0.25

    def __init__(self, *, handover: Handover | None, identifier: Identifier, cgroups: CgroupPaths) -> None:
        self._program = HandedProgram(sensor=NAME, stem=PROGRAM.stem, handover=handover, settles=False)
        self._identifier = identifier
        self._cgroups = cgroups
        self._moving: dict[bytes, int] = {}
        self._reported: dict[bytes, int] = {}
        self._unwritten: dict[bytes, int] = {}
        self._swept_ns: int | None = None

    def __repr__(self) -> str:
        return f"DeviceOpenSensor({self._program}, moving={len(self._moving)}, known={len(self._reported)})"

    def open(self) -> None:
        """Take hold of the ring and the tables; everything counted and never reported is due at once."""
        self._program.open()
        self._counts, self._notes = self._program.map("counts"), self._program.map("reported")
        self._successes = self._program.map("successes")
        self._read_key, self._read_value = self._program.layout_of("counts")
        self._key_fields = struct.Struct("=QIiiI")
        self._moving = dict.fromkeys(self._all_keys(self._counts), 0)
        self._reported.clear()
        self._unwritten.clear()
        self._swept_ns = None

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return one observation for every counter that moved since the last read."""
        try:
            for event in self._program.records():
                key = self._key_fields.pack(
                    event["cgroup_id"], event["device"], event["minor"], event["error"], event["unused"]
                )
                self._moving[key] = now.boot_ns
            losses = self._program.losses(now)
            if losses:
                self._moving |= dict.fromkeys(self._all_keys(self._counts), now.boot_ns)
            found = [o for key in list(self._moving) for o in self._news(key, now)]
            self._sweep(now)
        except OSError as error:
            raise SensorBlind(BlindReason.READ_FAILED, str(error.strerror)) from error
        return [*found, *losses]

    def waiting(self) -> bool:
        """Whether there are events, or counters that moved a moment ago and may move again."""
        return bool(self._moving) or self._program.waiting()

    def settle(self) -> None:
        """Note what was reported, by count: what the ring said of it no longer matters."""
        try:
            self._write_notes()
        except OSError as error:
            raise SensorBlind(BlindReason.READ_FAILED, str(error.strerror)) from error
        self._program.settle()

    def wakeup_fd(self) -> int | None:
        """A refused open is told at once."""
        return self._program.wakeup_fd()

    def close(self) -> None:
        """Let go of the ring."""
        self._program.close()

    def _news(self, key: bytes, now: Instant) -> list[DeviceOpens]:
        raw = self._counts.lookup(key)
        if raw is None:
            self._forget(key)
            return []
        value = self._read_value(raw)
        if key not in self._reported:
            note = self._notes.lookup(key)
            self._reported[key] = int.from_bytes(note, sys.byteorder) if note else 0
        count = value["count"] - self._reported[key]
        if now.boot_ns - value["last_ns"] > _QUIET_NS:
            self._moving.pop(key, None)
        if count <= 0:
            return []
        self._reported[key] = self._unwritten[key] = value["count"]
        return [self._observation(self._read_key(key), value, count, now)]

    def _observation(
        self, key: dict[str, Any], value: dict[str, Any], count: int, now: Instant
    ) -> DeviceOpens:
        cgroup_id = CgroupId(key["cgroup_id"])
        device = _DEVICES[key["device"]] if key["device"] < len(_DEVICES) else NvidiaDevice.OTHER
        # The kernel noted the successes before the last of these; the others of them are not before them.
        own = count - 1 if key["error"] == 0 else 0
        return DeviceOpens(
            sensor=NAME,
            at=at_boot_ns(value["last_ns"], now),
            origin=self._identifier.origin(
                pid=value["pid"],
                cgroup_id=cgroup_id,
                process_name=value["process"],
                at_boot_ns=value["last_ns"],
            ),
            device=device,
            minor=key["minor"] if key["minor"] >= 0 else None,
            errno=key["error"],
            count=count,
            prior_successes=max(0, value["successes"] - own),
        )

    def _write_notes(self) -> None:
        for key, count in self._unwritten.items():
            self._notes.update(key, count.to_bytes(8, sys.byteorder))
        self._unwritten.clear()

    def _sweep(self, now: Instant) -> None:
        """Once a minute, forget the cgroups that are gone, so that the tables stay small."""
        if self._swept_ns is not None and now.boot_ns - self._swept_ns < _SWEEP_NS:
            return
        self._swept_ns = now.boot_ns
        for key in self._all_keys(self._counts):
            cgroup_id = CgroupId(self._read_key(key)["cgroup_id"])
            if key not in self._moving and not self._cgroups.exists(cgroup_id):
                self._counts.delete(key)
                self._forget(key)
        for raw in self._all_keys(self._successes):
            if not self._cgroups.exists(CgroupId(int.from_bytes(raw, sys.byteorder))):
                self._successes.delete(raw)

    def _forget(self, key: bytes) -> None:
        self._notes.delete(key)
        self._moving.pop(key, None)
        self._reported.pop(key, None)
        self._unwritten.pop(key, None)

    @staticmethod
    def _all_keys(table: Map) -> list[bytes]:
        return list(table.keys())
