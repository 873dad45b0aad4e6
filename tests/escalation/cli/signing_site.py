"""A desk that takes signatures, the approvers' file beside it, and what an orchestrator may lie about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from escalation.server.desk import AuditEntry, Entry
from escalation.signing import approvers


@dataclass(frozen=True)
class Site:
    """A desk whose clock is the machine's, an entry that waits, and the approvers' file on this machine."""

    served: Any
    entry: Entry
    approvers: Path

    @property
    def id(self) -> str:
        return self.entry.recommendation.id

    def trust(self, text: str) -> None:
        self.approvers.write_text(text)
        self.served.trusted[0] = approvers.parse(text, name="approvers")

    def log(self) -> list[AuditEntry]:
        return list(self.served.call(self.served.desk.audit(after=0, limit=1000)))


Lie = Callable[[dict[str, Any]], None]
