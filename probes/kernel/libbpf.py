"""Read ring buffers and maps through descriptors that were handed over, with libbpf and no capability.

libbpf rather than mmap by hand because its ring reader has the right memory ordering on arm64 too. One
callback per record copies the bytes out; a read is bounded in records, so that a producer faster than its
reader cannot keep it for ever.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Iterator
from typing import Any

_SAMPLE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_SONAME = "libbpf.so.1"
_COUNTER = struct.Struct("@Q")  # native, so that a counter is read in one piece
_STOPPED = -125  # ECANCELED, from our own callback


class LibraryMissing(Exception):
    """libbpf cannot be loaded; the message names the package."""


class Libbpf:
    """The functions of libbpf that a reader uses."""

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL(_SONAME, use_errno=True)
        except OSError as error:
            raise LibraryMissing(f"load {_SONAME} (package libbpf1): {error}") from error
        pointer, integer = ctypes.c_void_p, ctypes.c_int
        library.ring_buffer__new.restype = pointer
        library.ring_buffer__new.argtypes = [integer, _SAMPLE, pointer, pointer]
        library.ring_buffer__consume.argtypes = [pointer]
        library.ring_buffer__epoll_fd.argtypes = [pointer]
        library.ring_buffer__free.argtypes = [pointer]
        library.ring_buffer__free.restype = None
        for name in ("bpf_map_lookup_elem", "bpf_map_get_next_key"):
            getattr(library, name).argtypes = [integer, pointer, pointer]
        library.bpf_map_update_elem.argtypes = [integer, pointer, pointer, ctypes.c_uint64]
        library.bpf_map_delete_elem.argtypes = [integer, pointer]
        library.bpf_link_create.argtypes = [integer, integer, integer, pointer]
        library.libbpf_set_print.argtypes = [pointer]
        library.libbpf_set_print.restype = pointer
        library.libbpf_set_print(None)  # it prints to stderr; our errors carry the errno
        self.functions: Any = library


class Ring:
    """One ring buffer, read by this process alone."""

    def __init__(self, *, libbpf: Libbpf, fd: int) -> None:
        self._library = libbpf.functions
        self._records: list[bytes] = []
        self._limit = 0
        self._callback = _SAMPLE(self._keep)  # held: C calls it for as long as the ring lives
        ctypes.set_errno(0)
        self._ring = self._library.ring_buffer__new(fd, self._callback, None, None)
        if not self._ring:
            code = ctypes.get_errno()
            raise OSError(code, f"map ring buffer: {os.strerror(code)}")
        # Its first two pages begin with the consumer's and the producer's position (linux/bpf.h); libbpf
        # tells them only from 1.3 on.
        self._consumer = mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ)
        self._producer = mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ, offset=mmap.PAGESIZE)

    @property
    def wakeup_fd(self) -> int:
        """A descriptor that becomes readable when the kernel side forces a wakeup."""
        return int(self._library.ring_buffer__epoll_fd(self._ring))

    def position(self) -> int:
        """How many bytes of records were ever taken out; the kernel keeps it with the ring."""
        position: int = _COUNTER.unpack_from(self._consumer)[0]
        return position

    def waiting(self) -> bool:
        """Whether there are records, as far as a glance tells."""
        return self._consumer[:8] != self._producer[:8]

    def drain(self, limit: int = 100_000) -> list[bytes]:
        """Take out up to `limit` records, oldest first; the rest stays for the next time."""
        self._limit = limit
        outcome = self._library.ring_buffer__consume(self._ring)
        records, self._records = self._records, []
        if outcome < 0 and outcome != _STOPPED:
            raise OSError(-outcome, f"read ring buffer: {os.strerror(-outcome)}")
        return records

    def close(self) -> None:
        """Unmap the ring; calling it again does nothing."""
        if self._ring:
            self._consumer.close()
            self._producer.close()
            self._library.ring_buffer__free(self._ring)
            self._ring = None

    def _keep(self, _context: object, data: int, size: int) -> int:
        self._records.append(ctypes.string_at(data, size))
        return 0 if len(self._records) < self._limit else _STOPPED


class Ledger:
    """A small array of 64-bit counters that a program shares with its reader, in this process's own memory.

    A system call on a map switches the tracepoint programs of its CPU off meanwhile, and for longer when its
    caller is preempted (`bpf_disable_instrumentation`); what a reader does four times a second must not.
    """

    def __init__(self, *, fd: int) -> None:
        self._memory = mmap.mmap(fd, mmap.PAGESIZE)

    def count(self, index: int) -> int:
        """Return one counter."""
        number: int = _COUNTER.unpack_from(self._memory, index * _COUNTER.size)[0]
        return number

    def note(self, index: int, number: int) -> None:
        """Set one counter; only for those that the kernel never writes."""
        _COUNTER.pack_into(self._memory, index * _COUNTER.size, number)

    def close(self) -> None:
        """Unmap it."""
        self._memory.close()


class Map:
    """One hash map by its descriptor; keys and values are bytes."""

    def __init__(self, *, libbpf: Libbpf, fd: int, key_size: int, value_size: int) -> None:
        self._library = libbpf.functions
        self._fd = fd
        self._key_size = key_size
        self._value_size = value_size

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None."""
        value = ctypes.create_string_buffer(self._value_size)
        if self._check(self._library.bpf_map_lookup_elem(self._fd, key, value), "look up in map"):
            return value.raw
        return None

    def update(self, key: bytes, value: bytes) -> None:
        """Write a value."""
        if not self._check(self._library.bpf_map_update_elem(self._fd, key, value, 0), "update map"):
            raise OSError(errno.ENOENT, "update map: no such entry")

    def delete(self, key: bytes) -> None:
        """Remove a key; a missing one is no error."""
        self._check(self._library.bpf_map_delete_elem(self._fd, key), "delete from map")

    def keys(self, limit: int = 65_536) -> Iterator[bytes]:
        """Yield the keys, at most `limit`: a table that changes meanwhile may start over."""
        key: bytes | None = None
        following = ctypes.create_string_buffer(self._key_size)
        for _ in range(limit):
            if not self._check(self._library.bpf_map_get_next_key(self._fd, key, following), "walk map"):
                return
            key = following.raw
            yield key

    def _check(self, outcome: int, doing: str) -> bool:
        if outcome == 0:
            return True
        code = -outcome if outcome < -1 else ctypes.get_errno()
        if code == errno.ENOENT:
            return False
        raise OSError(code, f"{doing}: {os.strerror(code)}")
