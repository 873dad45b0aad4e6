"""`nanobot-agent record` and `nanobot-agent replay`: keep what the sensors say, and judge it again.

`record` asks the running agent (its recorder) and fetches the file. `replay` needs neither privilege nor an
agent: it reads the file and a configuration, and tells which cases there would have been. With a second
configuration it tells the difference, which is how a threshold is tuned.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from agent.app import detectors_of
from agent.config import AgentSettings
from agent.process import statusfile
from agent.recordings.recorder import FOLDER, REQUEST, RecordingFailed, Request, Result
from agent.recordings.replay import BOOT_ID, Replay, Told
from escalation.inert import guarded, shown
from escalation.model import AgentId, CasePhase
from escalation.wording.codes import headline
from escalation.wording.quantities import counted, duration
from escalation.wording.reason import sentence
from probes import recording
from probes.observation import Blind, Gap, Observation

_POLL_S: Final = 0.2
_GRACE_S: Final = 10.0
_RESULT_BYTES: Final = 4096
_END_NS: Final = 1 << 63
_HOST: Final = AgentId("recorded")


def record(options: argparse.Namespace, settings: AgentSettings) -> int:
    """Ask the running agent for a recording and fetch it; raise RecordingFailed."""
    if options.out.exists():
        raise RecordingFailed(f"{options.out} exists; it is not overwritten")
    folder = Path(settings.sensors.socket).parent
    status = statusfile.read(folder / statusfile.NAME)
    if status is None or time.time() - status.written_unix_s > 3 * status.next_write_s + 5:
        raise RecordingFailed(f"no agent runs here: nobody writes {folder / statusfile.NAME}")
    name = f"asked-{time.time_ns()}"
    try:
        request = msgspec.convert(
            {"name": name, "seconds": options.seconds, "bytes_max": options.bytes}, type=Request
        )
    except msgspec.ValidationError as error:
        raise RecordingFailed(f"cannot record so: {error}") from error
    made = Path(settings.agent.state_dir) / FOLDER / name
    with _request(folder, request, status.pid):
        result = _waited(made.with_suffix(".result"), request, folder / REQUEST, status.pid)
    _fetch(made.with_suffix(".jsonl"), options.out, request.bytes_max)
    made.with_suffix(".result").unlink(missing_ok=True)
    told = f"{counted(result.observations, 'observation')} in {duration(result.seconds)}"
    _say(f"{options.out}: {told}, {result.bytes} bytes; ended: {guarded(result.ended)}")
    return 0


@contextlib.contextmanager
def _request(folder: Path, request: Request, pid: int) -> Iterator[None]:
    """Lay the request down and knock; take it away at the end, whatever happens."""
    path = folder / REQUEST
    try:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        os.fchmod(descriptor, 0o644)
        os.write(descriptor, msgspec.json.encode(request))
        os.close(descriptor)
        _knock(folder, pid)
    except RecordingFailed:
        path.unlink(missing_ok=True)
        raise
    except OSError as error:
        path.unlink(missing_ok=True)
        raise RecordingFailed(f"ask the agent (pid {pid}): {error.strerror}; only root may") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _knock(folder: Path, pid: int) -> None:
    """Send the signal to the agent, and to nobody whom its status file only names.

    The file is the agent's word. Root, who asks, could be made to end any process by it.
    """
    told_by = (folder / statusfile.NAME).lstat().st_uid
    if pid <= 1 or (sys.platform == "linux" and Path(f"/proc/{pid}").stat().st_uid != told_by):
        raise RecordingFailed(f"{folder / statusfile.NAME} names process {pid}, which is not the agent's")
    os.kill(pid, signal.SIGUSR1)


def _waited(path: Path, request: Request, asked: Path, pid: int) -> Result:
    """Return the result when it is there; Ctrl-C ends the recording, and its result is waited for too."""
    end_s = time.monotonic() + request.seconds + _GRACE_S
    while time.monotonic() < end_s:
        try:
            with contextlib.suppress(FileNotFoundError), statusfile.opened(path) as file:
                return msgspec.json.decode(file.read(_RESULT_BYTES), type=Result)
            time.sleep(_POLL_S)
        except KeyboardInterrupt:
            asked.unlink(missing_ok=True)
            _knock(asked.parent, pid)
            end_s = time.monotonic() + _GRACE_S
        except (OSError, msgspec.DecodeError) as error:
            raise RecordingFailed(f"read {path}: {error}") from error
    raise RecordingFailed("the agent gave no answer; its log says why (`recording_refused`)")


def _fetch(made: Path, out: Path, bytes_max: int) -> None:
    try:
        with statusfile.opened(made) as lines:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with os.fdopen(os.open(out, flags, 0o600), "wb") as target:
                while bytes_max > 0 and (data := lines.read(min(1 << 20, bytes_max))):
                    target.write(data)
                    bytes_max -= len(data)
        made.unlink()
    except OSError as error:
        raise RecordingFailed(f"copy {made} to {out}: {error.strerror}") from error


def replay(options: argparse.Namespace, settings: AgentSettings, against: AgentSettings | None) -> int:
    """Say which cases a recording would have raised, or what differs `against` another configuration.

    Raise RecordingFailed for a file that is no recording.
    """
    both = [settings] if against is None else [settings, against]
    stories = [_Story(options.file, each, further_s=options.further) for each in both]
    if options.json:
        for told in stories[-1].told:
            _say(_as_json(told))
        return 0
    if against is None:
        for line in stories[0].lines():
            _say(line)
        return 0
    before, after = (story.lines() for story in stories)
    for line in before:
        if line not in after:
            _say(f"- {line}")
    for line in after:
        if line not in before:
            _say(f"+ {line}")
    return 0


class _Story:
    """One judgement of one file, all of it."""

    def __init__(self, path: Path, settings: AgentSettings, *, further_s: float) -> None:
        detectors = detectors_of(settings, host=_HOST, kernel_boot_id=BOOT_ID)
        self._replay = Replay(detectors=detectors, agent_id=_HOST)
        self._blind: dict[str, str] = {}
        try:
            with path.open(encoding="utf-8", errors="surrogatepass") as file:
                observations = self._watched(recording.read(recording.lines_of(file)))
                self.told = tuple(self._replay.run(observations, further_s=further_s))
        except OSError as error:
            raise RecordingFailed(f"read {path}: {error.strerror}") from error
        except (recording.RecordingInvalid, UnicodeDecodeError) as error:
            raise RecordingFailed(guarded(f"{path}: {error}")) from error

    def lines(self) -> list[str]:
        """Return the story as people read it."""
        replay = self._replay
        told = [line for each in self.told for line in _as_text(each)]
        lasted, still_open = duration(replay.lasted_s), counted(replay.still_open(), "case")
        whole = counted(replay.observations, "observation")
        ending = [f"{whole} over {lasted}; {still_open} open at the end"]
        ending += [f"not seen: {shown(name)} ({reason})" for name, reason in sorted(self._blind.items())]
        ending += [f"the detector {name} failed {n} times" for name, n in sorted(replay.errors.items())]
        return told + ending

    def _watched(self, observations: Iterator[Observation]) -> Iterator[Observation]:
        for seen in observations:
            if not all(0 <= moment < _END_NS for moment in (seen.at.boot_ns, seen.at.unix_ns)):
                raise recording.RecordingInvalid(f"a {type(seen).__name__} at a time that cannot be")
            if isinstance(seen, Gap) and isinstance(seen.coverage, Blind):
                self._blind[seen.sensor] = seen.coverage.reason.value
            yield seen


def _as_text(told: Told) -> Sequence[str]:
    report = told.report
    subject = f"{report.subject.kind.value} {shown(report.subject.name)}"
    what = f"{report.severity.value} {report.fault_class.value}: {subject}"
    head = f"+{told.after_s:.1f} s {report.phase.value} {what}"
    if report.phase is CasePhase.UPDATED:
        return (f"{head}, {counted(report.count, 'time')}",)
    title = (f"    {headline(report.fault_class)}",) if report.phase is CasePhase.OPENED else ()
    return (head, *title, *(f"    {sentence(reason)}" for reason in report.reasons))


def _as_json(told: Told) -> str:
    report = told.report
    return json.dumps(
        {
            "after_s": round(told.after_s, 3),
            "phase": report.phase.value,
            "fault_class": report.fault_class.value,
            "severity": report.severity.value,
            "subject": {"kind": report.subject.kind.value, "name": report.subject.name},
            "count": report.count,
            "reasons": [reason.code.value for reason in report.reasons],
        }
    )


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
