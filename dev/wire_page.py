"""The reference page of the wire, from its descriptors and its limits."""

from __future__ import annotations

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from escalation.wire import escalation_pb2 as pb
from escalation.wire.channel import CALL
from escalation.wire.limits import (
    BATCH_BYTES,
    BATCH_REPORTS,
    INTEGER_MAX,
    LIST_ENTRIES,
    PORT_MAX,
    REPORT_BYTES,
    TEXT_BYTES,
)

_HEAD = f"""# The wire

`proto/nanobot/v1/escalation.proto`, as it is spoken between a host's agent and its orchestrator. This page is
generated (`make generate`); the rules for changing the wire are in
[proto/README.md](../../proto/README.md), what is promised about delivery is in
[delivery](../explanation/delivery.md).

One call, `{CALL}`, over mutual TLS on port 9736: the agent streams
`ReportBatch`es, the orchestrator streams `Ack`s. An `Ack` says that everything of that boot id up to that
number is committed to disk. Nothing else flows to a host.

`nanobotctl pki` issues the certificates of both ends. An authority of your own issues

- to an agent: one URI and no other, `spiffe://TRUST_DOMAIN/nanobot/agent/HOST` with the orchestrator's
  `grpc.trust_domain` and the agent's id, for clients (extended key usage `clientAuth`), no authority itself;
- to the orchestrator: each DNS name and address that agents dial, for servers (`serverAuth`).

| limit | value |
|---|---|
| reports in a batch | {BATCH_REPORTS} |
| bytes of a batch | {BATCH_BYTES} |
| bytes of a report | {REPORT_BYTES} |
| 64-bit numbers | 0 to {INTEGER_MAX} |
| ports | 0 to {PORT_MAX} |
| floating point | finite |

A field outside its limit is refused with `INVALID_ARGUMENT`, and nothing of that batch is kept. A number of
an enum that the receiver does not know is kept as unknown; so is a kind of evidence or report.

| status | meaning | what the agent does |
|---|---|---|
| `UNAUTHENTICATED` | the certificate names no host | says so, pauses, tries again |
| `PERMISSION_DENIED` | a report names another host than the certificate | says so, pauses, tries again |
| `INVALID_ARGUMENT` | a report is outside the limits | finds it by halves, sets it aside, counts it |
| `RESOURCE_EXHAUSTED`, any other | not now | pauses, tries again |
"""


def page() -> str:
    """Return docs/reference/wire.md."""
    parts = [_HEAD, "\n## Messages\n"]
    parts += [_message(message) for message in pb.DESCRIPTOR.message_types_by_name.values()]
    parts += ["\n## Enums\n"]
    parts += [_enum(each) for each in pb.DESCRIPTOR.enum_types_by_name.values()]
    return "".join(parts)


def _message(message: Descriptor) -> str:
    rows = "".join(
        f"| {field.number} | `{field.name}` | {_type(field)} | {_limit(field)} |\n"
        for field in message.fields
    )
    return f"\n### {message.name}\n\n| number | field | type | limit |\n|---|---|---|---|\n{rows}"


def _type(field: FieldDescriptor) -> str:
    names = {
        number: name.removeprefix("TYPE_").lower()
        for name, number in vars(FieldDescriptor).items()
        if name.startswith("TYPE_")
    }
    kind = field.message_type or field.enum_type
    text = f"[{kind.name}](#{kind.name.lower()})" if kind is not None else names[field.type]
    if field.is_repeated:
        return f"list of {text}"
    choice = field.containing_oneof
    if choice is not None and choice.fields[0].name == choice.name.removeprefix("_"):
        return f"{text}, optional"
    return f"{text}, one of `{choice.name}`" if choice is not None else text


def _limit(field: FieldDescriptor) -> str:
    name = f"{field.containing_type.name}.{field.name}"
    limits = []
    if name in LIST_ENTRIES:
        limits.append(f"{LIST_ENTRIES[name]} entries")
    if name in TEXT_BYTES:
        limits.append(f"{TEXT_BYTES[name]} bytes")
    return ", ".join(limits)


def _enum(kind: EnumDescriptor) -> str:
    rows = "".join(f"| {value.number} | `{value.name}` |\n" for value in kind.values)
    return f"\n### {kind.name}\n\n| number | name |\n|---|---|\n{rows}"
