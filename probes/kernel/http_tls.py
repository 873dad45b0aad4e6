"""The capture with calls of OpenSSL besides (`http_capture_tls.bpf.c`), for libraries that were asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from probes.kernel.programs import KernelProgram, UprobeAttachment

_CALLS = (
    ("http_capture_tls_enter", "SSL_read", False),
    ("http_capture_tls_has_read", "SSL_read", True),
    ("http_capture_tls_enter_ex", "SSL_read_ex", False),
    ("http_capture_tls_has_read", "SSL_read_ex", True),
    ("http_capture_tls_enter", "SSL_write", False),
    ("http_capture_tls_has_written", "SSL_write", True),
    ("http_capture_tls_enter_ex", "SSL_write_ex", False),
    ("http_capture_tls_has_written", "SSL_write_ex", True),
    ("http_capture_tls_free", "SSL_free", False),
)


def with_tls(program: KernelProgram, libraries: Iterable[str]) -> KernelProgram:
    """Return the capture's program with what watches these libraries; as it is when there are none."""
    calls = tuple(
        UprobeAttachment(function, library, symbol, at_return)
        for library in libraries
        for function, symbol, at_return in _CALLS
    )
    if not calls:
        return program
    more = (f"{program.stem}_tls",)
    return replace(program, attachments=(*program.attachments, *calls), more=more)
