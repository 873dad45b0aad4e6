"""From where something happened to what a case is about: its subject, incarnation and place.

Names are cut to what the wire carries and made encodable; nothing else about them is changed, because they
are evidence. Showing them inert is the business of whoever shows them.
"""

from __future__ import annotations

from typing import Final

from agent.finding import Place
from escalation.model import Incarnation, Subject, SubjectKind
from escalation.wire.limits import TEXT_BYTES
from probes.observation import Origin, ServerKind

NAME_BYTES: Final = TEXT_BYTES["Subject.name"]
"""The longest name of a subject that the wire carries."""

MODEL_SERVERS: Final = frozenset(
    {
        ServerKind.VLLM,
        ServerKind.TENSORRT_LLM,
        ServerKind.OLLAMA,
        ServerKind.LLAMA_CPP,
        ServerKind.RAY,
        ServerKind.WHISPER,
    }
)
"""The kinds that run a model themselves; gateways, interfaces and databases do not."""


def cut(text: str, limit: int = NAME_BYTES) -> str:
    """Return `text` as encodable UTF-8 of at most `limit` bytes, cut between characters."""
    return _encodable(text)[:limit].decode("utf-8", "ignore")


def subject_of(origin: Origin) -> Subject:
    """Return the nearest thing that a person could act on: container, unit, cgroup, or else the process."""
    if origin.container_id:
        return Subject(SubjectKind.CONTAINER, cut(origin.container_id))
    if origin.unit:
        return Subject(SubjectKind.UNIT, cut(origin.unit))
    if origin.cgroup_path and origin.cgroup_path != "/":
        return Subject(SubjectKind.CGROUP, _tail(origin.cgroup_path))
    return process_of(origin)


def service_of(origin: Origin) -> Subject:
    """Return container or unit, else the process by name: what repeated deaths are counted under."""
    if origin.container_id or origin.unit:
        return subject_of(origin)
    return process_of(origin)


def process_of(origin: Origin) -> Subject:
    """Return the process by its name, by its number where it has none."""
    name = origin.process_name or (f"pid {origin.pid}" if origin.pid else "unknown")
    return Subject(SubjectKind.PROCESS, cut(name))


def target_of(origin: Origin, subject: Subject) -> Subject | None:
    """Return the container or unit that an action would act on, where it is not the subject itself."""
    if not (origin.container_id or origin.unit):
        return None
    target = subject_of(origin)
    return None if target == subject else target


def incarnation_of(origin: Origin, kernel_boot_id: str) -> Incarnation:
    """Return which life of the process and its container this is."""
    return Incarnation(
        kernel_boot_id=kernel_boot_id,
        container_id=cut(origin.container_id, TEXT_BYTES["Incarnation.container_id"])
        if origin.container_id
        else None,
        pid=origin.pid,
        start_ticks=origin.start_ticks,
    )


def place_of(origin: Origin) -> Place | None:
    """Return the cgroup, or None when nothing is known of it."""
    if origin.cgroup_id is None and origin.cgroup_path is None:
        return None
    path = origin.cgroup_path
    if path is not None and _encodable(path).decode() != path:
        path = None  # no note could keep it, and no question about it be asked
    return Place(origin.cgroup_id, path)


def process_name(origin: Origin) -> str:
    """Return the name for evidence, empty when unknown."""
    return cut(origin.process_name or "", 64)


def _tail(path: str) -> str:
    """Return the path, or its end where it is too long: the end is what tells cgroups apart."""
    raw = _encodable(path)
    return (
        raw.decode() if len(raw) <= NAME_BYTES else "..." + raw[-(NAME_BYTES - 3) :].decode("utf-8", "ignore")
    )


def _encodable(text: str) -> bytes:
    """Return `text` as the wire writes it: surrogates and NUL, which it cannot carry, as escapes."""
    return text.encode(errors="backslashreplace").replace(b"\0", b"\\x00")
