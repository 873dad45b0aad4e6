"""Lets go of the classes that dataclasses with slots leave behind.

Slots can only be given to a new class, so such a dataclass is made twice. The first stays for ever, because
the second refers to it: by the `__weakref__` that it took over, and from the methods that refuse assignments
to a frozen one (python/cpython#105936). The agent's own are 0.8 MB. A Python whose dataclasses let go by
themselves leaves nothing to do here.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterable, Iterator
from types import FunctionType, ModuleType


def forget_twins(modules: Iterable[ModuleType]) -> None:
    """Let the dataclasses of `modules` refer to themselves alone."""
    for kind in _dataclasses(modules):
        weak = vars(kind).get("__weakref__")
        if weak is not None and weak.__objclass__ is not kind:
            del kind.__weakref__  # type: ignore[attr-defined]  # put there by the dataclass
        for name in ("__setattr__", "__delattr__"):
            method = vars(kind).get(name)
            if isinstance(method, FunctionType):
                _point_at(kind, method)
    gc.collect()


def _dataclasses(modules: Iterable[ModuleType]) -> Iterator[type]:
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, type) and dataclasses.is_dataclass(value):
                yield value


def _point_at(kind: type, method: FunctionType) -> None:
    for name, cell in zip(method.__code__.co_freevars, method.__closure__ or (), strict=True):
        if name == "cls" and cell.cell_contents is not kind and cell.cell_contents.__name__ == kind.__name__:
            cell.cell_contents = kind
