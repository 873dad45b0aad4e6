"""Names from hosts that may stand in a command or a text: checked in full, or not used at all.

A name that a host reports is hostile input. A remedy puts one into an argument list, or into its own words,
only through these functions; None means that the remedy has to advise something that needs no name. A
leading dash is refused everywhere, so that no name can be read as an option.
"""

from __future__ import annotations

import re
from typing import Final

from escalation.model import Incident, RouteId, Subject, SubjectKind

# systemd.unit(5): letters, digits, ":_.\-" and one "@"; a backslash only as the escape of systemd-escape(1).
_SERVICE: Final = re.compile(r"(?=.{9,255}\Z)[A-Za-z0-9_](?:[A-Za-z0-9:_.@-]|\\x[0-9a-f]{2})*\.service\Z")
_CONTAINER: Final = re.compile(r"[0-9a-f]{64}\Z")
# What Hugging Face, Ollama and operators call a model: words with one separator between them, so no URL.
_MODEL: Final = re.compile(r"(?=.{1,96}\Z)[A-Za-z0-9]+(?:(?:[._:/@-]|__)[A-Za-z0-9]+)*\Z")
# A PCI address as the driver writes it: the domain has four or eight digits.
_GPU: Final = re.compile(r"[0-9A-Fa-f]{4}(?:[0-9A-Fa-f]{4})?:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7]\Z")
_CGROUP: Final = re.compile(r"(?=.{2,512}\Z)(?:/[A-Za-z0-9_][A-Za-z0-9:_.@-]*)+\Z")


def acted_on(incident: Incident) -> Subject:
    """Return what an action would act on: the target that the host named, else the subject."""
    return incident.target or incident.subject


def service_unit(subject: Subject) -> str | None:
    """Return the service unit's name when `subject` is one and the name is safe in a command."""
    return _checked(subject, SubjectKind.UNIT, _SERVICE)


def container_id(subject: Subject) -> str | None:
    """Return the container's full id when `subject` is one and the id is 64 hexadecimal digits."""
    return _checked(subject, SubjectKind.CONTAINER, _CONTAINER)


def cgroup_path(subject: Subject) -> str | None:
    """Return the control group's path when `subject` is one and the path is safe in a command."""
    return _checked(subject, SubjectKind.CGROUP, _CGROUP)


def gpu_address(subject: Subject) -> str | None:
    """Return the GPU's PCI address when `subject` is one and the address is whole."""
    return _checked(subject, SubjectKind.GPU, _GPU)


def model_name(route: RouteId | None) -> str | None:
    """Return the model's name where it is known and safe; it never begins with a separator."""
    return route.model if route is not None and _MODEL.match(route.model) else None


def _checked(subject: Subject, kind: SubjectKind, pattern: re.Pattern[str]) -> str | None:
    if subject.kind is kind and pattern.match(subject.name):
        return subject.name
    return None
