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
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from probes.kernel.asleep import event_entry, program_entry
from probes.kernel.attaching import Refused, attach_function, describe_map, load_asleep, reason_for
from probes.kernel.compiler_output import captured_output, last_words
from probes.kernel.config import CaptureWay, HttpConfig
from probes.kernel.handover import Manifest, MapEntry, SensorEntry, kernel_boot_id
from probes.kernel.headers import Headers, HeadersMissing, find_headers, running_machine
from probes.kernel.http_tls import with_tls
from probes.kernel.packet_socket import DROP_IN, explanation, in_a_network_of_its_own, open_packet_socket
from probes.kernel.programs import Attachment, KernelProgram, port_cases, shared_source
from probes.kernel.scope_config import ScopeConfig
from probes.kernel.scope_rules import write_rules
from probes.kernel.tracepoints import Format, TracepointMissing, c_structs, mount_privately, read_format
from probes.kernel.uprobes import CallUnwatched
from probes.observation import Blind, BlindReason, SensorName
from probes.scopes import label


@dataclass(frozen=True, slots=True)
class Loaded:
    """The outcome: a manifest and the descriptors it speaks of. Closing them detaches everything."""

    manifest: Manifest
    descriptors: tuple[int, ...]


_DISABLED = "disabled in the configuration"
_PORTLESS = "no port is named in http.ports"
_SCOPELESS = "no scope is declared"


@dataclass(slots=True)
class _Work:
    """What one run knows of the machine and has made so far."""

    ports: tuple[int, ...]
    tracefs: Path
    headers: Headers
    scopes: ScopeConfig
    agent_uid: int
    formats: dict[str, Format] = field(default_factory=dict)
    descriptors: list[int] = field(default_factory=list)


def load(
    programs: Sequence[KernelProgram],
    *,
    disabled: frozenset[str] = frozenset(),
    http: HttpConfig | None = None,
    scopes: ScopeConfig | None = None,
    agent_uid: int = 0,
) -> Loaded:
    """Load what is enabled. Never raises for a program's sake: the manifest says what is blind and why.

    `http` says which ports are watched, by programs that watch some, and how; `scopes` what is held, but
    never against the account of the agent.
    """
    http, scopes = http or HttpConfig(), scopes or ScopeConfig()
    unused = dict.fromkeys((p.sensor for p in programs if p.ports is not None and http.is_off), _PORTLESS)
    unused |= dict.fromkeys((p.sensor for p in programs if p.scoped and not scopes.rules), _SCOPELESS)
    unused |= dict.fromkeys((SensorName(name) for name in disabled), _DISABLED)
    enabled = [p for p in programs if p.sensor not in unused]
    entries = {
        p.sensor: SensorEntry(p.sensor, blind=Blind(BlindReason.DISABLED, unused.get(p.sensor, _DISABLED)))
        for p in programs
    }
    descriptors: list[int] = []
    if http.capture is CaptureWay.PACKET:
        by_packets = [p for p in enabled if p.ports is not None]
        entries |= {p.sensor: _packet_entry(p, http, descriptors) for p in by_packets}
        enabled = [p for p in enabled if p.ports is None]
    enabled = [p if p.ports is None else with_tls(p, http.tls_libraries) for p in enabled]
    if enabled:
        try:
            work = _Work(http.ports, _tracefs(), _headers(), scopes, agent_uid, descriptors=descriptors)
            entries |= _load_with(enabled, work)
        except Refused as refused:
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


def _packet_entry(program: KernelProgram, http: HttpConfig, descriptors: list[int]) -> SensorEntry:
    """Open the packet socket in the place of a program."""
    if in_a_network_of_its_own():
        detail = f"a packet socket sees nothing in a network of the loader's own, {DROP_IN}"
        return SensorEntry(program.sensor, blind=Blind(BlindReason.ATTACH_FAILED, detail))
    try:
        opened = open_packet_socket(http.ports)
    except OSError as error:
        return SensorEntry(
            program.sensor, blind=Blind(reason_for(error.errno), explanation(error)), errno=error.errno
        )
    descriptors.append(opened.detach())
    socket_ = MapEntry(f"{program.stem}_packets", "packet_socket", len(descriptors) - 1, 0, 0, 0)
    notes = (
        "by a packet socket",
        *(f"{library}: is watched with http.capture = cgroup alone" for library in http.tls_libraries),
    )
    return SensorEntry(program.sensor, maps=(socket_,), notes=notes, ports=http.ports)


def _tracefs() -> Path:
    if os.geteuid() != 0:  # tracefs and the agent's socket both ask for it
        detail = "loading kernel programs needs root with CAP_BPF and CAP_PERFMON"
        raise Refused(BlindReason.NO_PRIVILEGE, detail)
    found = mount_privately()
    if found is None:
        detail = "tracefs is not mounted or not readable: mount -t tracefs tracefs /sys/kernel/tracing"
        raise Refused(BlindReason.NO_KERNEL_SUPPORT, detail)
    return found


