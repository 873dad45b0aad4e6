"""Compile the enabled kernel programs as one module, attach them, and say what became of each.

The only module that imports bcc, and the only code of the product that runs with privilege: it needs CAP_BPF,
CAP_PERFMON and what single programs say they need, lives for a second or two, and keeps nothing. A program
that cannot be compiled, loaded or attached blinds its own sensor, with the reason; the others go on.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from probes.kernel.capabilities import holds
from probes.kernel.cgroup_links import NoUnifiedHierarchy, attach_to_cgroup, root_of_cgroups
from probes.kernel.compiler_output import captured_output, last_words
from probes.kernel.handover import Manifest, MapEntry, SensorEntry, kernel_boot_id
from probes.kernel.headers import Headers, HeadersMissing, find_headers, running_machine
from probes.kernel.layouts import layout_of
from probes.kernel.programs import (
    Attachment,
    Capability,
    CgroupAttachment,
    KernelProgram,
    shared_source,
)
from probes.kernel.tracepoints import (
    Format,
    TracepointMissing,
    attach,
    c_structs,
    mount_privately,
    read_format,
)
from probes.observation import Blind, BlindReason

_MAP_KINDS = {1: "hash", 2: "array", 5: "percpu_hash", 6: "percpu_array", 9: "lru_hash", 27: "ringbuf"}


@dataclass(frozen=True, slots=True)
class Loaded:
    """The outcome: a manifest and the descriptors it speaks of. Closing them detaches everything."""

    manifest: Manifest
    descriptors: tuple[int, ...]


class _Refused(Exception):
    """One program, or all of them, cannot run; carries what the sensor's coverage will say."""

    def __init__(self, reason: BlindReason, detail: str, errno: int | None = None) -> None:
        super().__init__(detail)
        self.blind = Blind(reason, detail)
        self.errno = errno


@dataclass(slots=True)
class _Work:
    """What one run knows of the machine and has made so far."""

    presets: Mapping[str, Mapping[int, int]]
    tracefs: Path
    headers: Headers
    formats: dict[str, Format] = field(default_factory=dict)
    descriptors: list[int] = field(default_factory=list)


def load(
    programs: Sequence[KernelProgram],
    *,
    disabled: frozenset[str] = frozenset(),
    presets: Mapping[str, Mapping[int, int]] | None = None,
) -> Loaded:
    """Load what is enabled. Never raises for a program's sake: the manifest says what is blind and why.

    `presets` are entries to write into arrays before their program runs, by the array's name.
    """
    enabled = [p for p in programs if p.sensor not in disabled]
    entries = {
        p.sensor: SensorEntry(p.sensor, blind=Blind(BlindReason.DISABLED, "disabled in the configuration"))
        for p in programs
    }
    descriptors: list[int] = []
    if enabled:
        try:
            work = _Work(presets or {}, _tracefs(), _headers(), descriptors=descriptors)
            entries |= _load_with(enabled, work)
        except _Refused as refused:
            entries |= {
                p.sensor: SensorEntry(p.sensor, blind=refused.blind, errno=refused.errno) for p in enabled
            }
    return Loaded(
        Manifest(
            kernel_boot_id=kernel_boot_id(),
            loaded_boot_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME),
            sensors=tuple(entries[p.sensor] for p in programs),
        ),
        tuple(descriptors),
    )


def _tracefs() -> Path:
    if os.geteuid() != 0:  # tracefs and the agent's socket both ask for it
        detail = "loading kernel programs needs root with CAP_BPF and CAP_PERFMON"
        raise _Refused(BlindReason.NO_PRIVILEGE, detail)
    found = mount_privately()
    if found is None:
        detail = "tracefs is not mounted or not readable: mount -t tracefs tracefs /sys/kernel/tracing"
        raise _Refused(BlindReason.NO_KERNEL_SUPPORT, detail)
    return found


def _headers() -> Headers:
    release, machine = running_machine()
    override = os.environ.get("BCC_KERNEL_SOURCE")
    try:
        return find_headers(release=release, machine=machine, override=override)
    except HeadersMissing as error:
        raise _Refused(BlindReason.NO_HEADERS, str(error)) from error


def _load_with(programs: Sequence[KernelProgram], work: _Work) -> dict[Any, SensorEntry]:
    """Compile all at once; when that fails, each alone, so that the one at fault is known."""
    entries: dict[Any, SensorEntry] = {}
    usable = []
    for program in programs:
        try:
            work.formats |= _formats(program, work.tracefs)
            usable.append(program)
        except _Refused as refused:
            entries[program.sensor] = SensorEntry(program.sensor, blind=refused.blind, errno=refused.errno)
    if not usable:
        return entries
    try:
        module = _compile(usable, work)
    except _Refused as refused:
        if len(usable) == 1:
            blind = SensorEntry(usable[0].sensor, blind=refused.blind, errno=refused.errno)
            return entries | {usable[0].sensor: blind}
        for program in usable:
            entries |= _load_with([program], work)
        return entries
    for program in usable:
        entries[program.sensor] = _attach_program(module, program, work)
    return entries


