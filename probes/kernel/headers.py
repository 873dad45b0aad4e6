"""Find kernel headers that bcc's compiler can use, whatever version they are.

bcc runs clang inside one kernel source folder with relative include paths, and needs it because its own
prelude includes a few kernel headers (types, ptrace); our programs include none and read no kernel structure,
so any version of the right architecture serves. bcc's own search looks only at `/lib/modules/$(uname -r)`,
and `BCC_KERNEL_SOURCE` takes one folder where Debian has two. Here the source half goes into
`BCC_KERNEL_SOURCE` and the generated half into extra `-I` flags: nothing is linked or written anywhere.
Rejected: a folder of links in the loader's state folder (a second thing to clean up) and a link below
/lib/modules (it belongs to the package manager).
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ARCHITECTURES = {"x86_64": "x86", "aarch64": "arm64"}
_PACKAGES = {"x86_64": "amd64", "aarch64": "arm64"}
_INCLUDED_SOURCE = re.compile(r"^include (?P<folder>/\S+)/Makefile\s*$", re.MULTILINE)


class HeadersMissing(Exception):
    """No usable kernel headers on this machine; the message names the package."""


@dataclass(frozen=True, slots=True)
class Headers:
    """Where the compiler works (`source`), what it must be told besides, and what was found."""

    source: Path
    flags: tuple[str, ...]
    found: str


def find_headers(
    *, root: Path = Path("/"), release: str, machine: str, override: str | None = None
) -> Headers:
    """Return usable headers: the override's, the running kernel's, else the newest installed ones."""
    arch = _ARCHITECTURES.get(machine)
    if arch is None:
        raise HeadersMissing(f"kernel headers for {machine}: this architecture is not supported")
    if override is not None:
        chosen = _usable(Path(override), arch)
        if chosen is None:
            raise HeadersMissing(
                f"BCC_KERNEL_SOURCE={override} holds no configured kernel headers for {arch}"
            )
        return chosen
    for build in _candidates(root, release):
        chosen = _usable(build, arch)
        if chosen is not None:
            return chosen
    raise HeadersMissing(
        f"no kernel headers in {root / 'lib/modules'} or {root / 'usr/src'}: "
        f"install the package {package_name(machine=machine, os_release=_os_release(root))}"
    )


def package_name(*, machine: str, os_release: str) -> str:
    """Return the package that brings headers on this distribution."""
    if re.search(r"^ID(_LIKE)?=.*ubuntu", os_release, re.MULTILINE):
        return "linux-headers-generic"
    return f"linux-headers-{_PACKAGES.get(machine, machine)}"


def running_machine() -> tuple[str, str]:
    """Return the running kernel's release and machine."""
    return platform.release(), platform.machine()


def _candidates(root: Path, release: str) -> Iterator[Path]:
    modules, sources = root / "lib/modules", root / "usr/src"
    yield modules / release / "build"
    yield sources / f"linux-headers-{release}"
    others = [*modules.glob("*/build"), *sources.glob("linux-headers-*")]
    yield from sorted(others, key=lambda path: _version(str(path)), reverse=True)


def _version(text: str) -> tuple[int, ...]:
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?(?:-(\d+))?", text)
    return tuple(int(part or 0) for part in match.groups()) if match else ()


def _usable(build: Path, arch: str) -> Headers | None:
    """Return headers built around the configured folder `build`, or None when a part is missing."""
    try:
        build = build.resolve(strict=True)
        if not (build / "include/generated/autoconf.h").is_file():
            return None
        if not (build / f"arch/{arch}/include/generated").is_dir():
            return None
        for source in (build, *_source_halves(build)):
            if (source / "include/linux/kconfig.h").is_file() and (source / f"arch/{arch}/include").is_dir():
                flags = () if source == build else _flags(build, arch)
                return Headers(source=source, flags=flags, found=str(build))
    except (OSError, RuntimeError):  # a loop of links, a folder that may not be entered
        return None
    return None


def _source_halves(build: Path) -> Iterator[Path]:
    """Yield where the other half of split headers may be: as its Makefile says, as Debian names it."""
    try:
        makefile = (build / "Makefile").read_text(errors="replace")
    except OSError:
        makefile = ""
    match = _INCLUDED_SOURCE.search(makefile)
    if match:
        yield Path(match["folder"])
    if (build / "source").is_dir():
        yield (build / "source").resolve()
    head, _, _ = build.name.rpartition("-")
    if head:
        yield build.with_name(f"{head}-common")


def _flags(build: Path, arch: str) -> tuple[str, ...]:
    parts = (
        f"arch/{arch}/include/generated",
        f"arch/{arch}/include/generated/uapi",
        "include",
        "include/generated/uapi",
    )
    return tuple(f"-I{build / part}" for part in parts)


def _os_release(root: Path) -> str:
    try:
        return (root / "etc/os-release").read_text(errors="replace")
    except OSError:
        return ""
