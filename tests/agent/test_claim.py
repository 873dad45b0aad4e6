"""The claim: one agent to a handover socket, whatever became of the one before."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.process.claim import AlreadyClaimed, claimed

_HOLDS = """
import signal, sys
from pathlib import Path
from agent.process.claim import claimed
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    signal.pause()
"""


def test_a_second_one_is_told_who_is_first(tmp_path: Path) -> None:
    """Nothing of the first is touched; when it has ended, the next one may."""
    socket = tmp_path / "handover.sock"
    with claimed(socket), pytest.raises(AlreadyClaimed, match="another agent runs here"), claimed(socket):
        raise AssertionError("both hold it")
    with claimed(socket):
        pass


def test_a_claim_dies_with_its_process(tmp_path: Path) -> None:
    """A killed agent leaves no lock that somebody would have to remove."""
    socket = tmp_path / "handover.sock"
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDS, str(socket)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(AlreadyClaimed), claimed(socket):
            pass
        other.send_signal(signal.SIGKILL)
    with claimed(socket):
        pass


def test_a_folder_without_a_place_for_the_lock_holds_up_nobody(tmp_path: Path) -> None:
    """It is missing, or somebody laid a link there: the socket's own error says what is wrong."""
    with claimed(tmp_path / "missing" / "handover.sock"):
        pass
    (tmp_path / "handover.sock.lock").symlink_to(tmp_path / "elsewhere")
    with claimed(tmp_path / "handover.sock"):
        assert not (tmp_path / "elsewhere").exists()
