"""The product's own source, read as syntax: who imports what, and which calls are made where."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("agent", "escalation", "probes")


def modules(*packages: str) -> Iterator[tuple[str, ast.Module]]:
    """Yield each module's path below the root, and its syntax tree."""
    for package in packages or PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if not path.name.endswith(("_pb2.py", "_pb2_grpc.py")):
                yield path.relative_to(ROOT).as_posix(), tree(path)


@cache
def tree(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text())


def calls(node: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Yield every call below `node` with the dotted name of what is called."""
    for each in ast.walk(node):
        if isinstance(each, ast.Call):
            yield _dotted(each.func), each


def _dotted(node: ast.expr) -> str:
    """Return `a.b.c` for a name; what is called on another expression's value has a dot alone before it."""
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute():
            return f"{_dotted(node.value)}.{node.attr}"
        case _:
            return ""


def imported(node: ast.AST) -> Iterator[str]:
    """Yield the dotted name of everything that is imported below `node`."""
    for each in ast.walk(node):
        if isinstance(each, ast.Import):
            yield from (alias.name for alias in each.names)
        elif isinstance(each, ast.ImportFrom) and each.module:
            yield each.module
            yield from (f"{each.module}.{alias.name}" for alias in each.names)


def closure(start: str) -> set[str]:
    """Return every module of ours that importing `start` may import, and what they import from elsewhere.

    What is imported inside a function counts only when `start` itself does it: those imports are for commands
    that are run by name.
    """
    waiting, seen = [start], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        path = ROOT / f"{name.replace('.', '/')}.py"
        if not path.exists():
            path = ROOT / name.replace(".", "/") / "__init__.py"
        if path.exists():
            top = [each for each in ast.walk(tree(path)) if isinstance(each, ast.Import | ast.ImportFrom)]
            inside = {
                each
                for function in ast.walk(tree(path))
                if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
                for each in ast.walk(function)
            }
            for each in top:
                if each not in inside:
                    waiting += imported(each)
    return seen
