"""Tells systemd how the orchestrator is: sd_notify(3) over its datagram socket, and nothing without one."""

from __future__ import annotations

import os
import socket


class Supervisor:
    """Sends state lines to the socket that systemd named, if it named one."""

    def __init__(self, *, address: str | None) -> None:
        """Take the value of NOTIFY_SOCKET; None or an empty one means that nobody listens."""
        self._address = "\0" + address[1:] if address and address.startswith("@") else address

    @classmethod
    def from_environment(cls) -> Supervisor:
        """Take the socket that systemd put into this process's environment."""
        return cls(address=os.environ.get("NOTIFY_SOCKET"))

    def __repr__(self) -> str:
        return f"Supervisor(listening={bool(self._address)})"

    def notify(self, *lines: str) -> bool:
        """Send `lines` and return whether they were sent; a supervisor that is gone is no fault of ours."""
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.connect(self._address)
                out.sendall("\n".join(lines).encode())
        except OSError:
            return False
        return True
