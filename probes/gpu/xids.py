"""Xids: what each number means, which of them is whose fault, and one event out of several tellings.

Names are those of the driver's own list (open-gpu-kernel-modules, src/common/sdk/nvidia/inc/nverror.h)
without its prefixes, meanings and immediate actions follow NVIDIA's Xid catalogue
(https://docs.nvidia.com/deploy/xid-errors/). The tiers are ours. A number that is not in the table stays
visible as what it is.

The driver tells of an Xid in up to three places: its tracepoint, an NVML event, the kernel log. They name the
GPU by its PCI address and the same number, within moments of each other; that is the identity by which
`XidJoin` makes one event of them. A source that repeats itself tells of another event.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, replace
from typing import Final

from probes.gpu.facts import XidFacts, XidSource
from probes.observation import GpuXid, Instant

WINDOW_S: Final = 5.0
_EVENTS_MAX: Final = 256


class XidScope(enum.StrEnum):
    """What is broken."""

    APPLICATION = "application"  # one process, by its own doing; the GPU goes on
    DEVICE = "device"  # the GPU or its memory
    LINK = "link"  # NVLink, or the link between CPU and GPU
    NOTICE = "notice"  # nothing by itself: an account of something else
    UNKNOWN = "unknown"


class XidTier(enum.StrEnum):
    """What it takes."""

    NOTE = "note"
    TREND = "trend"  # worth counting over weeks
    RESTART_APPLICATION = "restart_application"
    RESET_LATER = "reset_later"  # at the next window
    DRAIN_AND_RESET = "drain_and_reset"
    REPLACE = "replace"  # drain; the part is a case for its maker
    HUMAN = "human"  # a reboot, power, or the bus: for somebody at the machine
    ASK_THE_DRIVER = "ask_the_driver"  # it says itself, in its recovery action (field 230)


@dataclass(frozen=True, slots=True)
class XidMeaning:
    """One number of the catalogue."""

    number: int
    name: str
    meaning: str
    scope: XidScope
    tier: XidTier

    @property
    def known(self) -> bool:
        """Whether the number is in the table."""
        return self.scope is not XidScope.UNKNOWN


_APP, _DEV, _LINK, _NOTICE = XidScope.APPLICATION, XidScope.DEVICE, XidScope.LINK, XidScope.NOTICE
_RESTART, _RESET, _NOTE = XidTier.RESTART_APPLICATION, XidTier.DRAIN_AND_RESET, XidTier.NOTE
_HUMAN, _TREND = XidTier.HUMAN, XidTier.TREND

_ENGINES: Final = (
    *((number, f"CE{engine}_ERROR") for engine, number in enumerate((70, 71, 72, 75, 76, 77, 85), start=3)),
    *((number, f"CE{number - 116}_ERROR") for number in range(126, 136)),
    *((number, f"NVDEC{engine}_ERROR") for engine, number in enumerate((68, 83, 84, 88, 89, 96, 97, 98))),
    *((number, f"NVJPG{engine}_ERROR") for engine, number in enumerate((82, *range(99, 106)))),
    (86, "OFA0_ERROR"),
    (139, "OFA1_ERROR"),
)
"""Copy engines, decoders and the like: the catalogue's action for each is to restart the application."""

