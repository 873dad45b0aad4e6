"""Until when certificates are valid: read when asked, never silently wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from escalation.model import AgentId
from escalation.server.certificates import Certificates, expiry_unix_s
from escalation.server.metrics import ServerMetrics
from escalation.server.testing import FakeDesk
from escalation.wire.credentials import Files
from tests.escalation.server.site import Authority

DAY_S = 86_400.0


def certificates(folder: Path, authority: Authority, *, now_s: float = 0.0) -> Certificates:
    key, certificate = authority.leaf("spiffe://nanobot.local/nanobot/orchestrator", server=True)
    (folder / "server.crt").write_bytes(certificate)
    (folder / "server.key").write_bytes(key)
    files = Files(authority=authority.ca, certificate=folder / "server.crt", key=folder / "server.key")
    return Certificates(files=files, now_s=lambda: now_s)


def test_the_first_certificate_of_a_file_to_expire_counts(tmp_path: Path, authority: Authority) -> None:
    """A chain is valid as long as all of it is."""
    _, leaf = authority.leaf("spiffe://nanobot.local/nanobot/agent/a")
    both = [expiry_unix_s(leaf), expiry_unix_s(authority.ca.read_bytes())]
    assert expiry_unix_s(leaf + authority.ca.read_bytes()) == min(both)
    assert certificates(tmp_path, authority).authority() == both[1]


def test_a_file_that_cannot_be_read_counts_as_expired(tmp_path: Path, authority: Authority) -> None:
    """No number at all would never raise an alarm."""
    held = certificates(tmp_path, authority)
    assert held.orchestrator() > 0
    (tmp_path / "server.crt").write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert held.orchestrator() == 0
    (tmp_path / "server.crt").unlink()
    assert held.orchestrator() == 0


def test_the_next_agent_to_expire_is_told_and_one_that_has_expired_is_not(
    tmp_path: Path, authority: Authority
) -> None:
    """What an agent shows takes the place of what it showed before; the expired cannot connect anyway."""
    _, leaf = authority.agent("spark-1")
    expiry = expiry_unix_s(leaf)
    held = certificates(tmp_path, authority, now_s=expiry - DAY_S)
    assert held.agents() == float("inf")
    held.shown(AgentId("spark-1"), {"x509_pem_cert": [leaf]})
    assert held.agents() == expiry
    held.shown(AgentId("spark-1"), {"x509_pem_cert": [b"no certificate"]})
    assert held.agents() == float("inf")
    late = certificates(tmp_path, authority, now_s=expiry + 1)
    late.shown(AgentId("spark-1"), {"x509_pem_cert": [leaf]})
    assert late.agents() == float("inf")


@given(st.one_of(st.binary(), st.binary().map(lambda each: b"-----BEGIN CERTIFICATE-----\n" + each)))
def test_bytes_that_are_no_certificate_are_refused_by_name(content: bytes) -> None:
    """Whatever it is, it is a ValueError and nothing else."""
    with pytest.raises(ValueError, match=r"."):
        expiry_unix_s(content)


async def test_the_oldest_undecided_entry_is_timed() -> None:
    """From its proposal until somebody decides; nothing that waits is 0."""
    desk, metrics = FakeDesk(), ServerMetrics()
    desk.service._metrics = metrics
    entry = await desk.opened()
    await desk.advance(60)
    assert waiting(metrics) == 60.0
    await desk.reject(entry.recommendation.id, person="ada", reason="it is planned")
    for _ in range(5):
        await desk.advance(1)
    assert waiting(metrics) == 0.0


def waiting(metrics: ServerMetrics) -> float | None:
    return metrics.registry.get_sample_value("nanobot_orchestrator_queue_waiting_seconds")
