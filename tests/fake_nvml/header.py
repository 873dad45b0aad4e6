"""Writes the C header of the fake library from pynvml's own structures and constants.

The fields, their order and the constants are pynvml's; the compiler then checks that it lays the structures
out as ctypes does, size and offset of every field. Nobody keeps two lists in step.
"""

from __future__ import annotations

import ctypes
from typing import Any

import pynvml

STRUCTURES = {
    "nvmlPciInfo_t": pynvml.nvmlPciInfo_t,
    "nvmlUtilization_t": pynvml.c_nvmlUtilization_t,
    "nvmlMemory_t": pynvml.c_nvmlMemory_t,
    "nvmlProcessInfo_t": pynvml.c_nvmlProcessInfo_v3_t,
    "nvmlEventData_t": pynvml.c_nvmlEventData_t,
    "nvmlFieldValue_t": pynvml.c_nvmlFieldValue_t,
}
"""The C name of every structure that crosses the border, and pynvml's definition of it."""

_CONSTANTS = (
    "NVML_CLOCK_SM",
    "NVML_VOLATILE_ECC",
    "NVML_MEMORY_ERROR_TYPE_UNCORRECTED",
    "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION",
    "NVML_VALUE_TYPE_UNSIGNED_INT",
)
_SCALARS = {
    "i": "int",
    "I": "unsigned int",
    "l": "long long",  # what ctypes calls a long long where both have eight bytes
    "L": "unsigned long long",
    "q": "long long",
    "Q": "unsigned long long",
    "d": "double",
    "H": "unsigned short",
    "c": "char",
}


def header() -> str:
    """Return the text of nvml.h."""
    lines = ["/* Written from pynvml when the fake library is built. */", "#include <stddef.h>"]
    errors = sorted(name for name in vars(pynvml) if name.startswith("NVML_ERROR_"))
    lines += [f"#define {name} {getattr(pynvml, name)}" for name in (*errors, *_CONSTANTS)]
    for name, kind in STRUCTURES.items():
        lines += _structure(name, kind)
    return "\n".join(lines) + "\n"


def _structure(name: str, kind: Any) -> list[str]:
    lines = [f"typedef {_body(kind)} {name};"]
    lines.append(f'_Static_assert(sizeof({name}) == {ctypes.sizeof(kind)}, "size of {name}");')
    for field, *_ in kind._fields_:
        offset = getattr(kind, field).offset
        lines.append(f'_Static_assert(offsetof({name}, {field}) == {offset}, "{name}.{field}");')
    return lines


def _body(kind: Any) -> str:
    word = "union" if issubclass(kind, ctypes.Union) else "struct"
    return f"{word} {{ {' '.join(_declared(field, type_) for field, type_ in kind._fields_)} }}"


def _declared(field: str, kind: Any) -> str:
    if issubclass(kind, ctypes.Array):
        return f"{_SCALARS[kind._type_._type_]} {field}[{kind._length_}];"
    if issubclass(kind, ctypes.Structure | ctypes.Union):
        return f"{_body(kind)} {field};"
    if issubclass(kind, ctypes._Pointer):
        return f"void *{field};"
    return f"{_SCALARS[kind._type_]} {field};"
