"""Hypothesis strategies for everything the wire carries (needs the dev extra); for tests of both sides.

They are derived from the model's own types and the limits, so a new field is covered without a line here:
a field's strategy comes from its type, and a string's length from `TEXT_BYTES`.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from typing import Any

from hypothesis import strategies as st

from escalation.model import (
    AgentId,
    Body,
    BootId,
    CaseReport,
    Evidence,
    FaultClass,
    Heartbeat,
    HostChange,
    Loss,
    Report,
    UnknownEvidence,
)
from escalation.wire.limits import INTEGER_MAX, LIST_ENTRIES, PORT_MAX, PRINTS, TEXT_BYTES, WORDS

_U32 = st.integers(0, 2**32 - 1)
_S32 = st.integers(-(2**31), 2**31 - 1)
_U64 = st.integers(0, INTEGER_MAX)
_PORTS = st.integers(0, PORT_MAX)
_NARROW: dict[str, st.SearchStrategy[int]] = {
    "DeviceOpenEvidence.minor": _U32,
    "DeviceOpenEvidence.errno": _U32,
    "SignalEvidence.signal": _U32,
    "SignalEvidence.code": _S32,
    "SensorCoverage.error": _U32,
    "Heartbeat.open_cases": _U32,
    "GpuEvidence.nvml_code": _U32,
    "PeerEvidence.errno": _U32,
    "UnitEvidence.exit_status": _U32,
    "XidEvidence.number": _U32,
    "XidEvidence.sources": _U32,
}
_WIDER_THAN_ITS_FIELD = "".join(chr(c) for c in (0, 0x1B, 0x202E, 0x200B, 0xDC80, 0x1F600)) * 600

agent_ids = st.from_regex(r"\A[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?\Z").map(AgentId)
boot_ids = st.uuids().map(lambda value: BootId(str(value)))


def texts(field: str) -> st.SearchStrategy[str]:
    """Return text that fits `field`, hostile characters included, NUL and lone surrogates not."""
    limit = TEXT_BYTES[field]
    if field in WORDS:
        return st.from_regex(rf"\A(?:[a-z0-9][a-z0-9._-]{{0,{limit - 1}}})?\Z")
    if field in PRINTS:
        return st.text("0123456789abcdef", max_size=limit)
    alphabet = st.characters(exclude_characters="\0", categories=None, exclude_categories=["Cs"])
    return st.text(alphabet, max_size=limit).map(lambda value: value.encode()[:limit].decode(errors="ignore"))


def values(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Return instances of the dataclass `kind` that its message can carry unchanged."""
    hints = typing.get_type_hints(kind)
    fields = {
        field.name: _of(hints[field.name], f"{kind.__name__}.{field.name}")
        for field in dataclasses.fields(kind)
    }
    built = st.builds(kind, **fields)
    return built.map(_canonical) if kind is CaseReport else built


def bodies() -> st.SearchStrategy[Body]:
    """Return any body that an agent can send."""
    return st.one_of(values(CaseReport), values(Heartbeat), values(Loss), values(HostChange))


def reports() -> st.SearchStrategy[Report]:
    """Return any report that its message can carry unchanged."""
    return st.builds(
        Report,
        agent_id=agent_ids,
        boot_id=boot_ids,
        sequence=st.integers(1, INTEGER_MAX),
        created_ns=_U64,
        body=bodies(),
    )


def outsized_reports() -> st.SearchStrategy[Report]:
    """Return reports with fields that no message can hold as they are."""
    texts_ = st.sampled_from(("", "a\0b", "\udc80\udcff", _WIDER_THAN_ITS_FIELD))
    numbers = st.sampled_from((-1, -(2**70), 2**63, 2**64, 2**70))
    floats = st.sampled_from((float("nan"), float("inf"), float("-inf"), -1.0))

    def spoil(value: Any, draw: st.DrawFn) -> Any:
        match value:
            case enum.StrEnum() | bool() | None:
                return value
            case str():
                return draw(texts_)
            case int():
                return draw(numbers)
            case float():
                return draw(floats)
            case tuple():
                return tuple(spoil(each, draw) for each in value) * 300
            case _:
                return dataclasses.replace(
                    value, **{f.name: spoil(getattr(value, f.name), draw) for f in dataclasses.fields(value)}
                )

    @st.composite
    def spoiled(draw: st.DrawFn) -> Report:
        report = draw(reports())
        return dataclasses.replace(
            report, created_ns=draw(numbers), sequence=draw(numbers), body=spoil(report.body, draw)
        )

    return spoiled()


def _of(hint: Any, field: str) -> st.SearchStrategy[Any]:
    origin = typing.get_origin(hint)
    if hint == Evidence:
        kinds = (kind for kind in typing.get_args(hint) if kind is not UnknownEvidence)
        return st.one_of(*(values(kind) for kind in kinds))
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(_of(each, field) for each in typing.get_args(hint)))
    if origin is tuple:
        longest = min(LIST_ENTRIES[field], 4)
        return st.lists(_of(typing.get_args(hint)[0], field), max_size=longest).map(tuple)
    if dataclasses.is_dataclass(hint):
        return values(typing.cast("type[Any]", hint))
    return _plain(hint, field)


def _plain(hint: Any, field: str) -> st.SearchStrategy[Any]:
    match getattr(hint, "__supertype__", hint):
        case types.NoneType:
            return st.none()
        case kind if issubclass(kind, enum.Enum):
            return st.sampled_from(kind)
        case kind if kind is str:
            return texts(field)
        case kind if kind is bool:
            return st.booleans()
        case kind if kind is int:
            return _PORTS if field.endswith(".port") else _NARROW.get(field, _U64)
        case kind if kind is float:
            return st.floats(allow_nan=False, allow_infinity=False)
        case kind:
            raise TypeError(f"no strategy for {field}: {kind}")


def _canonical(case: CaseReport) -> CaseReport:
    """Keep `fault_number` only where it means something: an unknown class and a number unknown to us."""
    if case.fault_class is not FaultClass.UNKNOWN or case.fault_number is None:
        return dataclasses.replace(case, fault_number=None)
    return dataclasses.replace(case, fault_number=1_000_000 + case.fault_number % 2**30)
