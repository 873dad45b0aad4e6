"""Which filesystems of a host matter, as its mount table tells: where, of what kind, on what, for what.

Reads /proc/1/mountinfo (proc(5)), which any user may: the agent's own table shows everything read-only,
because its sandbox makes it so, and hides home folders. What can be seen from inside is told by comparing
both tables, so that the size of a folder of the sandbox is never taken for that of the filesystem it hides.

A filesystem matters where a known or declared path lies on it, or where it is a local disk mounted for
writing. Images (squashfs, ISO, EROFS) are full and read-only by design; overlays and tmpfs have nothing of
their own to fill but what lies below them, and are left out unless it is the root or a path is declared
there. Pure: text in, values out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from probes.observed.storage import StorageRole

KNOWN: Final[tuple[tuple[str, StorageRole], ...]] = (
    ("/", StorageRole.ROOT),
    ("/home", StorageRole.MODELS),
    ("/root", StorageRole.MODELS),
    ("/root/.cache/huggingface", StorageRole.MODELS),
    ("/root/.ollama", StorageRole.MODELS),
    ("/usr/share/ollama/.ollama", StorageRole.MODELS),
    ("/var/lib/containerd", StorageRole.CONTAINERS),
    ("/var/lib/containers", StorageRole.CONTAINERS),
    ("/var/lib/docker", StorageRole.CONTAINERS),
    ("/var/lib/grafana", StorageRole.METRICS),
    ("/var/lib/ollama", StorageRole.MODELS),
    ("/var/lib/postgresql", StorageRole.DATABASE),
    ("/var/lib/prometheus", StorageRole.METRICS),
    ("/var/log", StorageRole.LOGS),
    ("/var/log/journal", StorageRole.LOGS),
)
"""Where such hosts keep what fills a disk: the defaults of the programs themselves."""

IMAGES: Final = frozenset({"cramfs", "erofs", "iso9660", "romfs", "squashfs", "udf"})
_LAYERED: Final = frozenset({"overlay", "tmpfs", "ramfs", "devtmpfs", "autofs"})
_QUIET_PLACES: Final = ("/boot/", "/snap/", "/run/", "/dev/", "/sys/", "/proc/")
_MEDIA: Final = "/run/media/"
"""Where udisks2 mounts disks that people plug in, unless it was built for /media."""

_ESCAPE: Final = re.compile(r"\\([0-7]{3})")
_LINES_MAX: Final = 4096
_FORCED: Final = frozenset({"emergency_ro", "shutdown"})
"""Options that ext4 shows for itself once it refuses writes (fs/ext4/super.c, _ext4_show_options)."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of the table, decoded. `options` are the mount's, `super_options` the filesystem's."""

    identity: int
    device: str
    root: str
    point: str
    options: frozenset[str]
    filesystem: str
    source: str
    super_options: frozenset[str]

    @property
    def read_only(self) -> bool:
        """Whether a program that writes here is refused."""
        return "ro" in self.options or "ro" in self.super_options or self.forced

    @property
    def stops_on_error(self) -> bool:
        """Whether an ext4 takes no more writes after the first error that it finds."""
        return "errors=remount-ro" in self.super_options

    @property
    def forced(self) -> bool:
        """Whether the filesystem refuses writes at a mount that is for writing."""
        turned = "ro" in self.super_options and "rw" in self.options and self.filesystem not in IMAGES
        return turned or bool(_FORCED & self.super_options)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A filesystem that matters: its mount, the role of what lies on it, and where to ask for its sizes.

    `mount` is None for a declared disk that is not mounted; `ask` None where no mount of it can be seen.
    """

    point: str
    role: StorageRole
    mount: Mount | None
    ask: str | None


def parse(text: str) -> tuple[Mount, ...]:
    """Return the mounts of a table in its order, at most 4096; lines that are none are left out."""
    found = (_mount(line) for line in text.split("\n", _LINES_MAX)[:_LINES_MAX])
    return tuple(mount for mount in found if mount is not None)


def _mount(line: str) -> Mount | None:
    before, divider, after = line.partition(" - ")
    fields, rest = before.split(" "), after.split(" ")
    if not divider or len(fields) < 6 or len(rest) < 3 or not fields[0].isdecimal():
        return None
    if not re.fullmatch(r"\d{1,10}:\d{1,10}", fields[2]):
        return None
    return Mount(
        identity=int(fields[0]),
        device=fields[2],
        root=_plain(fields[3]),
        point=_plain(fields[4]),
        options=frozenset(fields[5].split(",")),
        filesystem=_plain(rest[0]),
        source=_plain(rest[1]),
        super_options=frozenset(rest[2].split(",")),
    )


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), text) if "\\" in text else text


def holding(path: str, table: Mapping[str, Mount]) -> Mount | None:
    """Return the mount that `path` lies on; `table` has the uppermost mount of each point."""
    while path and path != "/":
        if path in table:
            return table[path]
        path = path.rpartition("/")[0]
    return table.get("/")


def uppermost(mounts: Iterable[Mount]) -> dict[str, Mount]:
    """Return the last mount of each point: it hides the others."""
    return {mount.point: mount for mount in mounts}


def choose(
    host: Iterable[Mount],
    own: Iterable[Mount],
    *,
    declared: Iterable[str],
    external: Iterable[str],
    resolved: Mapping[str, str],
    most: int,
) -> tuple[tuple[Chosen, ...], int]:
    """Return the filesystems that matter, sorted by mount point, and how many beyond `most` were left out.

    `host` and `own` are the host's and this process's mount table. `declared` are paths that
    matter, `external` the mount points of disks that must be there; `resolved` says where a path really lies.
    """
    table, seen = uppermost(host), uppermost(own)
    roles: dict[str, tuple[StorageRole, Mount | None]] = {}
    for point in external:
        roles[point] = (StorageRole.EXTERNAL, table.get(point))
    for path in declared:
        mount = holding(resolved.get(path, path), table)
        if mount is not None:
            role = StorageRole.ROOT if mount.point == "/" else StorageRole.DECLARED
            roles.setdefault(mount.point, (role, mount))
    for path, role in KNOWN:
        mount = holding(resolved.get(path, path), table)
        if mount is None or mount.filesystem in IMAGES:
            continue
        if mount.filesystem in _LAYERED and mount.point != "/":
            continue
        # A path that lies on the root filesystem makes it no less the root.
        own_role = StorageRole.ROOT if mount.point == "/" else role
        roles.setdefault(mount.point, (own_role, mount))
    for mount in table.values():
        if _is_disk(mount):
            roles.setdefault(mount.point, (StorageRole.OTHER, mount))
    chosen = _once_each(roles, table, seen)
    return tuple(sorted(chosen[:most], key=lambda each: each.point)), max(0, len(chosen) - most)


def _is_disk(mount: Mount) -> bool:
    return (
        mount.source.startswith("/dev/")
        and mount.filesystem not in IMAGES
        and (mount.root == "/" or mount.filesystem == "btrfs")
        and (mount.point.startswith(_MEDIA) or not f"{mount.point}/".startswith(_QUIET_PLACES))
        and ("rw" in mount.options or mount.forced)
    )


def _once_each(
    roles: Mapping[str, tuple[StorageRole, Mount | None]],
    table: Mapping[str, Mount],
    seen: Mapping[str, Mount],
) -> list[Chosen]:
    """Keep one mount point of each filesystem: the first found, which has the most telling role."""
    found: list[Chosen] = []
    devices: set[str] = set()
    for point, (role, mount) in roles.items():
        if mount is None:
            found.append(Chosen(point, role, None, None))
        elif mount.device not in devices:
            devices.add(mount.device)
            found.append(Chosen(point, role, mount, _visible(mount, table, seen)))
    return found


def _visible(mount: Mount, table: Mapping[str, Mount], seen: Mapping[str, Mount]) -> str | None:
    """Return a path of this process's own view that lies on the filesystem, its usual mount point first."""
    if mount.filesystem == "autofs":
        return None  # asking would mount it
    here = seen.get(mount.point)
    if here is not None and here.device == mount.device:
        return mount.point
    for point, other in table.items():
        if other.device == mount.device and (own := seen.get(point)) and own.device == mount.device:
            return point
    return None
