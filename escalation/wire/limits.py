"""What a message may hold at most: bytes per string, entries per list, numbers, reports and bytes per batch.

`TEXT_BYTES` is also the allow-list: a test fails when the proto has a string or bytes field that is not
here, so that adding a field which could hold prose is a decision somebody takes in this file. The limits
are sized for identifiers (a process name has 15 bytes in Linux, a container id 64, a unit name 255). A
model's name is an identifier that an operator configured; nothing else of a request is ever copied there.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

TEXT_BYTES: Final[Mapping[str, int]] = MappingProxyType(
    {
        "Ack.boot_id": 36,
        "BlindEvidence.sensor": 64,
        "BlockEvidence.device": 64,
        "Capture.name": 32,
        "Capture.word": 64,
        "CaseReport.case_id": 128,
        "ControlPlaneEvidence.address": 64,
        "ControlPlaneEvidence.outside_peer": 64,
        "DescriptorEvidence.process_name": 64,
        "DeviceOpenEvidence.process_name": 64,
        "DriftEvidence.print_before": 64,
        "DriftEvidence.print_now": 64,
        "GpuEvidence.gpu": 64,
        "GpuEvidence.name": 96,
        "Heartbeat.agent_version": 64,
        "Heartbeat.kernel_boot_id": 36,
        "Incarnation.container_id": 128,
        "Incarnation.kernel_boot_id": 36,
        "LinkEvidence.device": 64,
        "ListenerEvidence.address": 64,
        "ListenerEvidence.process_name": 64,
        "LogEvidence.pattern": 64,
        "LogEvidence.process_name": 64,
        "Loss.sensor": 64,
        "OomEvidence.process_name": 64,
        "OpaqueBatch.reports": 32 * 1024,
        "PeerEvidence.address": 64,
        "PeerEvidence.process_name": 64,
        "PlacementEvidence.process_name": 64,
        "ProcessEvidence.process_name": 64,
        "Report.agent_id": 63,
        "Report.boot_id": 36,
        "RouteId.model": 200,
        "RunDelayEvidence.neighbour": 255,
        "ScopeEvidence.address": 64,
        "ScopeEvidence.executable": 64,
        "ScopeEvidence.option": 32,
        "ScopeEvidence.process_name": 64,
        "ScopeEvidence.scope": 255,
        "SensorCoverage.sensor": 64,
        "SignalEvidence.process_name": 64,
        "StorageEvidence.filesystem": 32,
        "StorageEvidence.mount": 255,
        "Subject.name": 1024,
        "XidEvidence.gpu": 64,
        "XidEvidence.process_name": 64,
    }
)
"""Message and field -> how many bytes of UTF-8 it may hold."""

WORDS: Final = frozenset({"Capture.name", "Capture.word", "LogEvidence.pattern"})
"""Fields of the characters a-z, 0-9, dot, underscore and hyphen: ids and closed lists, where no text fits."""

PRINTS: Final = frozenset({"DriftEvidence.print_before", "DriftEvidence.print_now"})
"""Fields of lower-case hexadecimal digits."""

LIST_ENTRIES: Final[Mapping[str, int]] = MappingProxyType(
    {
        "CaseReport.evidence": 32,
        "CaseReport.reasons": 32,
        "DriftEvidence.changes": 16,
        "Heartbeat.coverage": 256,
        "LogEvidence.captures": 6,
        "MeshEvidence.warnings": 16,
        "OpaqueBatch.reports": 1000,
        "ReportBatch.reports": 1000,
    }
)
"""Message and repeated field -> how many entries it may have."""

INTEGER_MAX: Final = 2**63 - 1
"""The largest 64-bit number that is accepted: what both SQLite and PostgreSQL can store."""

PORT_MAX: Final = 65535

REPORT_BYTES: Final = TEXT_BYTES["OpaqueBatch.reports"]
"""The largest report; the largest that the codec can write is well below it."""

BATCH_REPORTS: Final = LIST_ENTRIES["ReportBatch.reports"]
BATCH_BYTES: Final = 1024 * 1024
"""What a receiver accepts in one batch; the uplink sends smaller ones."""
