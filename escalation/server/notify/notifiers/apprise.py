"""Everything that the apprise library can speak to (chats, mail, push): plain text, one title and one link.

Service URLs hold tokens: they stand in a file of their own (mode 0600), one a line, and never reach a log.
The library is blocking: it has a thread of its own and a deadline. Of several URLs in one file either all
took a message or all are tried again, so one receiver for each service is better.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec

from escalation.server.notify.notice_routes import ReceiverName
from escalation.server.notify.notices import Event, Message
from escalation.server.notify.notifiers.receiver import WHOLE_S, Unreachable, read_secret

EVENTS: Final = frozenset(Event)

_TELLTALES: Final = ("apprise", "requests", "urllib3")
"""Loggers of the library and of what it uses: they would write addresses, which hold tokens."""


class AppriseSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[notify.apprise]]`: the file with the service URLs, one a line (mode 0600)."""

    name: ReceiverName
    urls_file: Path

    def events(self) -> frozenset[Event]:
        """Return what can be told this way."""
        return EVENTS

    def build(self) -> Apprise:
        """Return the receiver; raise ValueError when its file or the library cannot be used."""
        return Apprise(settings=self)


class Apprise:
    """Sends each message by itself."""

    batch = 1
    repeat_s: float | None = None
    events = EVENTS

    def __init__(self, *, settings: AppriseSettings) -> None:
        """Read the URLs; a line that the library does not understand is named by its number."""
        self.name: str = settings.name
        for name in _TELLTALES:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        lines = read_secret(settings.urls_file).splitlines()
        library = _library()
        asset = library.AppriseAsset(
            app_id="Host Nanobot",
            app_desc="Host Nanobot",
            app_url="",
            image_url_mask="",
            image_url_logo="",
            http_redirects=False,
            storage_mode=library.PersistentStoreMode.MEMORY,
        )
        self._services: Any = library.Apprise(asset=asset)
        self._text: Any = library.NotifyFormat.TEXT
        for number, line in enumerate(lines, start=1):
            url = line.strip()
            if url and not url.startswith("#") and not self._understood(url):
                raise ValueError(f"{settings.urls_file}, line {number}: is no URL that apprise understands")
        if not len(self._services):
            raise ValueError(f"{settings.urls_file}: holds no URL")
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"apprise-{settings.name}")

    def __repr__(self) -> str:
        return f"Apprise({self.name!r}, services={len(self._services)})"

    async def send(self, messages: Sequence[Message], *, now_ns: int) -> None:  # noqa: ARG002 - nothing ends here
        """Send the message to every service of the file."""
        loop = asyncio.get_running_loop()
        for message in messages:
            sending = loop.run_in_executor(self._thread, self._notify, message)
            try:
                taken = await asyncio.wait_for(sending, WHOLE_S)
            except TimeoutError as error:
                raise Unreachable(f"it takes longer than {WHOLE_S:.0f} seconds") from error
            if not taken:
                raise Unreachable("a service did not take it")

    async def close(self) -> None:
        """Let go of the thread; what it is still at has a deadline of its own."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _understood(self, url: str) -> bool:
        with _old_imports():
            return bool(self._services.add(url))

    def _notify(self, message: Message) -> bool:
        return bool(self._services.notify(title=message.title, body=message.url, body_format=self._text))


def _library() -> Any:
    try:
        with _old_imports():
            return importlib.import_module("apprise")
    except ImportError as error:
        raise ValueError("apprise is not installed: systemd/install.sh orchestrator notify") from error


def _old_imports() -> warnings.catch_warnings[None]:
    """Return a block in which what the library imports may be deprecated: its plugins try old modules."""
    return warnings.catch_warnings(action="ignore", category=DeprecationWarning)
