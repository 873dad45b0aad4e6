"""One captured piece of a TCP segment: what every way of capture gives and the observer takes.

A NamedTuple and not a frozen dataclass: one is made for every packet, and it costs a quarter.
"""

from __future__ import annotations

from typing import Final, NamedTuple

SYN: Final = 0x02  # bits of the TCP header's flags, RFC 9293
FIN: Final = 0x01
RST: Final = 0x04


class Segment(NamedTuple):
    """Bytes that went over one connection, seen at the server's end.

    `seq` is the TCP sequence number of the first byte of `data` (modulo 2**32; of the SYN itself where SYN is
    set). `skipped` bytes follow `data` on the wire that are not captured and never will be. A long segment
    comes as several pieces, each with its own `seq`; FIN and RST stand on the last of them.
    """

    connection: int  # the same for both directions of one connection, reused by the kernel at will
    at_ns: int  # boot clock, at the moment of capture
    port: int  # the server's
    to_server: bool
    seq: int
    data: bytes
    skipped: int
    flags: int  # SYN, FIN, RST; others are masked
    cgroup_id: int  # of the server's socket; 0 is unknown