def _headers() -> Headers:
    release, machine = running_machine()
    override = os.environ.get("BCC_KERNEL_SOURCE")
    try:
        return find_headers(release=release, machine=machine, override=override)
    except HeadersMissing as error:
        raise Refused(BlindReason.NO_HEADERS, str(error)) from error


def _load_with(programs: Sequence[KernelProgram], work: _Work) -> dict[Any, SensorEntry]:
    """Compile all at once; when that fails, each alone, so that the one at fault is known."""
    entries: dict[Any, SensorEntry] = {}
    usable = []
    for program in programs:
        try:
            work.formats |= _formats(program, work.tracefs)
            usable.append(program)
        except Refused as refused:
            entries[program.sensor] = SensorEntry(program.sensor, blind=refused.blind, errno=refused.errno)
    if not usable:
        return entries
    try:
        module = _compile(usable, work)
    except Refused as refused:
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
                belongs = f" (it is the module {program.module}'s)" if program.module else ""
                detail = f"{error}{belongs}"
                raise Refused(BlindReason.NO_KERNEL_SUPPORT, detail, errno.ENOENT) from error
    return found


def _compile(programs: Sequence[KernelProgram], work: _Work) -> Any:
    try:
        import bcc  # noqa: PLC0415 - seconds and 75 MB; a host without it must still get a manifest
    except ImportError as error:
        detail = (
            f"bcc's Python bindings are not installed for {sys.executable} (package python3-bpfcc): {error}"
        )
        raise Refused(BlindReason.NO_LIBRARY, detail) from error
    needed = {a.tracepoint for p in programs for a in p.tracepoints}
    text = "\n".join(
        [
            shared_source(),
            c_structs(f for f in work.formats.values() if f.name in needed),
            *(port_cases(p.ports, work.ports) for p in programs if p.ports is not None),
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
    raise Refused(
        reason_for(code), f"compile {what} with headers {work.headers.found}: {last_words(complaint)}", code
    )


def _attach_program(module: Any, program: KernelProgram, work: _Work) -> SensorEntry:
    """Load and attach one program's functions; on failure close what it had and say why."""
    attached: list[int] = []
    notes: list[str] = []
    maps: list[tuple[MapEntry, int]] = []
    asleep: list[tuple[MapEntry, int]] = []
    try:
        if program.scoped:
            _declare(module, work)
            notes += [*map(label, work.scopes.rules), *work.scopes.notes]
        for attachment in program.attachments:
            if isinstance(attachment, Attachment) and attachment.tracepoint not in work.formats:
                notes.append(f"this kernel has no tracepoint {attachment.tracepoint}")
                continue
            if isinstance(attachment, Attachment) and attachment.asleep:
                program_fd, event_fd = load_asleep(module, attachment, work.formats)
                attached.append(event_fd)
                asleep += [(program_entry(attachment), program_fd), (event_entry(attachment), event_fd)]
                continue
            try:
                attached.append(attach_function(module, attachment, work.formats))
            except CallUnwatched as missing:
                if str(missing) not in notes:
                    notes.append(str(missing))
        maps = [describe_map(module, name) for name in program.maps]
    except Refused as refused:
        for fd in attached:
            os.close(fd)
        return SensorEntry(program.sensor, blind=refused.blind, errno=refused.errno)
    indexes, entries = _handed(work, attached, [*maps, *asleep])
    return SensorEntry(
        program.sensor,
        maps=entries,
        attachments=indexes,
        notes=tuple(notes),
        ports=work.ports if program.ports is not None else (),
    )


def _handed(
    work: _Work, attached: Sequence[int], described: Sequence[tuple[MapEntry, int]]
) -> tuple[tuple[int, ...], tuple[MapEntry, ...]]:
    """Put what holds a program and its maps among the descriptors, each once; return their places.

    The service manager does not keep one open file under two names.
    """
    first = len(work.descriptors)
    work.descriptors.extend(attached)
    entries = []
    for entry, fd in described:
        if fd in attached:
            entries.append(replace(entry, fd=first + attached.index(fd)))
            continue
        entries.append(replace(entry, fd=len(work.descriptors)))
        work.descriptors.append(os.dup(fd))
    return tuple(range(first, first + len(attached))), tuple(entries)


def _declare(module: Any, work: _Work) -> None:
    try:
        write_rules(module, work.scopes, agent_uid=work.agent_uid)
    except Exception as error:  # bcc raises bare Exception for everything
        code = error.errno if isinstance(error, OSError) else None
        raise Refused(reason_for(code), f"write the rules of the scopes: {error}", code) from error
