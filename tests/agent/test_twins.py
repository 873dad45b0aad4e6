"""Dataclasses with slots are left with one class each, and behave as before."""

from __future__ import annotations

import gc
from dataclasses import FrozenInstanceError, dataclass, replace
from types import ModuleType

import pytest

from agent.process.twins import forget_twins

MODULE = ModuleType("twins_example")


@dataclass(frozen=True, slots=True)
class _Told:
    words: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class _ToldTwice(_Told):
    again: int = 0


def classes(name: str) -> int:
    gc.collect()
    return sum(isinstance(each, type) and each.__name__ == name for each in gc.get_objects())


def test_one_class_is_left_of_each() -> None:
    """Neither a class nor one that inherits from it is kept twice."""
    vars(MODULE).update(told=_Told, twice=_ToldTwice)
    forget_twins([MODULE])
    assert (classes("_Told"), classes("_ToldTwice")) == (1, 1)


@pytest.mark.parametrize("value", [_Told(1), _ToldTwice(1, again=2)])
def test_what_is_left_behaves_as_before(value: _Told) -> None:
    """It compares, hashes, shows and copies itself, and refuses assignments and deletions."""
    vars(MODULE).update(told=_Told, twice=_ToldTwice)
    forget_twins([MODULE])
    assert value == replace(value)
    assert hash(value) == hash(replace(value))
    assert repr(value).startswith(f"{type(value).__name__}(words=1")
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'words'"):
        value.words = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'why'"):
        del value.why
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'other'"):
        value.other = 2  # type: ignore[attr-defined]
