"""Settings: every error names the file, the line and the key."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from escalation.settings import SettingsError, load, parse


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    limit: int = 3
    names: tuple[str, ...] = ()


class Whole(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    part: Part = Part()
    person: tuple[Part, ...] = ()


def test_reads_values_and_fills_defaults() -> None:
    """What the file says is taken, what it leaves out has its default."""
    assert parse("[part]\nlimit = 7\n", Whole, name="x") == Whole(part=Part(limit=7))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[part]\nlimit = 1\nlimmit = 2\n", "f.toml:3: part.limmit: unknown key"),
        ("# c\n[part]\n\nlimit = 'many'\n", "f.toml:4: part.limit: Expected `int`, got `str`"),
        ("[prat]\nlimit = 1\n", "f.toml:1: prat: unknown key"),
        ("[[person]]\nlimit = 1\n[[person]]\nlimit = 2.5\n", "f.toml:4: person.1.limit: Expected `int`"),
        ("part = 3\n", "f.toml:1: part: Expected `object`, got `int`"),
    ],
)
def test_names_line_and_key(text: str, expected: str) -> None:
    """An unknown key or a wrong value is named with its line."""
    with pytest.raises(SettingsError) as caught:
        parse(text, Whole, name="f.toml")
    assert str(caught.value).startswith(expected)


def test_broken_toml_names_the_line(tmp_path: Path) -> None:
    """Text that is no TOML, or no text, is refused with its place; a missing file too."""
    path = tmp_path / "a.toml"
    path.write_text("[part\nlimit=1\n")
    with pytest.raises(SettingsError, match=r"a\.toml: is not valid TOML: .*line 1"):
        load(path, Whole)
    path.write_bytes(b"[part]\nnames = ['\xff']\n")
    with pytest.raises(SettingsError, match=r"a\.toml:2: is not UTF-8"):
        load(path, Whole)
    with pytest.raises(SettingsError, match=r"b\.toml: cannot be read"):
        load(tmp_path / "b.toml", Whole)
