"""A descriptor that one thread makes readable for another, and that may be closed under both."""

from __future__ import annotations

import os
import threading


class Bell:
    """Rung by whoever has news; readable until it is quietened."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fd: int | None = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def __repr__(self) -> str:
        return f"Bell(fd={self._fd})"

    @property
    def fd(self) -> int | None:
        """The descriptor; None when closed."""
        return self._fd

    def ring(self) -> None:
        """Make it readable."""
        with self._lock:
            if self._fd is not None:
                os.eventfd_write(self._fd, 1)

    def quieten(self) -> None:
        """Make it unreadable."""
        with self._lock:
            if self._fd is not None:
                try:
                    os.eventfd_read(self._fd)
                except BlockingIOError:
                    return

    def close(self) -> None:
        """Let go of the descriptor; ringing does nothing from now on."""
        with self._lock:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None
