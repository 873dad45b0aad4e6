"""Kernel headers of every arrangement that distributions ship, on a made-up root."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.kernel.headers import HeadersMissing, find_headers, package_name

_DEBIAN = 'ID=debian\nVERSION_ID="12"\n'
_UBUNTU = 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n'


def _generated(folder: Path, arch: str = "x86") -> Path:
    (folder / "include/generated").mkdir(parents=True)
    (folder / "include/generated/autoconf.h").touch()
    (folder / f"arch/{arch}/include/generated").mkdir(parents=True)
    return folder


def _source(folder: Path, arch: str = "x86") -> Path:
    (folder / "include/linux").mkdir(parents=True, exist_ok=True)
    (folder / "include/linux/kconfig.h").touch()
    (folder / f"arch/{arch}/include").mkdir(parents=True, exist_ok=True)
    return folder


def _link_build(root: Path, release: str, target: Path) -> None:
    (root / "lib/modules" / release).mkdir(parents=True)
    (root / "lib/modules" / release / "build").symlink_to(target)


def test_uses_the_running_kernel_s_own_headers(tmp_path: Path) -> None:
    """One whole folder, as Ubuntu has it, needs nothing more."""
    whole = _source(_generated(tmp_path / "usr/src/linux-headers-6.8.0-31-generic"))
    _link_build(tmp_path, "6.8.0-31-generic", whole)
    found = find_headers(root=tmp_path, release="6.8.0-31-generic", machine="x86_64")
    assert (found.source, found.flags) == (whole, ())


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_joins_debian_s_two_halves(tmp_path: Path, machine: str) -> None:
    """The generated half is told to the compiler by flags; its Makefile names the other."""
    arch = {"x86_64": "x86", "aarch64": "arm64"}[machine]
    build = _generated(tmp_path / "usr/src/linux-headers-6.1.0-56-flavour", arch)
    common = _source(tmp_path / "usr/src/linux-headers-6.1.0-56-common", arch)
    (build / "Makefile").write_text(f"include {common}/Makefile\n")
    _link_build(tmp_path, "6.1.0-56-flavour", build)
    found = find_headers(root=tmp_path, release="6.1.0-56-flavour", machine=machine)
    assert found.source == common
    assert f"-I{build}/arch/{arch}/include/generated" in found.flags
    assert f"-I{build}/include" in found.flags


def test_finds_the_other_half_by_its_name(tmp_path: Path) -> None:
    """Without a telling Makefile the neighbour named `-common` is taken."""
    build = _generated(tmp_path / "usr/src/linux-headers-6.1.0-56-amd64")
    common = _source(tmp_path / "usr/src/linux-headers-6.1.0-56-common")
    found = find_headers(root=tmp_path, release="6.18.0", machine="x86_64")
    assert (found.source, found.found) == (common, str(build))


def test_takes_the_newest_of_other_versions(tmp_path: Path) -> None:
    """Any version serves; 6.10 is newer than 6.9."""
    for version in ("6.9.0-1", "6.10.0-1", "5.10.0-9"):
        _source(_generated(tmp_path / f"usr/src/linux-headers-{version}-amd64"))
    found = find_headers(root=tmp_path, release="6.18.0", machine="x86_64")
    assert found.source.name == "linux-headers-6.10.0-1-amd64"


def test_passes_by_a_broken_link_a_loop_and_another_architecture(tmp_path: Path) -> None:
    """What a removed package left behind is no reason to stop."""
    _link_build(tmp_path, "6.18.0", tmp_path / "gone")
    (tmp_path / "lib/modules/6.17.0").mkdir()
    (tmp_path / "lib/modules/6.17.0/build").symlink_to(tmp_path / "lib/modules/6.17.0/build")
    _source(_generated(tmp_path / "usr/src/linux-headers-6.16.0-arm64", "arm64"), "arm64")
    whole = _source(_generated(tmp_path / "usr/src/linux-headers-6.1.0-amd64"))
    assert find_headers(root=tmp_path, release="6.18.0", machine="x86_64").source == whole


@pytest.mark.parametrize(
    ("os_release", "machine", "package"),
    [
        (_DEBIAN, "x86_64", "linux-headers-amd64"),
        (_DEBIAN, "aarch64", "linux-headers-arm64"),
        (_UBUNTU, "aarch64", "linux-headers-generic"),
    ],
)
def test_names_the_package_when_there_are_none(
    tmp_path: Path, os_release: str, machine: str, package: str
) -> None:
    """The error is what to install."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text(os_release)
    with pytest.raises(HeadersMissing, match=f"install the package {package}$"):
        find_headers(root=tmp_path, release="6.18.0", machine=machine)
    assert package_name(machine=machine, os_release=os_release) == package


def test_an_override_is_taken_or_refused_by_name(tmp_path: Path) -> None:
    """BCC_KERNEL_SOURCE is honoured; a useless one is not passed over in silence."""
    whole = _source(_generated(tmp_path / "mine"))
    assert find_headers(root=tmp_path, release="x", machine="x86_64", override=str(whole)).source == whole
    with pytest.raises(HeadersMissing, match="BCC_KERNEL_SOURCE=/nowhere holds no configured kernel headers"):
        find_headers(root=tmp_path, release="x", machine="x86_64", override="/nowhere")


def test_refuses_an_architecture_that_has_no_programs(tmp_path: Path) -> None:
    """Registers are read by architecture."""
    with pytest.raises(HeadersMissing, match="riscv64: this architecture is not supported"):
        find_headers(root=tmp_path, release="x", machine="riscv64")
