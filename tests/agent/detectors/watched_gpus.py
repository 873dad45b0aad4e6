"""A GPU that is well and a detector that watches it, for tests of Xids and of faults of the device."""

from __future__ import annotations

from agent.detectors.gpu_xid import Config, GpuXids
from agent.finding import Finding
from agent.testing import SURROUNDINGS, gpu_state, seeing
from escalation.model import FaultClass, ReasonCode, Subject, SubjectKind

APPLICATION, DEVICE = FaultClass.GPU_APPLICATION_XID, FaultClass.GPU_DEVICE_FAULT
PCI = "000f:01:00.0"
GPU = Subject(SubjectKind.GPU, PCI)
WELL = {"recovery_action": 0, "remap_pending": False, "remap_failed": False}
TWO = ("0000:1b:00.0", "0000:43:00.0")


def watching() -> GpuXids:
    """Return a detector whose sensor sees a GPU that is well."""
    made = GpuXids.build(Config(), SURROUNDINGS)
    made.observe(seeing(0, "gpu.nvml"))
    made.observe(gpu_state(0, **WELL))
    return made


def codes(finding: Finding) -> list[ReasonCode]:
    return [reason.code for reason in finding.reasons]