def _formats(program: KernelProgram, tracefs: Path) -> dict[str, Format]:
    found = {}
    for attachment in program.tracepoints:
        try:
            found[attachment.tracepoint] = read_format(tracefs, attachment.tracepoint)
        except TracepointMissing as error:
            if attachment.required:
                raise _Refused(BlindReason.NO_KERNEL_SUPPORT, str(error), errno.ENOENT) from error
    return found


def _compile(programs: Sequence[KernelProgram], work: _Work) -> Any:
    try:
        import bcc  # noqa: PLC0415 - seconds and 75 MB; a host without it must still get a manifest
    except ImportError as error:
        detail = (
            f"bcc's Python bindings are not installed for {sys.executable} (package python3-bpfcc): {error}"
        )
        raise _Refused(BlindReason.NO_LIBRARY, detail) from error
    needed = {a.tracepoint for p in programs for a in p.tracepoints}
    text = "\n".join(
        [
            shared_source(),
            c_structs(f for f in work.formats.values() if f.name in needed),
            *(p.source for p in programs),
        ]
    )
    os.environ["BCC_KERNEL_SOURCE"] = str(work.headers.source)
    ctypes.set_errno(0)
    with captured_output() as said:
        try:
            return bcc.BPF(text=text.encode(), cflags=[*work.headers.flags, "-Wno-macro-redefined"])
        except Exception:  # noqa: BLE001 - bcc raises bare Exception for everything
            code = ctypes.get_errno() or None
            complaint = said().strip()
    what = ", ".join(p.stem for p in programs)
    raise _Refused(
        _why(code), f"compile {what} with headers {work.headers.found}: {last_words(complaint)}", code
    )


def _attach_program(module: Any, program: KernelProgram, work: _Work) -> SensorEntry:
    """Load and attach one program's functions; on failure close what it had and say why."""
    attached: list[int] = []
    notes = []
    maps: list[tuple[MapEntry, int]] = []
    try:
        for name, entries_ in work.presets.items():
            if name.startswith(f"{program.stem}_"):
                _preset(module, name, entries_)
        for attachment in program.attachments:
            if isinstance(attachment, Attachment) and attachment.tracepoint not in work.formats:
                notes.append(f"this kernel has no tracepoint {attachment.tracepoint}")
                continue
            attached.append(_attach(module, attachment, work))
        maps = [_map(module, name) for name in program.maps]
    except _Refused as refused:
        for fd in attached:
            os.close(fd)
        return SensorEntry(program.sensor, blind=refused.blind, errno=refused.errno)
    first = len(work.descriptors)
    work.descriptors.extend(attached)
    entries = []
    for entry, fd in maps:
        entries.append(replace(entry, fd=len(work.descriptors)))
        work.descriptors.append(os.dup(fd))
    return SensorEntry(
        program.sensor,
        maps=tuple(entries),
        attachments=tuple(range(first, first + len(attached))),
        notes=tuple(notes),
    )


def _attach(module: Any, attachment: Attachment | CgroupAttachment, work: _Work) -> int:
    """Load one function and run it where it belongs; return the descriptor that holds it there."""
    if isinstance(attachment, Attachment):
        program_fd = _load_function(module, attachment.function, module.TRACEPOINT)
        try:
            return attach(program_fd, work.formats[attachment.tracepoint])
        except OSError as error:
            raise _Refused(_why(error.errno), str(error.strerror), error.errno) from error
    program_fd = _load_function(module, attachment.function, module.CGROUP_SKB)
    try:
        root = root_of_cgroups()
    except NoUnifiedHierarchy as error:
        raise _Refused(BlindReason.NO_KERNEL_SUPPORT, str(error)) from error
    try:
        return attach_to_cgroup(program_fd, root, attachment.direction)
    except OSError as error:
        if holds(Capability.NET_ADMIN):
            detail = f"{error.strerror} (another program may have the cgroup root to itself)"
            raise _Refused(BlindReason.ATTACH_FAILED, detail, error.errno) from error
        detail = f"{error.strerror}: it takes CAP_NET_ADMIN"
        raise _Refused(BlindReason.NO_PRIVILEGE, detail, error.errno) from error
    finally:
        os.close(root)


def _load_function(module: Any, function: str, kind: int) -> int:
    ctypes.set_errno(0)
    with captured_output() as said:
        try:
            return int(module.load_func(function.encode(), kind).fd)
        except Exception as error:  # bcc raises bare Exception for everything
            code = ctypes.get_errno() or None
            complaint = f"{error}; {last_words(said())}"
            # EPERM is want of privilege; EACCES is how the verifier refuses a program.
            reason = BlindReason.NO_PRIVILEGE if code == errno.EPERM else BlindReason.ATTACH_FAILED
            raise _Refused(reason, f"load {function}: {complaint}", code) from error


def _why(code: int | None) -> BlindReason:
    return BlindReason.NO_PRIVILEGE if code in (errno.EPERM, errno.EACCES) else BlindReason.ATTACH_FAILED


def _preset(module: Any, name: str, values: Mapping[int, int]) -> None:
    table = module[name.encode()]
    for index, value in values.items():
        table[table.Key(index)] = table.Leaf(value)


def _map(module: Any, name: str) -> tuple[MapEntry, int]:
    """Describe one map of the module as the compiler made it."""
    try:
        table = module[name.encode()]
    except KeyError as error:
        raise _Refused(BlindReason.ATTACH_FAILED, f"the program has no map {name}") from error
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