XIDS: Final = (
    XidMeaning(8, "FIFO_ERROR_IDLE_TIMEOUT", "the GPU stopped processing", _APP, _RESTART),
    XidMeaning(13, "GR_EXCEPTION", "a shader or kernel fault, such as out of bounds", _APP, _RESTART),
    XidMeaning(31, "FIFO_ERROR_MMU_ERR_FLT", "a page fault on the GPU: a bad pointer", _APP, _RESTART),
    XidMeaning(32, "PBDMA_ERROR", "a bad push buffer", _APP, _RESTART),
    XidMeaning(43, "RESETCHANNEL_VERIF_ERROR", "a channel was reset, its process stopped", _APP, _NOTE),
    XidMeaning(45, "PREEMPTIVE_REMOVAL", "cleaned up after a kill or an earlier Xid", _APP, _NOTE),
    XidMeaning(46, "GPU_TIMEOUT_ERROR", "the GPU stopped processing", _DEV, _RESET),
    XidMeaning(48, "GPU_ECC_DBE", "an uncorrectable memory error", _DEV, _RESET),
    XidMeaning(61, "PMU_BREAKPOINT", "an internal microcontroller stopped", _DEV, _RESET),
    XidMeaning(62, "PMU_HALT_ERROR", "an internal microcontroller halted", _DEV, _RESET),
    XidMeaning(63, "DRAM_RETIREMENT_EVENT", "a row will be remapped", _NOTICE, XidTier.RESET_LATER),
    XidMeaning(64, "DRAM_RETIREMENT_FAILURE", "a row could not be remapped", _DEV, XidTier.REPLACE),
    *(XidMeaning(number, name, "an error of an engine", _APP, _RESTART) for number, name in _ENGINES),
    XidMeaning(69, "GR_CLASS_ERROR", "an illegal class or method", _APP, _RESTART),
    XidMeaning(74, "NVLINK_ERROR", "an error on NVLink", _LINK, _HUMAN),
    XidMeaning(79, "GPU_HAS_FALLEN_OFF_THE_BUS", "the GPU cannot be reached over PCIe", _DEV, _HUMAN),
    XidMeaning(92, "EXCESSIVE_SBE_INTERRUPTS", "a high rate of corrected memory errors", _NOTICE, _TREND),
    XidMeaning(94, "CONTAINED_ERROR", "a memory error that hit one process", _APP, _RESTART),
    XidMeaning(95, "UNCONTAINED_ERROR", "a memory error that hit every process", _DEV, _RESET),
    XidMeaning(109, "CTXSW_TIMEOUT_ERROR", "a context switch timed out", _DEV, _RESET),
    XidMeaning(119, "GSP_RPC_TIMEOUT", "the GPU's system processor does not answer", _DEV, _RESET),
    XidMeaning(120, "GSP_ERROR", "the GPU's system processor failed", _DEV, _RESET),
    XidMeaning(110, "SEC_FAULT_ERROR", "a security fault; rare but for broken hardware", _DEV, _HUMAN),
    XidMeaning(121, "C2C_ERROR", "a corrected error between CPU and GPU", _LINK, _NOTE),
    XidMeaning(136, "ALI_TRAINING_FAIL", "a link could not be trained", _LINK, _RESET),
    XidMeaning(137, "NVLINK_PRIV_ERR", "a bad access over NVLink, mostly a program's own", _APP, _NOTE),
    XidMeaning(140, "UNRECOVERABLE_ECC_ERROR_ESCAPE", "memory errors that were not recovered", _DEV, _RESET),
    XidMeaning(143, "GPU_INIT_ERROR", "the GPU could not be initialised", _DEV, _HUMAN),
    *(
        XidMeaning(number, f"NVLINK_{unit}_ERROR", "an error on NVLink 5; the log says how bad", _LINK, _NOTE)
        for number, unit in enumerate(("SAW", "RLW", "TLW", "TREX", "NVLPW_CTRL", "NETIR", "MSE"), start=144)
    ),
    XidMeaning(
        154, "GPU_RECOVERY_ACTION_CHANGED", "the driver asks for action", _DEV, XidTier.ASK_THE_DRIVER
    ),
    XidMeaning(155, "NVLINK_SW_DEFINED_ERROR", "a link went down, perhaps on purpose", _LINK, _RESET),
    XidMeaning(156, "RESOURCE_RETIREMENT_EVENT", "a part of the GPU is retired", _NOTICE, _TREND),
    XidMeaning(157, "RESOURCE_RETIREMENT_FAILURE", "a part could not be retired", _NOTICE, _TREND),
    XidMeaning(158, "GPU_FATAL_TIMEOUT", "a fatal timeout", _DEV, _RESET),
    XidMeaning(159, "CHI_NON_DATA_ERROR", "an error of the coherent interface", _LINK, _HUMAN),
    XidMeaning(160, "CHANNEL_RETIREMENT_EVENT", "a memory channel is retired", _NOTICE, _TREND),
    XidMeaning(161, "CHANNEL_RETIREMENT_FAILURE", "a channel could not be retired", _NOTICE, _TREND),
    *(
        XidMeaning(number, f"PSHC_{state}", "the circuit that smooths power", _NOTICE, _NOTE)
        for number, state in enumerate(
            ("REENGAGED", "DISENGAGED", "LOW_LIFETIME", "ZERO_LIFETIME"), start=162
        )
    ),
    XidMeaning(167, "PCIE_FATAL_TIMEOUT", "a fatal timeout on PCIe", _DEV, _HUMAN),
    XidMeaning(168, "REDUCED_GPU_MEMORY_CAPACITY", "the GPU has less memory than it should", _DEV, _HUMAN),
    XidMeaning(169, "SEC2_HALT_ERROR", "a security processor halted", _DEV, _HUMAN),
    XidMeaning(171, "UNCORRECTABLE_DRAM_ERROR", "more about an Xid 48: memory", _DEV, _RESET),
    XidMeaning(172, "UNCORRECTABLE_SRAM_ERROR", "more about an Xid 48: caches", _DEV, _RESET),
    XidMeaning(173, "C2C_FATAL_LINK_FAILURE", "the link between CPU and GPU failed", _LINK, _HUMAN),
)
"""The table."""

