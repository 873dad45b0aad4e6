"""Every pattern of the product, sorted by id: the table that docs/reference/log-patterns.md shows."""

from __future__ import annotations

from typing import Final

from probes.logs.cluster_patterns import CLUSTER_PATTERNS
from probes.logs.engine_patterns import ENGINE_PATTERNS
from probes.logs.kernel_patterns import KERNEL_PATTERNS
from probes.logs.pattern import Pattern
from probes.logs.service_patterns import SERVICE_PATTERNS

PATTERNS: Final[tuple[Pattern, ...]] = tuple(
    sorted(
        (*CLUSTER_PATTERNS, *ENGINE_PATTERNS, *KERNEL_PATTERNS, *SERVICE_PATTERNS), key=lambda each: each.id
    )
)
"""The table."""
