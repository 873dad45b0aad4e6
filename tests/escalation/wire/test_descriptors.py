"""The wire's own rules, held by its descriptors: no free text, nothing but acknowledgements to a host,
and no number that ever changes its meaning.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

from escalation.model import EVIDENCE_KINDS, Body, HostChange
from escalation.wire import escalation_pb2 as pb
from escalation.wire.codec import decode, encode, join, split
from escalation.wire.limits import LIST_ENTRIES, PRINTS, TEXT_BYTES, WORDS

GOLDEN = Path(__file__).parents[2] / "golden" / "descriptors"
RECORDED = sorted(GOLDEN.glob("v1-*.binpb"))
FILE = pb.DESCRIPTOR


def _fields(messages: Iterator[Descriptor]) -> Iterator[FieldDescriptor]:
    for message in messages:
        yield from message.fields
        yield from _fields(iter(message.nested_types))


def _all_fields() -> list[FieldDescriptor]:
    return list(_fields(iter(FILE.message_types_by_name.values())))


def _short(field: FieldDescriptor) -> str:
    return field.full_name.removeprefix(f"{FILE.package}.")


def test_every_text_field_is_on_the_allow_list_with_its_limit() -> None:
    """A string or bytes field that nobody decided on, or a limit for a field that is gone, fails."""
    kinds = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
    assert {_short(field) for field in _all_fields() if field.type in kinds} == set(TEXT_BYTES)


def test_every_list_has_a_limit() -> None:
    """A repeated field without a limit on its entries fails."""
    assert {_short(field) for field in _all_fields() if field.is_repeated} == set(LIST_ENTRIES)


def test_no_field_can_hold_anything_at_all() -> None:
    """No map, Any, Struct or extension opens a way around the allow-list."""
    assert not FILE.dependencies
    assert not FILE.extensions_by_name
    for field in _all_fields():
        assert field.message_type is None or field.message_type.file is FILE
        assert field.message_type is None or not field.message_type.GetOptions().map_entry
    assert all(not message.is_extendable for message in FILE.message_types_by_name.values())


def test_nothing_that_flows_to_a_host_holds_more_than_a_boot_id_and_a_number() -> None:
    """Whatever a host can receive, by any call, is an acknowledgement: no command, script or setting."""
    services = FILE.services_by_name.values()
    calls = [call for service in services for call in service.methods]
    assert [call.full_name for call in calls] == ["nanobot.v1.EscalationService.Escalate"]
    reachable = {call.output_type for call in calls}
    while more := {
        field.message_type
        for message in reachable
        for field in message.fields
        if field.message_type is not None and field.message_type not in reachable
    }:
        reachable |= more
    assert {
        (_short(field), field.type, field.is_repeated) for message in reachable for field in message.fields
    } == {
        ("Ack.boot_id", FieldDescriptor.TYPE_STRING, False),
        ("Ack.sequence", FieldDescriptor.TYPE_UINT64, False),
    }
    assert TEXT_BYTES["Ack.boot_id"] == 36


def _recorded(path: Path) -> FileDescriptorProto:
    (file,) = FileDescriptorSet.FromString(path.read_bytes()).file
    return file


def _now() -> FileDescriptorProto:
    file = FileDescriptorProto()
    FILE.CopyToProto(file)
    return file


def _message_breaks(old: DescriptorProto, new: DescriptorProto) -> Iterator[str]:
    fields = {field.number: field for field in new.field}
    reserved = {number for span in new.reserved_range for number in range(span.start, span.end)}
    for was in old.field:
        where = f"{old.name}.{was.name} = {was.number}"
        now = fields.get(was.number)
        if now is None:
            if was.number not in reserved or was.name not in new.reserved_name:
                yield f"{where}: removed without reserving its number and name"
        elif _shape(old, was) != _shape(new, now):
            yield f"{where}: was {_shape(old, was)}, is {_shape(new, now)}"


def _shape(message: DescriptorProto, field: FieldDescriptorProto) -> tuple[object, ...]:
    choice = None
    if field.HasField("oneof_index"):
        choice = message.oneof_decl[field.oneof_index].name
    return (field.name, field.type, field.type_name, field.label, field.proto3_optional, choice)


def _enum_breaks(old: EnumDescriptorProto, new: EnumDescriptorProto) -> Iterator[str]:
    names = {value.number: value.name for value in new.value}
    reserved = {number for span in new.reserved_range for number in range(span.start, span.end + 1)}
    for was in old.value:
        now = names.get(was.number)
        if now is None and not (was.number in reserved and was.name in new.reserved_name):
            yield f"{old.name}.{was.name} = {was.number}: removed without reserving its number and name"
        if now is not None and now != was.name:
            yield f"{old.name}.{was.name} = {was.number}: is {now} now"


def breaks(old: FileDescriptorProto, new: FileDescriptorProto) -> list[str]:
    """Return what in `new` an old peer would misunderstand, in words."""
    found = []
    messages = {message.name: message for message in new.message_type}
    for message in old.message_type:
        if message.name in messages:
            found += _message_breaks(message, messages[message.name])
        else:
            found.append(f"{message.name}: message removed")
    enums = {each.name: each for each in new.enum_type}
    for each in old.enum_type:
        if each.name in enums:
            found += _enum_breaks(each, enums[each.name])
        else:
            found.append(f"{each.name}: enum removed")
    if old.package != new.package:
        found.append(f"package: was {old.package}, is {new.package}")
    calls = {service.name: {call.name: call for call in service.method} for service in new.service}
    for service in old.service:
        for call in service.method:
            if calls.get(service.name, {}).get(call.name) != call:
                found.append(f"{service.name}.{call.name}: removed or changed")
    return found


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_no_number_changed_since_it_was_recorded(path: Path) -> None:
    """No field or enum number of a released wire changed its name, type or place; removals are reserved."""
    assert breaks(_recorded(path), _now()) == []


def test_the_newest_recording_is_the_wire_as_it_is() -> None:
    """A change of the wire is recorded in the same commit, so that the next change is held against it."""
    assert _recorded(RECORDED[-1]) == _now(), "record it: python -m dev.record_wire"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda f: _field(f, "Ack", 2).MergeFrom(FieldDescriptorProto(type=9)), "Ack.sequence = 2: was"),
        (
            lambda f: _field(f, "Ack", 2).MergeFrom(FieldDescriptorProto(number=3)),
            "Ack.sequence = 2: removed",
        ),
        (lambda f: _field(f, "Ack", 2).MergeFrom(FieldDescriptorProto(name="n")), "Ack.sequence = 2: was"),
        (lambda f: _field(f, "Ack", 2).MergeFrom(FieldDescriptorProto(label=3)), "Ack.sequence = 2: was"),
        (lambda f: f.message_type.pop(), "Report: message removed"),
        (lambda f: _enum(f, "Severity").value.pop(), "Severity.SEVERITY_CRITICAL = 4: removed"),
        (
            lambda f: setattr(_enum(f, "Severity").value[1], "name", "SEVERITY_X"),
            "Severity.SEVERITY_NOTE = 1: is SEVERITY_X now",
        ),
        (lambda f: f.service[0].method.pop(), "EscalationService.Escalate: removed or changed"),
        (lambda f: setattr(f, "package", "nanobot.v2"), "package: was nanobot.v1, is nanobot.v2"),
    ],
)
def test_a_breaking_change_is_found(change: object, expected: str) -> None:
    """The comparison itself finds each kind of break."""
    new = _now()
    assert callable(change)
    change(new)
    (found,) = breaks(_now(), new)
    assert found.startswith(expected)


def test_a_reserved_removal_and_an_addition_are_no_break() -> None:
    """A field may go when its number and name are reserved, and a new number may come."""
    new = _now()
    ack = next(message for message in new.message_type if message.name == "Ack")
    del ack.field[1]
    ack.reserved_range.add(start=2, end=3)
    ack.reserved_name.append("sequence")
    ack.field.add(name="more", number=4, type=FieldDescriptorProto.TYPE_UINT64)
    assert breaks(_now(), new) == []


def _field(file: FileDescriptorProto, message: str, number: int) -> FieldDescriptorProto:
    found = next(each for each in file.message_type if each.name == message)
    return next(field for field in found.field if field.number == number)


def _enum(file: FileDescriptorProto, name: str) -> EnumDescriptorProto:
    return next(each for each in file.enum_type if each.name == name)


def test_evidence_is_stored_and_shown_under_its_name_on_the_wire() -> None:
    """A class that is renamed would leave stored incidents unreadable: the wire's names never change."""
    kinds = FILE.message_types_by_name["Evidence"].oneofs_by_name["kind"].fields
    assert {field.name for field in kinds} == set(EVIDENCE_KINDS) - {"unknown"}
    assert {field.message_type.name: field.name for field in kinds} == {
        kind.__name__: name for name, kind in EVIDENCE_KINDS.items() if name != "unknown"
    }


def test_words_and_prints_are_texts_with_a_limit() -> None:
    """What has an alphabet of its own is on the allow-list as well."""
    assert set(TEXT_BYTES) > WORDS | PRINTS
    assert not WORDS & PRINTS


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("v1-*.batch")), ids=lambda path: path.stem)
def test_recorded_bytes_are_still_read(path: Path) -> None:
    """Every recorded batch is read, with every kind of body of its time, and written as the same bytes."""
    reports = [decode(payload) for payload in split(path.read_bytes())]
    assert [report.sequence for report in reports] == list(range(1, len(reports) + 1))
    kinds = {type(report.body) for report in reports}
    assert kinds == set(get_args(Body)) - (set() if path.stem >= "v1-0013" else {HostChange})
    assert join(encode(report) for report in reports) == path.read_bytes()
