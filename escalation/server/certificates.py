"""Until when the certificates on both sides of the wire are valid, so that a monitor can warn in time.

What is asked is read at that moment: a renewed file needs no restart, and a file that cannot be read is told
as expired since 1970, because no number at all would never raise an alarm.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning

from escalation.model import AgentId
from escalation.wire.credentials import Files

OF_PEER: Final = "x509_pem_cert"
"""Where gRPC keeps the certificate that a peer showed."""
_AGENTS: Final = 100_000
"""How many hosts are remembered; the authority does not sign more in a life."""


def expiry_unix_s(pem: bytes) -> float:
    """Return when the first of the certificates in `pem` expires; raise ValueError when there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        return min(each.not_valid_after_utc.timestamp() for each in x509.load_pem_x509_certificates(pem))


def expiry_of_file(path: Path) -> float:
    """Return when the first of the certificates in the file expires; 0 when it cannot be read."""
    try:
        return expiry_unix_s(path.read_bytes())
    except (OSError, ValueError):
        return 0.0


class Certificates:
    """The orchestrator's own files, and what agents showed when they connected."""

    def __init__(self, *, files: Files, now_s: Callable[[], float]) -> None:
        """Read `files` when asked; `now_s` is Unix time."""
        self._files = files
        self._now_s = now_s
        self._agents: dict[AgentId, float] = {}

    def __repr__(self) -> str:
        return f"Certificates(agents={len(self._agents)})"

    def shown(self, agent_id: AgentId, auth_context: Mapping[str, Iterable[bytes]]) -> None:
        """Remember the certificate that a connected agent has shown, in place of its last one."""
        pem = b"\n".join(auth_context.get(OF_PEER, ()))
        if agent_id not in self._agents and len(self._agents) >= _AGENTS:
            return
        try:
            self._agents[agent_id] = expiry_unix_s(pem)
        except ValueError:
            self._agents.pop(agent_id, None)

    def orchestrator(self) -> float:
        """Return when the orchestrator's certificate expires."""
        return expiry_of_file(self._files.certificate)

    def authority(self) -> float:
        """Return when the authority of the agents expires."""
        return expiry_of_file(self._files.authority)

    def agents(self) -> float:
        """Return when the next certificate of a known agent expires; infinite when none is known.

        One that has expired cannot connect any more: its host is silent, and told as that.
        """
        now_s = self._now_s()
        return min((each for each in self._agents.values() if each > now_s), default=float("inf"))
