"""Load a function of the compiled module, run it where it belongs, and describe the module's maps.

The module is bcc's, which only the loader imports; whatever it or the kernel refuses is a `Refused`.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Mapping
from typing import Any

from probes.kernel.capabilities import holds
from probes.kernel.cgroup_links import NoUnifiedHierarchy, attach_to_cgroup, root_of_cgroups
from probes.kernel.compiler_output import captured_output, last_words
from probes.kernel.handover import MapEntry
from probes.kernel.layouts import layout_of
from probes.kernel.programs import (
    AnyAttachment,
    Attachment,
    Capability,
    SocketAttachment,
    UprobeAttachment,
)
from probes.kernel.tracepoints import Format, attach, open_asleep
from probes.kernel.uprobes import attach_to_call
from probes.observation import Blind, BlindReason

_MAP_KINDS = {1: "hash", 2: "array", 5: "percpu_hash", 6: "percpu_array", 9: "lru_hash", 27: "ringbuf"}


class Refused(Exception):
    """One program, or all of them, cannot run; carries what the sensor's coverage will say."""

    def __init__(self, reason: BlindReason, detail: str, errno: int | None = None) -> None:
        super().__init__(detail)
        self.blind = Blind(reason, detail)
        self.errno = errno


def reason_for(code: int | None) -> BlindReason:
    """Return whether an errno is want of privilege or something else."""
    return BlindReason.NO_PRIVILEGE if code in (errno.EPERM, errno.EACCES) else BlindReason.ATTACH_FAILED


def attach_function(module: Any, attachment: AnyAttachment, formats: Mapping[str, Format]) -> int:
    """Load one function and run it where it belongs; return the descriptor that holds it there.

    Raises Refused, and CallUnwatched for a call of a library, which blinds nothing.
    """
    if isinstance(attachment, UprobeAttachment):
        return attach_to_call(_load(module, attachment.function, module.KPROBE), attachment)
    if isinstance(attachment, Attachment):
        program_fd = _load(module, attachment.function, module.TRACEPOINT)
        try:
            return attach(program_fd, formats[attachment.tracepoint])
        except OSError as error:
            raise Refused(reason_for(error.errno), str(error.strerror), error.errno) from error
    if isinstance(attachment, SocketAttachment):
        program_fd = _load(module, attachment.function, module.CGROUP_SOCK_ADDR, attachment.call)
    else:
        program_fd = _load(module, attachment.function, module.CGROUP_SKB)
    what = attachment.call if isinstance(attachment, SocketAttachment) else attachment.direction
    try:
        root = root_of_cgroups()
    except NoUnifiedHierarchy as error:
        raise Refused(BlindReason.NO_KERNEL_SUPPORT, str(error)) from error
    try:
        return attach_to_cgroup(program_fd, root, what)
    except OSError as error:
        if holds(Capability.NET_ADMIN):
            detail = f"{error.strerror} (another program may have the cgroup root to itself)"
            raise Refused(BlindReason.ATTACH_FAILED, detail, error.errno) from error
        detail = f"{error.strerror}: it takes CAP_NET_ADMIN"
        raise Refused(BlindReason.NO_PRIVILEGE, detail, error.errno) from error
    finally:
        os.close(root)


def load_asleep(module: Any, attachment: Attachment, formats: Mapping[str, Format]) -> tuple[int, int]:
    """Load one function and open its event, one beside the other; return both descriptors; raise Refused."""
    program_fd = _load(module, attachment.function, module.TRACEPOINT)
    try:
        return program_fd, open_asleep(formats[attachment.tracepoint])
    except OSError as error:
        raise Refused(reason_for(error.errno), str(error.strerror), error.errno) from error


def describe_map(module: Any, name: str) -> tuple[MapEntry, int]:
    """Describe one map of the module as the compiler made it, with its descriptor."""
    try:
        table = module[name.encode()]
    except KeyError as error:
        raise Refused(BlindReason.ATTACH_FAILED, f"the program has no map {name}") from error
    kind = _MAP_KINDS.get(table.ttype, f"type {table.ttype}")
    if kind == "ringbuf":
        # bcc knows a ring's record from the call that submits it, and tells no other way.
        table.event(ctypes.create_string_buffer(4096))
        key, value = None, layout_of(table._event_class)  # noqa: SLF001
        key_size = value_size = 0
    else:
        one_cpu = getattr(table, "sLeaf", table.Leaf)
        key, value = layout_of(table.Key), layout_of(one_cpu)
        key_size, value_size = ctypes.sizeof(table.Key), ctypes.sizeof(one_cpu)
    return MapEntry(name, kind, -1, key_size, value_size, table.max_entries, key, value), table.map_fd


def _load(module: Any, function: str, kind: int, attach_type: int = -1) -> int:
    ctypes.set_errno(0)
    with captured_output() as said:
        try:
            return int(module.load_func(function.encode(), kind, None, attach_type).fd)
        except Exception as error:  # bcc raises bare Exception for everything
            code = ctypes.get_errno() or None
            complaint = f"{error}; {last_words(said())}"
            # EPERM is want of privilege; EACCES is how the verifier refuses a program.
            reason = BlindReason.NO_PRIVILEGE if code == errno.EPERM else BlindReason.ATTACH_FAILED
            raise Refused(reason, f"load {function}: {complaint}", code) from error
