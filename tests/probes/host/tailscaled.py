"""A stand-in for Tailscale's daemon: its LocalAPI on a Unix socket, with the fields of ipnstate.Status."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

STATUS = "/localapi/v0/status"
STATUS_ALONE = "/localapi/v0/status?peers=false"
BUS = "/localapi/v0/watch-ipn-bus?mask=128"


def peer(number: int = 1, **said: Any) -> dict[str, Any]:
    """Return a peer as the daemon describes one that is idle, unless told otherwise."""
    usual = {
        "ID": f"n{number}CNTRL",
        "PublicKey": f"nodekey:{number:064x}",
        "HostName": f"secret-name-{number}",
        "DNSName": f"secret-name-{number}.tail1234.ts.net.",
        "OS": "linux",
        "UserID": 1234,
        "TailscaleIPs": [f"100.64.{number // 250}.{number % 250 + 1}", f"fd7a:115c:a1e0::{number:x}"],
        "AllowedIPs": [f"100.64.{number // 250}.{number % 250 + 1}/32"],
        "Addrs": ["203.0.113.9:41641"],
        "CurAddr": "",
        "Relay": "fra",
        "RxBytes": 1000,
        "TxBytes": 1000,
        "Online": True,
        "Active": False,
        "InNetworkMap": True,
    }
    return usual | said


def status(*peers: Mapping[str, Any], own: Mapping[str, Any] | None = None, **said: Any) -> dict[str, Any]:
    """Return a status of a daemon that runs well, unless told otherwise."""
    me = peer(0, Online=True, KeyExpiry="2031-01-01T00:00:00Z") | dict(own or {})
    usual = {
        "Version": "1.86.2-t1234",
        "TUN": True,
        "BackendState": "Running",
        "HaveNodeKey": True,
        "AuthURL": "",
        "TailscaleIPs": me["TailscaleIPs"],
        "Self": me,
        "Health": [],
        "MagicDNSSuffix": "tail1234.ts.net",
        "Peer": {one["PublicKey"]: dict(one) for one in peers} or None,
        "User": {"1234": {"LoginName": "someone@example.org"}},
    }
    return usual | said


def notification(*codes: str) -> bytes:
    """Return the first line of the notification bus with these warnings."""
    warnings = {
        code: {"WarnableCode": code, "Severity": "medium", "Title": "T", "Text": "a sentence with names"}
        for code in codes
    }
    return json.dumps({"Version": "1.86.2", "Health": {"Warnings": warnings}}).encode() + b"\n"


class Tailscaled:
    """Answers each connection as `answers` says for its target; HANG never answers, bytes are sent as is."""

    HANG = object()

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.answers: dict[str, Any] = {STATUS: status(), STATUS_ALONE: status()}
        self.asked: list[str] = []
        self._held: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen(8)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; whoever waits is hung up on."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        for held in self._held:
            held.close()

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            asked = b""
            while b"\r\n\r\n" not in asked:
                asked += link.recv(4096)
            method, target, version = asked.split(b"\r\n")[0].decode().split(" ")
            assert (method, version) == ("GET", "HTTP/1.0")
            assert b"\r\nHost: local-tailscaled.sock\r\n" in asked
            self.asked.append(target)
            self._answer(link, target)

    def _answer(self, link: socket.socket, target: str) -> None:
        said = self.answers.get(target)
        if said is self.HANG:
            self._held.append(link)
            return
        raw = said if isinstance(said, bytes) else _page(said)
        with contextlib.suppress(OSError):
            link.sendall(raw)
        if target == BUS:
            self._held.append(link)  # the bus goes on for ever
        else:
            link.close()


def _page(said: Any) -> bytes:
    if said is None:
        return b"HTTP/1.0 404 Not Found\r\n\r\n404 page not found\n"
    body = json.dumps(said, indent="\t").encode()
    return b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + body


def bus_page(*codes: str) -> bytes:
    """Return the answer of the notification bus, which has no end."""
    return b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + notification(*codes)


@contextlib.contextmanager
def running(path: Path) -> Iterator[Tailscaled]:
    """Run the stand-in on the socket `path`."""
    daemon = Tailscaled(path)
    try:
        yield daemon
    finally:
        daemon.close()
