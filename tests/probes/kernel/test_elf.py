"""Functions are found in a real library where they run in memory; hostile files are refused by name."""

from __future__ import annotations

import ctypes.util
import re
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from probes.kernel.elf import LibraryUnusable, function_offsets


@pytest.fixture(scope="module")
def library() -> Path:
    """The C library that this process runs with."""
    ctypes.CDLL(None)
    found = re.search(r"\s(/\S*/libc\.so\S*|/\S*/libc-\S*\.so)$", Path("/proc/self/maps").read_text(), re.M)
    if found is None:
        pytest.skip("no libc in a file of its own")
    return Path(found[1])


def test_an_offset_leads_to_the_code_that_runs(library: Path) -> None:
    """The bytes in the file at the offset are those in memory at the function's address."""
    offsets = function_offsets(library, ["getpid", "getppid", "no_such_function"])
    assert set(offsets) == {"getpid", "getppid"}
    data = library.read_bytes()
    for name, offset in offsets.items():
        address = ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value
        assert address is not None
        assert data[offset : offset + 16] == ctypes.string_at(address, 16)


def test_a_missing_file_and_one_that_is_no_library_are_named(tmp_path: Path) -> None:
    """The message says which file and why."""
    with pytest.raises(LibraryUnusable, match=r"/none: No such file"):
        function_offsets(Path("/none"), ["x"])
    for content in (b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + bytes(100), b"\x7fELF\x02\x01" + b"\xff" * 100):
        path = tmp_path / "libx.so"
        path.write_bytes(content)
        with pytest.raises(LibraryUnusable, match=r"libx\.so: is no shared library"):
            function_offsets(path, ["x"])


@settings(max_examples=200)
@given(data=st.data())
def test_a_hostile_file_never_crashes(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever stands in the headers: offsets, or LibraryUnusable."""
    path = tmp_path_factory.getbasetemp() / "hostile.so"
    header = b"\x7fELF\x02\x01" + data.draw(st.binary(min_size=58, max_size=58))
    path.write_bytes(header + data.draw(st.binary(max_size=400)))
    try:
        found = function_offsets(path, ["x"])
    except LibraryUnusable:
        return
    assert set(found) <= {"x"}
