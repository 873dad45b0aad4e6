"""Writes down what the sensors say, on request, so that it can be judged again.

Only the running agent can do it: a ring buffer has one reader, and what it has read is gone. The request is a
file beside the handover socket, in a folder where nobody but root and the agent may write, followed by
SIGUSR1; a second signal without a request ends the recording. What is written are observations: facts, as
they are judged, none of them text of a request or an answer. The file belongs to the agent alone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
import structlog
from msgspec import Meta

from probes import recording
from probes.observation import Instant, Observation

REQUEST: Final = "record-request.json"
FOLDER: Final = "recordings"

log = structlog.get_logger("nanobot.recorder")


class RecordingFailed(Exception):
    """A recording cannot be made or read; the message says why and what to do."""


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to record: under which name, for how long at most, and how much at most."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    seconds: Annotated[float, Meta(gt=0, le=86400)]
    bytes_max: Annotated[int, Meta(ge=4096, le=1 << 30)]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it. `ended` says why it is not longer."""

    observations: int
    bytes: int
    seconds: float
    ended: str


class Recorder:
    """At most one recording at a time; does nothing at all in between."""

    def __init__(self, *, requests: Path, recordings: Path) -> None:
        self._request = requests / REQUEST
        self._folder = recordings
        self._file: int | None = None
        self._asked: Request | None = None
        self._began: Instant | None = None
        self._lines = 0
        self._bytes = 0

    def __repr__(self) -> str:
        state = f"{self._lines} observations" if self.is_on else "idle"
        return f"Recorder({state})"

    @property
    def is_on(self) -> bool:
        """Whether a recording is being made."""
        return self._file is not None

    def asked(self, sight: Sequence[Observation], now: Instant) -> float | None:
        """Begin what is requested, `sight` first, and return for how many seconds; without a request, end."""
        request = self._read()
        if request is None:
            self.end("asked to", now)
            return None
        if self.is_on:
            self.end("another was asked for", now)
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self._path(request, ".part"), flags, 0o600)
        except OSError as error:
            log.warning("recording_refused", name=request.name, error=error.strerror)
            return None
        self._asked, self._began, self._lines, self._bytes = request, now, 0, 0
        log.info("recording_begun", name=request.name, seconds=request.seconds)
        self.take(sight, now)
        return request.seconds

    def take(self, observations: Sequence[Observation], now: Instant) -> None:
        """Write what was seen; a full disk or a full measure ends the recording."""
        if self._file is None or self._asked is None:
            return
        lines = [recording.to_line(seen) for seen in observations]
        data = "".join(f"{line}\n" for line in lines).encode(errors="surrogatepass")
        if self._bytes + len(data) > self._asked.bytes_max:
            self.end("it reached its size", now)
            return
        try:
            written = os.write(self._file, data)
        except OSError as error:
            self.end(f"it could not be written: {error.strerror}", now)
            return
        self._bytes += written
        self._lines += len(lines)
        if written < len(data):
            self.end("it could not be written: the disk is full", now)

    def end(self, why: str, now: Instant) -> None:
        """End the recording and say what became of it; does nothing where there is none."""
        if self._file is None or self._asked is None or self._began is None:
            return
        os.close(self._file)
        self._file = None
        path = self._path(self._asked, ".jsonl")
        result = Result(
            observations=self._lines,
            bytes=self._bytes,
            seconds=round(now.since_s(self._began), 3),
            ended=why,
        )
        with contextlib.suppress(OSError):  # a folder that is gone: then nobody gets a result
            self._path(self._asked, ".part").rename(path)
            self._path(self._asked, ".result").write_bytes(msgspec.json.encode(result))
        log.info("recording_ended", name=self._asked.name, observations=self._lines, why=why)

    def _path(self, request: Request, suffix: str) -> Path:
        return self._folder / f"{request.name}{suffix}"

    def _read(self) -> Request | None:
        """Return the request, if one lies there whose owner may ask."""
        try:
            descriptor = os.open(self._request, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            if os.fstat(descriptor).st_uid not in {0, os.geteuid()}:
                log.warning("recording_refused", name=REQUEST, error="it belongs to somebody else")
                return None
            return msgspec.json.decode(os.read(descriptor, 4096), type=Request)
        except (OSError, msgspec.DecodeError) as error:
            log.warning("recording_refused", name=REQUEST, error=str(error))
            return None
        finally:
            os.close(descriptor)
