"""Format files of several kernels become C structs; whatever else is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from probes.kernel.perf_events import paranoia
from probes.kernel.tracepoints import (
    TracepointMissing,
    c_struct,
    find_tracefs,
    parse_format,
    read_format,
)

_COMMON = """name: x
ID: 9
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

"""
_MARK_VICTIM_6_1 = (
    _COMMON + '\tfield:int pid;\toffset:8;\tsize:4;\tsigned:1;\n\nprint fmt: "pid=%d", REC->pid\n'
)
_MARK_VICTIM_6_18 = (
    _COMMON
    + "\tfield:int pid;\toffset:8;\tsize:4;\tsigned:1;\n"
    + "\tfield:__data_loc char[] comm;\toffset:12;\tsize:4;\tsigned:0;\n"
    + "\tfield:unsigned long total_vm;\toffset:16;\tsize:8;\tsigned:0;\n"
    + "\tfield:unsigned long anon_rss;\toffset:24;\tsize:8;\tsigned:0;\n"
)
_SET_STATE = (
    _COMMON
    + "\tfield:const void * skaddr;\toffset:8;\tsize:8;\tsigned:0;\n"
    + "\tfield:int newstate;\toffset:20;\tsize:4;\tsigned:1;\n"
    + "\tfield:__u8 saddr[4];\toffset:32;\tsize:4;\tsigned:0;\n"
)


def test_an_older_kernel_s_record_has_what_it_has() -> None:
    """What 6.1 lacks is not declared, so the program leaves it out."""
    old = c_struct(parse_format("oom:mark_victim", "9\n", _MARK_VICTIM_6_1))
    new = c_struct(parse_format("oom:mark_victim", "9\n", _MARK_VICTIM_6_18))
    assert "#define HAS_oom_mark_victim_anon_rss 1" not in old
    assert "#define HAS_oom_mark_victim_anon_rss 1" in new
    assert "struct tp_oom_mark_victim {\n    u8 pad0[8];\n    s32 pid;\n};" in old
    assert "    u64 anon_rss;" in new


def test_holes_are_padded_and_arrays_kept() -> None:
    """Every field lies where the kernel put it."""
    text = c_struct(parse_format("sock:inet_sock_set_state", "9", _SET_STATE))
    assert text.split("{")[1].split("}")[0].split("\n")[1:-1] == [
        "    u8 pad0[8];",
        "    u64 skaddr;",
        "    u8 pad1[4];",
        "    s32 newstate;",
        "    u8 pad2[8];",
        "    u8 saddr[4];",
    ]


@given(st.text(max_size=300))
def test_any_text_is_a_format_or_refused(text: str) -> None:
    """A file that is none is a ValueError, which the reader turns into its own error."""
    with pytest.raises(ValueError, match=r"no fields|invalid literal|unreadable"):
        parse_format("a:b", "x", text)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["int", "char", "u64", "const void *", "__data_loc char[]"]),
            st.integers(0, 400),
            st.sampled_from([1, 2, 3, 4, 8, 16]),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_no_struct_overlaps_or_leaves_its_place(fields: list[tuple[str, int, int]]) -> None:
    """Whatever a kernel describes, offsets in the generated struct are the kernel's own."""
    text = "".join(
        f"\tfield:{kind} f{i};\toffset:{offset};\tsize:{size};\tsigned:0;\n"
        for i, (kind, offset, size) in enumerate(fields)
    )
    described = {f"f{i}": offset for i, (_, offset, _) in enumerate(fields)}
    at = 0
    for line in c_struct(parse_format("a:b", "1", text)).split("{")[1].split("}")[0].strip().split("\n"):
        match = re.fullmatch(r"\s*([us])(\d+) (\w+)(?:\[(\d+)\])?;", line)
        if match is None:
            assert line.strip() == ""
            continue
        name, size = match[3], int(match[2]) // 8 * int(match[4] or 1)
        if name in described:
            assert at == described[name]
            assert at % (int(match[2]) // 8) == 0
        at += size


def test_a_missing_tracepoint_is_named(tmp_path: Path) -> None:
    """The message says which."""
    with pytest.raises(TracepointMissing, match="this kernel has no tracepoint oom:mark_victim"):
        read_format(tmp_path, "oom:mark_victim")
    folder = tmp_path / "events/oom/mark_victim"
    folder.mkdir(parents=True)
    (folder / "id").write_text("nine")
    (folder / "format").write_text(_MARK_VICTIM_6_1)
    with pytest.raises(
        TracepointMissing, match="read the format of tracepoint oom:mark_victim: invalid literal"
    ):
        read_format(tmp_path, "oom:mark_victim")


@pytest.mark.parametrize(
    ("code", "level", "hint"),
    [(13, "3\n", True), (13, "4\n", True), (13, "2\n", False), (1, "3\n", False), (13, "x", False)],
)
def test_a_refusal_by_a_stricter_kernel_says_what_to_set(
    tmp_path: Path, code: int, level: str, hint: bool
) -> None:
    """Debian's level 3 and Ubuntu's 4 refuse CAP_PERFMON; nothing else gets that hint."""
    path = tmp_path / "perf_event_paranoid"
    path.write_text(level)
    told = paranoia(code, path)
    assert (f"kernel.perf_event_paranoid is {level.strip()}" in told) is hint
    assert paranoia(13, tmp_path / "none") == ""


def test_tracefs_is_found_where_it_is_mounted(tmp_path: Path) -> None:
    """An unusual place counts when the mount table says so."""
    (tmp_path / "events").mkdir()
    usual = find_tracefs("")
    found = find_tracefs(f"tracefs {tmp_path} tracefs rw 0 0\n")
    assert found == (usual if usual is not None else tmp_path)
