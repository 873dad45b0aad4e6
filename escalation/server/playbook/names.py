"""Names from hosts that may stand in a command or a text: checked in full, or not used at all.

A name that a host reports is hostile input. A remedy puts one into an argument list, or into its own words,
only through these functions; None means that the remedy has to advise something that needs no name. A
leading dash is refused everywhere, so that no name can be read as an option.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from escalation.model import Incident, RouteId, StorageEvidence, Subject, SubjectKind

# systemd.unit(5): letters, digits, ":_.\-" and one "@"; a backslash only as the escape of systemd-escape(1).
_SERVICE: Final = re.compile(r"(?=.{9,255}\Z)[A-Za-z0-9_](?:[A-Za-z0-9:_.@-]|\\x[0-9a-f]{2})*\.service\Z")
_CONTAINER: Final = re.compile(r"[0-9a-f]{64}\Z")
# What Hugging Face, Ollama and operators call a model: words with one separator between them, so no URL.
_MODEL: Final = re.compile(r"(?=.{1,96}\Z)[A-Za-z0-9]+(?:(?:[._:/@-]|__)[A-Za-z0-9]+)*\Z")
# A PCI address as the driver writes it: the domain has four or eight digits.
_GPU: Final = re.compile(r"[0-9A-Fa-f]{4}(?:[0-9A-Fa-f]{4})?:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7]\Z")
_CGROUP: Final = re.compile(r"(?=.{2,512}\Z)(?:/[A-Za-z0-9_][A-Za-z0-9:_.@-]*)+\Z")
# A mount's path, part by part: no "." or ".." and no part that a shell or an option reader could take apart.
_PATH: Final = re.compile(r"(?=.{1,255}\Z)/(?:(?!\.{1,2}(?:/|\Z))[A-Za-z0-9_.@:+-]+(?:/|\Z))*\Z")
# What the kernel calls a disk, an interface or an RDMA device: one word.
_DEVICE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}\Z")
# Docker's cgroups under systemd's driver and under its own.
_OF_DOCKER: Final = re.compile(r"/(?:docker-([0-9a-f]{64})\.scope|docker/([0-9a-f]{64}))(?:/|\Z)")
_PID_MAX: Final = 1 << 22  # proc(5), /proc/sys/kernel/pid_max


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


def mount_path(incident: Incident) -> str | None:
    """Return the path of the mount that the incident is about when it is safe in a command."""
    for each in incident.evidence:
        if isinstance(each, StorageEvidence):
            return each.mount if _PATH.match(each.mount) else None
    return _checked(incident.subject, SubjectKind.MOUNT, _PATH)


def device_name(name: str) -> str | None:
    """Return the name of a disk, a network interface or an RDMA device when it is one safe word."""
    return name if _DEVICE.match(name) else None


def ip_address(text: str) -> str | None:
    """Return the address in its canonical form; None for anything else, also for one with a zone."""
    try:
        return None if "%" in text else str(ipaddress.ip_address(text))
    except ValueError:
        return None


def process_id(incident: Incident) -> int | None:
    """Return the process of the incident's incarnation, whose life an approval is bound to."""
    pid = incident.incarnation.pid
    return pid if pid is not None and incident.incarnation.start_ticks and 1 < pid <= _PID_MAX else None


def owner_of_cgroup(path: str) -> Subject | None:
    """Return the container or service that a control group belongs to, when its name is safe.

    What a container or a user's own manager runs inside has units too; the host's systemctl would take their
    names for the host's own, so they have none here.
    """
    if (found := _OF_DOCKER.search(path)) is not None:
        return Subject(SubjectKind.CONTAINER, found[1] or found[2])
    services = [part for part in path.split("/") if part.endswith(".service")]
    if len(services) == 1 and path.startswith("/system.slice/") and _SERVICE.match(services[0]):
        return Subject(SubjectKind.UNIT, services[0])
    return None


def model_name(route: RouteId | None) -> str | None:
    """Return the model's name where it is known and safe; it never begins with a separator."""
    return route.model if route is not None and _MODEL.match(route.model) else None


def _checked(subject: Subject, kind: SubjectKind, pattern: re.Pattern[str]) -> str | None:
    if subject.kind is kind and pattern.match(subject.name):
        return subject.name
    return None