_BY_NUMBER: Final = {xid.number: xid for xid in XIDS}


def meaning_of(number: int) -> XidMeaning:
    """Return what the catalogue says of a number; one that it does not know is a note, and looks it."""
    known = _BY_NUMBER.get(number)
    if known is not None:
        return known
    return XidMeaning(number, f"XID_{number}", "not in the table", XidScope.UNKNOWN, XidTier.NOTE)


@dataclass(frozen=True, slots=True)
class XidEvent:
    """One Xid, as told so far. `serial` counts up from 1 and names the event in later tellings."""

    serial: int
    first: GpuXid
    last_at: Instant
    sources: frozenset[XidSource]

    @property
    def facts(self) -> XidFacts:
        """The facts that the sources know together."""
        return self.first.facts


class XidJoin:
    """Makes one event of what several sources tell about one Xid.

    A telling belongs to the oldest event of the same GPU and number, not more than `window_s` away, of which
    this source has not told yet. So the count of events is that of the source that told most, whatever the
    order. An address or a process that only a later source knows is put in.
    """

    def __init__(self, *, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._recent: deque[XidEvent] = deque(maxlen=_EVENTS_MAX)
        self._serial = 0

    def __repr__(self) -> str:
        return f"XidJoin(events={self._serial}, recent={len(self._recent)})"

    def take(self, told: GpuXid) -> XidEvent:
        """Return the event that is told of: a new one, or an earlier one with what is new."""
        while self._recent and told.at.since_s(self._recent[0].first.at) > 2 * self._window_s:
            self._recent.popleft()
        for place, event in enumerate(self._recent):
            if self._same(event, told):
                self._recent[place] = joined = _joined(event, told)
                return joined
        self._serial += 1
        new = XidEvent(self._serial, told, told.at, frozenset({told.facts.source}))
        self._recent.append(new)
        return new

    def _same(self, event: XidEvent, told: GpuXid) -> bool:
        known, facts = event.facts, told.facts
        return (
            facts.source not in event.sources
            and known.number == facts.number
            and (known.pci is None or facts.pci is None or known.pci == facts.pci)
            and abs(told.at.since_s(event.first.at)) <= self._window_s
        )


def _joined(event: XidEvent, told: GpuXid) -> XidEvent:
    first, facts = event.first, event.facts
    together = replace(
        facts,
        pci=facts.pci if facts.pci is not None else told.facts.pci,
        gpu_instance=facts.gpu_instance if facts.gpu_instance is not None else told.facts.gpu_instance,
    )
    origin = first.origin if first.origin.pid is not None else told.origin
    return XidEvent(
        event.serial,
        replace(first, facts=together, origin=origin),
        max(event.last_at, told.at, key=lambda at: at.boot_ns),
        event.sources | {told.facts.source},
    )
