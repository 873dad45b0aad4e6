"""storage.read_only: a filesystem that was written to no longer can be, fails, or has gone.

The kernel stops writing to save what is there. Every step from here can lose data, so none is offered for
approval: stop the writers, copy what matters, and only then check or replace.
"""

from __future__ import annotations

from typing import Final

from escalation.model import (
    Advice,
    BlockEvidence,
    Incident,
    MountRole,
    ReasonCode,
    StorageEvidence,
    Verification,
)
from escalation.server.playbook import steps
from escalation.server.playbook.names import device_name, mount_path

_PROOF: Final = Verification(
    text="Within a day it is mounted and can be written to, and no error is counted for an hour.",
    within_s=86_400,
    quiet_s=3600,
)


def advise(incident: Incident) -> Advice:
    """Return: bring a vanished disk back; back up and check one that fails; a note only looks."""
    found = next((each for each in incident.evidence if isinstance(each, StorageEvidence)), None)
    gone = steps.has_reason(incident, ReasonCode.MOUNT_MISSING) or (found is not None and not found.mounted)
    if steps.is_only_a_note(incident):
        return steps.look(
            incident,
            ("lsblk", "--fs") if gone else _health(incident),
            summary=(
                "Look whether the disk is still there and what it says of itself. One error alone may be a "
                "single bad block, or a cable."
            ),
            will_not_fix="Anything: it shows the state of the disk.",
            proof=_PROOF,
        )
    path = mount_path(incident)
    if steps.has_reason(incident, ReasonCode.MOUNT_SILENT):
        return steps.by_hand(
            incident,
            ("findmnt", path) if path is not None else ("lsblk", "--fs"),
            summary=(
                "See where it comes from, and whether its server and the network to it answer; of a local "
                "disk the kernel's log tells. What reads from it waits, and goes on once it answers."
            ),
            risk=(
                "Taking it away by force (umount -f, umount -l) fails every program that has a file of it "
                "open, and what was not yet written is lost."
            ),
            will_not_fix="A server or a network that is away: nothing on this host brings it back.",
            proof=_PROOF,
        )
    if gone:
        external = found is not None and found.role is MountRole.EXTERNAL
        return steps.by_hand(
            incident,
            ("mount", path) if path is not None else ("lsblk", "--fs"),
            summary=(
                ("Plug the external disk in again" if external else "Bring the disk back")
                + " and mount it, then restart the servers that read from it. Look at lsblk first: a disk "
                "that is not listed there is not seen by the kernel at all."
            ),
            risk=(
                "What was written to the empty folder meanwhile is hidden below the mount. A disk that was "
                "taken away while it was written to may need a check before it is mounted."
            ),
            will_not_fix="A cable, a port or a supply that lets go again. What was not yet written is lost.",
            proof=_PROOF,
        )
    return steps.by_hand(
        incident,
        _health(incident),
        summary=(
            "Stop what writes there, copy what matters to another disk while it can still be read, and read "
            "what the disk and the kernel say. Only then unmount it and check it (fsck), or replace the disk."
        ),
        risk=(
            "A check that repairs can remove damaged files for good: copy first. Mounting it writable again "
            "without a check makes the damage larger. All that writes there fails until this is done."
        ),
        will_not_fix="A disk that is failing: errors that come back after a check are a case for a new one.",
        proof=_PROOF,
    )


def _health(incident: Incident) -> tuple[str, ...]:
    """Return what the disk says of itself where errors name it, what the kernel says otherwise."""
    for each in incident.evidence:
        if isinstance(each, BlockEvidence) and each.errors and (device := device_name(each.device)):
            return ("smartctl", "--all", f"/dev/{device}")
    return steps.KERNEL_LOG
