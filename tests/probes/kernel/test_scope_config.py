"""The loader's scopes: strict, and denial only from a file that is root's alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from probes.kernel.config import ConfigInvalid, LoaderConfig, read_config
from probes.scopes import ScopeMode, ScopeRule

_ONE = '[[scope]]\nname = "ray"\nunit = "ray.service"\nmode = "deny"\nlisteners = [6379]\n'


def read(folder: Path, text: str) -> LoaderConfig:
    """Write a configuration and read it."""
    path = folder / "agent.toml"
    path.write_text(text)
    path.chmod(0o640)
    return read_config(path, sensors=("kernel.scope",))


def test_nothing_said_is_no_scope(tmp_path: Path) -> None:
    """Then the program is not even compiled."""
    assert read(tmp_path, "[metrics]\nport = 9999\n").scopes.rules == ()


def test_everything_said_is_read(tmp_path: Path) -> None:
    """Every key, and audit where no mode is named."""
    config = read(
        tmp_path,
        '[metrics]\nport = 9999\n[[scope]]\nname = "ray"\ncgroup = "/x/y"\nexecutables = ["/usr/bin/ray"]\n'
        'destinations = ["10.0.0.0/8:6379"]\nlisteners = []\n',
    )
    assert config.scopes.agent_port == 9999
    assert config.scopes.rules == (
        ScopeRule(
            name="ray",
            cgroup="/x/y",
            executables=("/usr/bin/ray",),
            destinations=("10.0.0.0/8:6379",),
            listeners=(),
        ),
    )


@pytest.mark.root
@pytest.mark.parametrize(
    ("owner", "mode", "folder_mode", "complaint"),
    [
        (0, 0o640, 0o755, ""),
        (0, 0o600, 0o1777, ""),
        (1, 0o640, 0o755, "belongs to uid 1"),
        (0, 0o660, 0o755, "can be written by others than root"),
        (0, 0o602, 0o755, "can be written by others than root"),
        (0, 0o640, 0o775, "can be written by others than root"),
    ],
    ids=["root's", "sticky folder", "another's", "a group's", "everybody's", "folder"],
)
def test_denial_is_taken_from_a_file_of_roots_alone(
    tmp_path: Path, owner: int, mode: int, folder_mode: int, complaint: str
) -> None:
    """Else it is heard as audit, and a note says why."""
    path = tmp_path / "agent.toml"
    path.write_text(_ONE)
    os.chown(path, owner, -1)
    path.chmod(mode)
    tmp_path.chmod(folder_mode)
    scopes = read_config(path, sensors=()).scopes
    assert scopes.rules[0].mode is (ScopeMode.AUDIT if complaint else ScopeMode.DENY)
    assert len(scopes.notes) == bool(complaint)
    for note in scopes.notes:
        assert note.startswith("scope ray is audited, not denied: ")
        assert complaint in note


@pytest.mark.root
@pytest.mark.parametrize("theirs", ["above", "links", "chain"])
def test_denial_is_not_taken_by_way_of_a_folder_of_somebody_else(tmp_path: Path, theirs: str) -> None:
    """Who may rename a folder, or turn a symbolic link to another file, decides what is read."""
    for name in ("above", "links", "chain"):
        (tmp_path / name).mkdir()
    (tmp_path / "above/etc").mkdir()
    (tmp_path / "above/etc/agent.toml").write_text(_ONE)
    (tmp_path / "chain/agent.toml").symlink_to("../above/etc/agent.toml")
    (tmp_path / "links/agent.toml").symlink_to(tmp_path / "chain/agent.toml")
    path = tmp_path / "links/agent.toml"
    assert read_config(path, sensors=()).scopes.rules[0].mode is ScopeMode.DENY

    os.chown(tmp_path / theirs, 1, -1)
    scopes = read_config(path, sensors=()).scopes
    assert scopes.rules[0].mode is ScopeMode.AUDIT
    assert scopes.notes == (
        f"scope ray is audited, not denied: its folder {tmp_path / theirs} belongs to uid 1",
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("scope = 3\n", "expected [[scope]], one table for each"),
        ("scope = [3]\n", "expected [[scope]], one table for each"),
        ('[scope]\nname = "x"\n', "expected [[scope]]"),
        ("[[scope]]\n", "a scope without a name"),
        (_ONE + "colour = 1\n", "scope ray: unknown key 'colour'"),
        (_ONE.replace("deny", "kill"), 'scope ray: mode: expected "audit" or "deny"'),
        (_ONE.replace("[6379]", "6379"), "scope ray: listeners: expected a list of port numbers"),
        (_ONE.replace("6379", "true"), "scope ray: listeners: expected a list of port numbers"),
        (_ONE.replace('"ray.service"', "3"), "scope ray: unit: expected a text"),
        (_ONE + _ONE, "scope ray: declared twice"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    """File, line of the tables, and what is wrong."""
    with pytest.raises(ConfigInvalid) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "agent.toml"))
    assert complaint in str(caught.value)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Nothing but ConfigInvalid comes out."""
    path = tmp_path_factory.getbasetemp() / "fuzzed-scopes.toml"
    path.write_text("[[scope]]\n" + text, encoding="utf-8")
    try:
        read_config(path, sensors=())
    except ConfigInvalid:
        return
