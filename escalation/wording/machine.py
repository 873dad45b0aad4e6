"""Evidence of memory, placement and GPUs as short facts. What came from a host passes `shown` before."""

from __future__ import annotations

from typing import Final

from escalation.inert import shown
from escalation.model import GpuEvidence, MemoryEvidence, PlacementEvidence, XidEvidence
from escalation.wording.quantities import LABEL_LIMIT, duration, process, size, times
from escalation.wording.xid_words import XID_WORDS

# nvml.h, nvmlReturn_t: what stands for a state of the GPU or the driver.
_NVML: Final = {
    3: "not supported",
    4: "no permission",
    9: "driver not loaded",
    12: "library not found",
    15: "GPU is lost",
    16: "GPU needs a reset",
    17: "blocked by the operating system",
    18: "driver and library differ",
    999: "unknown error",
}
# nvml.h, nvmlDeviceGpuRecoveryAction_t.
_RECOVERY: Final = {
    0: "no step of recovery",
    1: "a reset of the GPU",
    2: "a reboot of the node",
    3: "to drain peer-to-peer work",
    4: "to drain all work and reset the GPU",
    5: "to recover its fabric domain",
    6: "a reset of its bus",
    7: "a reboot of the whole system",
}
# nvml.h, nvmlClocksEventReasons.
_SLOWED_BY: Final = {
    0x001: "it rests",
    0x002: "clocks set so",
    0x004: "power limit",
    0x008: "the hardware slows it down",
    0x010: "kept in step with other GPUs",
    0x020: "heat",
    0x040: "heat, by the hardware",
    0x080: "the power supply, by the hardware",
    0x100: "clocks set for a display",
}


def memory_fact(evidence: MemoryEvidence) -> str:
    """Return how a host's memory stands."""
    left, whole, free = map(size, (evidence.available_bytes, evidence.total_bytes, evidence.free_bytes))
    parts = [f"{left} of {whole} can be had ({free} free)"]
    if evidence.floor_bytes:
        parts.append(f"floor {size(evidence.floor_bytes)}")
    if evidence.empty_in_s is not None:
        speed = size(max(0, int(min(evidence.falls_bytes_per_s, 1e18))))
        parts.append(f"falls by {speed} a second: nothing left in {duration(evidence.empty_in_s)}")
    if evidence.stalled_percent is None:
        parts.append("the kernel does not account for stalls")
    else:
        parts.append(f"all tasks stalled for {evidence.stalled_percent:.3g} % of the time")
    if evidence.stalls:
        parts.append(f"allocations had to wait {times(evidence.stalls)}")
    return ", ".join(parts)


def placement_fact(evidence: PlacementEvidence) -> str:
    """Return where a server works."""
    who = process(evidence.process_name, evidence.pid)
    asked = "1 request" if evidence.requests == 1 else f"{evidence.requests} requests"
    parts = [f"{who} kept {evidence.cores:.3g} cores busy over {duration(evidence.window_s)} with {asked}"]
    if evidence.listed is None:
        parts.append("whether the driver lists it on a GPU is unknown")
    elif evidence.listed:
        parts.append("the driver lists it on a GPU")
    else:
        parts.append("the driver lists it on no GPU")
    if evidence.failed_opens:
        parts.append(f"opening the GPU failed {times(evidence.failed_opens)}")
    if evidence.measured is not None:
        usual = "" if evidence.baseline is None else f" where {evidence.baseline:.3g} are usual"
        parts.append(f"{evidence.measured:.3g} tokens a second{usual}")
    return ", ".join(parts)


def gpu_fact(evidence: GpuEvidence) -> str:
    """Return how a GPU is."""
    name = shown(evidence.name, limit=LABEL_LIMIT) or "GPU"
    parts = [f"{name} at {shown(evidence.gpu, limit=LABEL_LIMIT) or 'an unknown address'}"]
    if evidence.nvml_code:
        known = _NVML.get(evidence.nvml_code)
        words = f"code {evidence.nvml_code} ({known})" if known else f"code {evidence.nvml_code}"
        parts.append(f"the driver's library answers {words}")
    if evidence.sm_mhz is not None:
        usual = "" if evidence.usual_mhz is None else f" where {evidence.usual_mhz} MHz are usual under load"
        parts.append(f"clock {evidence.sm_mhz} MHz{usual}")
    if evidence.busy_percent is not None:
        parts.append(f"{evidence.busy_percent} % busy")
    if evidence.watts is not None:
        parts.append(f"{evidence.watts:.3g} W")
    if evidence.event_reasons is not None:
        parts.append(f"reasons for a lower clock: {_reasons(evidence.event_reasons)}")
    if evidence.recovery_action is not None:
        step = _RECOVERY.get(evidence.recovery_action, f"step {evidence.recovery_action}")
        parts.append(f"the driver advises {step}")
    return ", ".join(parts)


def _reasons(bits: int) -> str:
    told = [words for bit, words in _SLOWED_BY.items() if bits & bit]
    rest = bits & ~sum(_SLOWED_BY)
    return " and ".join([*told, *([f"{rest:#x}"] if rest else [])]) or "none"


def xid_fact(evidence: XidEvidence) -> str:
    """Return what a GPU reported."""
    gpu = shown(evidence.gpu, limit=LABEL_LIMIT) or "a GPU without an address"
    told = "1 source" if evidence.sources == 1 else f"{evidence.sources} sources"
    who = ""
    if evidence.process_name or evidence.pid is not None:
        who = f" for {process(evidence.process_name, evidence.pid)}"
    words = XID_WORDS.get(evidence.number)
    number = f"Xid {evidence.number} ({words})" if words else f"Xid {evidence.number}"
    return f"{gpu} reported {number}{who}, {times(evidence.count)}, told by {told}"
