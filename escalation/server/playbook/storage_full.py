"""storage.full: a filesystem that matters has no space, or no inodes, left.

Nothing that anybody wrote is ever offered for removal: no volume, no database file, no model, no log. What
can be had back safely is what Docker can fetch or build again: images that no container uses and that have no
name. For everything else the advice is a list of what is large, for a person to choose from.
"""

from __future__ import annotations

from typing import Final

from escalation.model import (
    ActionKind,
    Advice,
    Incident,
    MountRole,
    ReasonCode,
    StorageEvidence,
    Verification,
)
from escalation.server.playbook import steps
from escalation.server.playbook.names import mount_path

_PROOF: Final = Verification(
    text="Within a day a tenth of the filesystem is free again, and no write is refused for an hour.",
    within_s=86_400,
    quiet_s=3600,
)
_WHERE: Final = {
    MountRole.DATABASE: (
        "Never remove a file of a database by hand, its log of changes (pg_wal) least of all: move other "
        "things away, or make the filesystem larger, before the database stops itself."
    ),
    MountRole.MODELS: (
        "Models that nobody uses any more are the large ones: remove them with the tool that fetched them "
        "(ollama rm, hf cache delete), not by hand."
    ),
    MountRole.ROOT: (
        "Images of containers (docker system df), logs and downloaded models are what fills a root "
        "filesystem. Leave volumes and databases alone."
    ),
    MountRole.METRICS: "Shorten how long the metrics are kept, in Prometheus's own settings.",
    MountRole.LOGS: "Shorten how much the journal keeps (SystemMaxUse= in journald.conf).",
    MountRole.CONTAINERS: (
        "docker system df shows what images, containers and volumes take. A volume holds data that exists "
        "nowhere else: leave volumes alone."
    ),
}


def advise(incident: Incident) -> Advice:
    """Return: prune unused images where containers filled it; a list of what is large otherwise."""
    found = next((each for each in incident.evidence if isinstance(each, StorageEvidence)), None)
    role = found.role if found is not None else MountRole.UNKNOWN
    inodes = _is_of_inodes(incident)
    if role is MountRole.CONTAINERS and not steps.is_only_a_note(incident):
        return steps.propose(
            incident,
            ActionKind.FREE_SPACE,
            ("docker", "image", "prune", "--force"),
            summary=(
                f"Remove the images that no container uses and that have no name: this frees {_what(inodes)} "
                "at once. Run docker system df first: it shows what there is to gain, and what else is large."
            ),
            risk=(
                "Such an image is fetched or built again when it is wanted, which takes time and the "
                "network. No volume, no container and no named image is touched: never add --volumes or "
                "--all to this command."
            ),
            will_not_fix=(
                "Volumes, logs of containers, named images and models: they are for a person to choose from. "
                "What fills the filesystem goes on filling it."
            ),
            proof=_PROOF,
        )
    path = mount_path(incident)
    return steps.look(
        incident,
        _listing(path, role, inodes=inodes),
        summary=(
            f"Look at what takes the most {_what(inodes)} there, and free some. {_WHERE.get(role, '')}"
        ).rstrip(),
        risk=(
            "None: the command only reads. Reading a large tree takes minutes and slows the disk meanwhile. "
            "Its output shows names of files."
        ),
        will_not_fix="Anything: it shows what is large. Nothing is offered for removal here.",
        proof=_PROOF,
    )


def _is_of_inodes(incident: Incident) -> bool:
    return steps.has_reason(incident, ReasonCode.INODES_LOW) and not steps.has_reason(
        incident, ReasonCode.SPACE_LOW
    )


def _what(inodes: bool) -> str:  # noqa: FBT001 -- the two kinds of want
    return "inodes (that is: number of files)" if inodes else "space"


def _listing(path: str | None, role: MountRole, *, inodes: bool) -> tuple[str, ...]:
    if role is MountRole.CONTAINERS:
        return ("docker", "system", "df")
    if path is None:
        return ("df", "--inodes", "--local") if inodes else ("df", "--human-readable", "--local")
    if role is MountRole.LOGS and not inodes:
        return ("journalctl", "--disk-usage")
    unit = ("--inodes",) if inodes else ("--human-readable",)
    return ("du", *unit, "--one-file-system", "--max-depth=2", path)
