"""Memory that a burst took goes back to the host."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, os
from agent.process.memory import trimmer
give_back = trimmer()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
blocks = [libc.malloc(100_000) for _ in range(500)]
for block in blocks:
    ctypes.memset(block, 1, 100_000)
for block in blocks[:-1]:
    libc.free(block)
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
before = resident()
give_back()
print(before - resident())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="trimming is glibc's")
def test_gives_back_what_was_freed_below_a_live_block() -> None:
    """One block that is still in use at the top of the heap does not hold back the 49 MB below it."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 40_000_000
