"""What a drill plays: `python -m agent.drills.child PART [NUMBER] [--join GROUP]...`, a process of its own.

Each part ends by itself: by what it plays, or by an alarm. None can do harm beyond its own control group: it
opens no file but those named, accepts no connection, and lets no packet in.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import mmap
import os
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.drills import limits

LIFE_S: Final = 600
STAYS_S: Final = 2.0
ASKED_IN_VAIN: Final = 50
REFUSED_S: Final = 5.0
UNMADE: Final = 3
"""The exit status of a part that found no way to make its fault."""
UNLIMITED: Final = 4
"""The exit status of a part whose memory is not limited: it has filled none."""
_PR_SET_NAME, _PR_SET_DUMPABLE = 15, 4  # prctl(2)
_NEW_MOUNTS: Final = 0x20000  # unshare(2): CLONE_NEWNS
_PRIVATE_BELOW: Final = 0x4000 | 0x40000  # mount(2): MS_REC | MS_PRIVATE
_NOBODY: Final = 65_534
_OPENS: Final = 7
_SO_ATTACH_FILTER: Final = 26  # socket(7); the socket module does not name it
_DROPS_ALL: Final = struct.pack(
    "HBBI", 0x06, 0, 0, 0
)  # bpf(4): return 0, that is: take no byte of the packet


def main(arguments: list[str]) -> int:
    """Join the drill's groups, then play the part."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=sorted(_PARTS))
    parser.add_argument("number", type=int, nargs="?", default=0)
    parser.add_argument("--join", type=Path, action="append", default=[])
    options = parser.parse_args(arguments)
    for group in options.join:
        (group / "cgroup.procs").write_text("0")
    signal.alarm(LIFE_S)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _PARTS[options.part](options.number)
    return 0


def _ends_by(part: Callable[[], None], number: signal.Signals) -> None:
    """Play `part` in a child, and stay for a moment: with its last process the control group goes as well.

    Nobody could say then where it was that something died. The status tells whether it died as it should.
    """
    child = os.fork()
    if child == 0:
        part()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    time.sleep(STAYS_S)
    sys.exit(0 if os.WIFSIGNALED(status) and os.WTERMSIG(status) == number else UNMADE)


def _dies(number: int) -> None:
    _ends_by(lambda: _die(number), signal.SIGSEGV)


def _eats(limit_bytes: int) -> None:
    """Fill a group that is limited to `limit_bytes`; take nothing where that limit is not in force."""
    if not limits.holds(limit_bytes):
        sys.exit(UNLIMITED)
    _ends_by(lambda: _eat(2 * limit_bytes), signal.SIGKILL)


def _die(number: int) -> None:
    """Die of a fault, under a name like that of a model server's process, and leave no core behind.

    With a number of its own: a death is counted under the process's name where it has no unit.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NAME, f"VLLM::{number:08x}".encode(), 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    os.kill(os.getpid(), signal.SIGSEGV)


def _eat(most_bytes: int) -> None:
    """Touch memory until the group's limit ends it; stop by itself at `most_bytes`, should swap take it."""
    held = []
    step = 1 << 20
    for _ in range(most_bytes // step):
        block = mmap.mmap(-1, step)
        for offset in range(0, step, mmap.PAGESIZE):
            block[offset] = 1
        held.append(block)


def _listen(port: int) -> None:
    """Listen on all addresses, and drop each packet before the kernel answers it: nobody can connect."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        program = ctypes.create_string_buffer(_DROPS_ALL)
        # struct sock_fprog of linux/filter.h, with the compiler's own padding
        listener.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(program))
        )
        try:
            listener.bind(("0.0.0.0", port))  # noqa: S104 -- that is the drill
            listener.listen(1)
        except OSError:  # somebody took the port meanwhile
            sys.exit(UNMADE)
        time.sleep(LIFE_S)


def _stall(port: int) -> None:
    """Listen on loopback, let two clients connect to it, and stop: nobody will accept them."""
    try:
        listener = socket.create_server(("127.0.0.1", port), backlog=8)
    except OSError:  # somebody took the port meanwhile
        sys.exit(UNMADE)
    with listener:
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
        os.kill(os.getpid(), signal.SIGSTOP)
        for client in clients:
            client.close()


def _starve(limit: int) -> None:
    """Open what there is of descriptors, ask for more in vain, and stay for a moment."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    refused = 0
    for _ in range(limit + ASKED_IN_VAIN):
        try:
            os.open(os.devnull, os.O_RDONLY)
        except OSError as error:
            refused += error.errno == errno.EMFILE
    time.sleep(STAYS_S)
    sys.exit(0 if refused else UNMADE)


def _lose(_: int) -> None:
    """Open a GPU's control node, then be refused it: in a view of /dev of its own, where it is a plain file.

    The kernel refuses with EPERM, as a device control group does, because O_NOATIME is for a file's owner
    alone (open(2)). The host's own nodes are neither seen nor touched.
    """
    if sys.platform != "linux":
        sys.exit(UNMADE)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_MOUNTS) or libc.mount(b"none", b"/", None, _PRIVATE_BELOW, None):
        sys.exit(UNMADE)
    if libc.mount(b"tmpfs", b"/dev", b"tmpfs", 0, None):
        sys.exit(UNMADE)
    node = "/dev/nvidiactl"
    Path(node).touch()
    Path(node).chmod(0o666)
    for _ in range(_OPENS):
        os.close(os.open(node, os.O_RDWR))
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    refused = 0
    until = time.monotonic() + REFUSED_S
    while time.monotonic() < until:
        try:
            os.close(os.open(node, os.O_RDWR | os.O_NOATIME))
        except PermissionError as error:
            refused += error.errno == errno.EPERM
        time.sleep(0.1)
    sys.exit(0 if refused else UNMADE)


_PARTS: Final = {
    "die": _dies,
    "eat": _eats,
    "listen": _listen,
    "lose": _lose,
    "stall": _stall,
    "starve": _starve,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
