"""The outbox on a full disk, and under kill -9 at each of its steps: real files, a real process."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from escalation.model import AgentId, Loss, LossKind
from escalation.outbox import Outbox, OutboxUnwritable
from escalation.wire.codec import decode

AGENT = AgentId("spark-a")
BOOT = "8d2f7c1e-0000-4000-8000-00000000000a"

# Dies before its Nth statement; says what it was told is committed, and what it is about to acknowledge.
CHILD = """
import os, signal, sys
from pathlib import Path
from escalation.model import AgentId, Loss, LossKind
from escalation.outbox import Outbox

class Deadly:
    def __init__(self, real, left): self.real, self.left = real, left
    def execute(self, *args):
        self.left -= 1
        if self.left == 0: os.kill(os.getpid(), signal.SIGKILL)
        return self.real.execute(*args)
    def __getattr__(self, name): return getattr(self.real, name)

path, boot, left = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
outbox = Outbox.open(path, agent_id=AgentId("spark-a"), kernel_boot_id=boot, max_bytes=1 << 20, now_ns=1)
outbox._database = Deadly(outbox._database, left)
for n in range(3):
    for report in outbox.append([Loss(LossKind.RING_FULL, f"{left}.{n}", n, True)] * 2, now_ns=n):
        os.write(1, f"kept {report.sequence}\\n".encode())
    first = outbox.pending(after_row=0, limit=1, max_bytes=1000)[0]
    os.write(1, f"acking {first.sequence}\\n".encode())
    outbox.acknowledge(first.boot_id, first.sequence)
    os.write(1, f"acked {first.sequence}\\n".encode())
os.write(1, b"done\\n")
"""


def test_kill_9_before_any_statement_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    """What was accepted waits after the kill, what was acknowledged does not, no number comes twice."""
    path = tmp_path / "spool.db"
    kept: set[int] = set()
    acked: set[int] = set()
    perhaps: set[int] = set()
    for left in range(1, 60):
        child = subprocess.run(
            [sys.executable, "-c", CHILD, str(path), BOOT, str(left)], capture_output=True, check=False
        )
        assert child.returncode in (0, -9), child.stderr.decode()
        for line in child.stdout.decode().splitlines():
            verb, _, number = line.partition(" ")
            match verb:
                case "kept":
                    assert int(number) not in kept, "a number was given twice"
                    kept.add(int(number))
                case "acking":
                    perhaps.add(int(number))
                case "acked":
                    acked.add(int(number))
        outbox = Outbox.open(path, agent_id=AGENT, kernel_boot_id=BOOT, max_bytes=1 << 20, now_ns=1)
        found = [stored.sequence for stored in outbox.pending(after_row=0, limit=1000, max_bytes=1 << 20)]
        outbox.close()
        assert found == sorted(set(found))
        assert kept - perhaps <= set(found)
        assert not acked & set(found)
        kept |= set(found)
        if child.returncode == 0:
            return
    pytest.fail("the child never came to its end")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"mount: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.root
def test_a_full_disk_keeps_what_was_kept_and_recovers_by_itself(small_disk: Path) -> None:
    """No room: nothing is half kept, and the caller is told. Room again: the same outbox goes on."""
    path = small_disk / "spool.db"
    outbox = Outbox.open(path, agent_id=AGENT, kernel_boot_id=BOOT, max_bytes=8 << 20, now_ns=1)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(300_000))
    kept = 0

    def fill() -> None:
        nonlocal kept
        while kept < 100_000:
            outbox.append([Loss(LossKind.RING_FULL, "s" * 60, kept, exact=True)] * 20, now_ns=1)
            kept += 20

    with pytest.raises(
        OutboxUnwritable, match=r"append to spool .*spool\.db: (database or disk is full|disk I/O)"
    ):
        fill()
    refused = 0
    for _ in range(20):
        with pytest.raises(OutboxUnwritable):
            outbox.append([Loss(LossKind.RING_FULL, "s" * 60, kept, exact=True)] * 20, now_ns=1)
        refused += 20
    assert outbox.depth().reports == kept
    assert len(outbox.pending(after_row=0, limit=100_000, max_bytes=1 << 24)) == kept

    ballast.unlink()
    (account,) = outbox.append([Loss(LossKind.SPOOL_UNWRITABLE, "", refused, exact=True)], now_ns=2)
    assert account.sequence == kept + 1
    assert outbox.acknowledge(outbox.boot_id, kept) == kept
    (left,) = outbox.pending(after_row=0, limit=10, max_bytes=1 << 20)
    assert decode(left.payload) == account
    outbox.close()


@pytest.mark.root
@pytest.mark.parametrize("damaged", [False, True])
def test_a_disk_that_is_full_at_the_start_is_named_and_nothing_is_forgotten(
    small_disk: Path, damaged: bool
) -> None:
    """Neither a fresh spool nor a damaged one crashes on a full disk; the loss is told once there is room."""
    path = small_disk / "spool.db"
    lost = 0
    if damaged:
        outbox = Outbox.open(path, agent_id=AGENT, kernel_boot_id=BOOT, max_bytes=1 << 20, now_ns=1)
        lost = len(outbox.append([Loss(LossKind.RING_FULL, "s", 1, exact=True)] * 17, now_ns=1))
        outbox.close()
        path.write_bytes(b"\0" * 4096)
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    for _ in range(3):
        with pytest.raises(OutboxUnwritable, match=r"spool\.db: .*(full|disk I/O error|No space left)"):
            Outbox.open(path, agent_id=AGENT, kernel_boot_id=BOOT, max_bytes=1 << 20, now_ns=1)
    ballast.unlink()
    outbox = Outbox.open(path, agent_id=AGENT, kernel_boot_id=BOOT, max_bytes=1 << 20, now_ns=1)
    found = [decode(each.payload).body for each in outbox.pending(after_row=0, limit=9, max_bytes=1 << 20)]
    assert found == ([Loss(LossKind.SPOOL_QUARANTINED, "", lost, exact=False)] if damaged else [])
    outbox.close()


@pytest.mark.root
def test_a_read_only_disk_is_named(small_disk: Path) -> None:
    """A spool that cannot be written is an error that names it, not a crash and not a loss."""
    path = small_disk / "spool.db"
    outbox = Outbox.open(path, agent_id=AGENT, kernel_boot_id=BOOT, max_bytes=1 << 20, now_ns=1)
    outbox.append([Loss(LossKind.RING_FULL, "s", 1, exact=True)], now_ns=1)
    outbox.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OutboxUnwritable, match=r"open spool .*spool\.db: Read-only file system"):
        Outbox.open(path, agent_id=AGENT, kernel_boot_id=BOOT, max_bytes=1 << 20, now_ns=1)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    outbox = Outbox.open(path, agent_id=AGENT, kernel_boot_id=BOOT, max_bytes=1 << 20, now_ns=1)
    assert outbox.depth().reports == 1
    outbox.close()
