"""Drop a share of the packets that arrive at one interface, by a program of six instructions on its hook.

Not of those that leave: the sender is told of these, and sends them again without a word.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys

_SCHED_CLS = 3
_INGRESS = 1


class Hook(ctypes.Structure):
    """`struct bpf_tc_hook` of libbpf."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("ifindex", ctypes.c_int),
        ("attach_point", ctypes.c_int),
        ("parent", ctypes.c_uint32),
    )


class Options(ctypes.Structure):
    """`struct bpf_tc_opts` of libbpf."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("prog_fd", ctypes.c_int),
        ("flags", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("handle", ctypes.c_uint32),
        ("priority", ctypes.c_uint32),
    )


def program(share: float) -> bytes:
    """Return the instructions: a random number below the threshold is a dropped packet."""

    def instruction(code: int, offset: int, immediate: int) -> bytes:
        return struct.pack("=BBhi", code, 0, offset, immediate)

    return b"".join(
        (
            instruction(0x85, 0, 7),  # call bpf_get_prandom_u32
            instruction(0xA5, 2, int(share * 2**32)),  # if r0 < threshold: skip two
            instruction(0xB7, 0, 0),  # r0 = TC_ACT_OK
            instruction(0x95, 0, 0),  # exit
            instruction(0xB7, 0, 2),  # r0 = TC_ACT_SHOT
            instruction(0x95, 0, 0),  # exit
        )
    )


def main() -> None:
    interface, share = sys.argv[1], float(sys.argv[2])
    libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
    code = program(share)
    loaded = libbpf.bpf_prog_load(_SCHED_CLS, b"loss", b"GPL", code, len(code) // 8, None)
    if loaded < 0:
        sys.exit(f"loss: the program is refused: {loaded}")
    index = socket.if_nametoindex(interface)
    hook = Hook(sz=ctypes.sizeof(Hook), ifindex=index, attach_point=_INGRESS)
    created = libbpf.bpf_tc_hook_create(ctypes.byref(hook))
    options = Options(sz=ctypes.sizeof(Options), prog_fd=loaded)
    attached = libbpf.bpf_tc_attach(ctypes.byref(hook), ctypes.byref(options))
    if created != 0 or attached != 0:
        sys.exit(f"loss: not attached to {interface}: {created}, {attached}")


if __name__ == "__main__":
    main()
