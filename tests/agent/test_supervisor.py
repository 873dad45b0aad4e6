"""What the service manager is told, by the real library."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.process.supervisor import Systemd

pytest.importorskip("systemd.daemon", reason="systemd-python is not installed")


def test_a_manager_that_is_away_breaks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it executes itself anew nobody hears; the watchdog is fed again a moment later."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    Systemd(watchdog_s=30.0).tell("WATCHDOG=1")
