"""Compile the enabled kernel programs as one module, attach them, and say what became of each.

The only module that imports bcc, and the only code of the product that runs with privilege: it needs CAP_BPF
and CAP_PERFMON, lives for a second or two, and keeps nothing. A program that cannot be compiled, loaded or
attached blinds its own sensor, with the reason; the others go on.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.kernel.handover import Manifest, MapEntry, SensorEntry, kernel_boot_id
from probes.kernel.headers import Headers, HeadersMissing, find_headers, running_machine
from probes.kernel.layouts import layout_of
from probes.kernel.programs import KernelProgram, shared_source
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
_COMPLAINT_BYTES = 2000


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


def load(programs: Sequence[KernelProgram], *, disabled: frozenset[str] = frozenset()) -> Loaded:
    """Load what is enabled. Never raises for a program's sake: the manifest says what is blind and why."""
    enabled = [p for p in programs if p.sensor not in disabled]
    entries = {
        p.sensor: SensorEntry(p.sensor, blind=Blind(BlindReason.DISABLED, "disabled in the configuration"))
        for p in programs
    }
    descriptors: list[int] = []
    if enabled:
        try:
            entries |= _load_with(enabled, _tracefs(), _headers(), descriptors)
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


def _load_with(
    programs: Sequence[KernelProgram], tracefs: Path, headers: Headers, descriptors: list[int]
) -> dict[Any, SensorEntry]:
    """Compile all at once; when that fails, each alone, so that the one at fault is known."""
    entries: dict[Any, SensorEntry] = {}
    formats: dict[str, Format] = {}
    usable = []
    for program in programs:
        try:
            formats |= _formats(program, tracefs)
            usable.append(program)
        except _Refused as refused:
            entries[program.sensor] = SensorEntry(program.sensor, blind=refused.blind, errno=refused.errno)
    if not usable:
        return entries
    try:
        module = _compile(usable, formats, headers)
    except _Refused as refused:
        if len(usable) == 1:
            blind = SensorEntry(usable[0].sensor, blind=refused.blind, errno=refused.errno)
            return entries | {usable[0].sensor: blind}
        for program in usable:
            entries |= _load_with([program], tracefs, headers, descriptors)
        return entries
    for program in usable:
        entries[program.sensor] = _attach_program(module, program, formats, descriptors)
    return entries


def _formats(program: KernelProgram, tracefs: Path) -> dict[str, Format]:
    found = {}
    for attachment in program.attachments:
        try:
            found[attachment.tracepoint] = read_format(tracefs, attachment.tracepoint)
        except TracepointMissing as error:
            if attachment.required:
                raise _Refused(BlindReason.NO_KERNEL_SUPPORT, str(error), errno.ENOENT) from error
    return found


def _compile(programs: Sequence[KernelProgram], formats: dict[str, Format], headers: Headers) -> Any:
    try:
        import bcc  # noqa: PLC0415 - seconds and 75 MB; a host without it must still get a manifest
    except ImportError as error:
        detail = (
            f"bcc's Python bindings are not installed for {sys.executable} (package python3-bpfcc): {error}"
        )
        raise _Refused(BlindReason.NO_LIBRARY, detail) from error
    needed = {a.tracepoint for p in programs for a in p.attachments}
    text = "\n".join(
        [
            shared_source(),
            c_structs(f for f in formats.values() if f.name in needed),
            *(p.source for p in programs),
        ]
    )
    os.environ["BCC_KERNEL_SOURCE"] = str(headers.source)
    ctypes.set_errno(0)
    with _captured_output() as said:
        try:
            return bcc.BPF(text=text.encode(), cflags=[*headers.flags, "-Wno-macro-redefined"])
        except Exception:  # noqa: BLE001 - bcc raises bare Exception for everything
            code = ctypes.get_errno() or None
            complaint = said().strip()
    reason = BlindReason.NO_PRIVILEGE if code in (errno.EPERM, errno.EACCES) else BlindReason.ATTACH_FAILED
    what = ", ".join(p.stem for p in programs)
    raise _Refused(reason, f"compile {what} with headers {headers.found}: {_last_words(complaint)}", code)


def _attach_program(
    module: Any, program: KernelProgram, formats: dict[str, Format], descriptors: list[int]
) -> SensorEntry:
    """Load and attach one program's functions; on failure close what it had and say why."""
    attached: list[int] = []
    notes = []
    maps: list[tuple[MapEntry, int]] = []
    try:
        for attachment in program.attachments:
            format_ = formats.get(attachment.tracepoint)
            if format_ is None:
                notes.append(f"this kernel has no tracepoint {attachment.tracepoint}")
                continue
            attached.append(_attach_function(module, attachment.function, format_))
        maps = [_map(module, name) for name in program.maps]
    except _Refused as refused:
        for fd in attached:
            os.close(fd)
        return SensorEntry(program.sensor, blind=refused.blind, errno=refused.errno)
    first = len(descriptors)
    descriptors.extend(attached)
    entries = []
    for entry, fd in maps:
        entries.append(
            MapEntry(
                name=entry.name,
                kind=entry.kind,
                fd=len(descriptors),
                key_size=entry.key_size,
                value_size=entry.value_size,
                max_entries=entry.max_entries,
                key=entry.key,
                value=entry.value,
            )
        )
        descriptors.append(os.dup(fd))
    return SensorEntry(
        program.sensor,
        maps=tuple(entries),
        attachments=tuple(range(first, first + len(attached))),
        notes=tuple(notes),
    )


def _attach_function(module: Any, function: str, format_: Format) -> int:
    ctypes.set_errno(0)
    with _captured_output() as said:
        try:
            program_fd = module.load_func(function.encode(), module.TRACEPOINT).fd
        except Exception as error:  # bcc raises bare Exception for everything
            code = ctypes.get_errno() or None
            complaint = f"{error}; {_last_words(said())}"
            # EPERM is want of privilege; EACCES is how the verifier refuses a program.
            reason = BlindReason.NO_PRIVILEGE if code == errno.EPERM else BlindReason.ATTACH_FAILED
            raise _Refused(reason, f"load {function}: {complaint}", code) from error
    try:
        return attach(program_fd, format_)
    except OSError as error:
        reason = (
            BlindReason.NO_PRIVILEGE
            if error.errno in (errno.EPERM, errno.EACCES)
            else BlindReason.ATTACH_FAILED
        )
        raise _Refused(reason, str(error.strerror), error.errno) from error


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


@contextmanager
def _captured_output() -> Iterator[Any]:
    """Catch what the compiler and the verifier print on the process's own stderr and stdout."""
    with tempfile.TemporaryFile() as file:
        kept = [os.dup(1), os.dup(2)]
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)

        def said() -> str:
            file.seek(0)
            return file.read().decode(errors="replace")

        try:
            yield said
        finally:
            sys.stdout.flush()
            os.dup2(kept[0], 1)
            os.dup2(kept[1], 2)
            for fd in kept:
                os.close(fd)


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line] or lines[-4:]
    return " | ".join(errors)[:_COMPLAINT_BYTES] or "no message"
