"""The view model: everything in it can be shown, and an action is shown exactly or not approvable."""

from __future__ import annotations

import shlex

import msgspec
import pytest
from hypothesis import given, strategies as st

from escalation.inert import harmless
from escalation.model import (
    AgentId,
    BlindReason,
    Capture,
    FaultClass,
    LogEvidence,
    Loss,
    LossKind,
    SensorCoverage,
    Subject,
    SubjectKind,
)
from escalation.server.desk import HostState
from escalation.testing import A_MOMENT_NS, an_entry
from escalation.view.entry import EntryView, entry_view, evidence_view, host_view, incident_view
from escalation.wording.moments import moment

CONTRACT = (
    "id incident_id host fault_class severity subject summary first_seen last_seen count state action risk "
    "verify approve_by evidence digest reasons will_not_fix execute_by decided_by decided_at decision_reason "
    "done_at finished_at cured_before"
)


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in value.values() for text in _strings(item)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in _strings(item)]
    return []


@pytest.mark.parametrize("fault_class", FaultClass)
def test_an_entry_has_every_key_of_the_contract(fault_class: FaultClass) -> None:
    """The JSON of an entry has the promised keys, for every fault class."""
    view = msgspec.to_builtins(entry_view(an_entry(fault_class)))
    assert view.keys() >= set(CONTRACT.split())
    assert view["action"].keys() >= {"kind", "target", "command", "host"}
    assert view["subject"].keys() == {"kind", "name"}


@pytest.mark.parametrize("fault_class", FaultClass)
def test_a_view_survives_its_json(fault_class: FaultClass) -> None:
    """What the API sends is read back as the same view."""
    view = entry_view(an_entry(fault_class))
    assert msgspec.json.decode(msgspec.json.encode(view), type=EntryView) == view


@given(st.text(), st.lists(st.text(), max_size=4), st.text())
def test_no_host_text_stays_active(name: str, command: list[str], summary: str) -> None:
    """Whatever a host calls things, every string of the view is inert."""
    entry = an_entry(subject=Subject(SubjectKind.PROCESS, name), command=tuple(command), summary=summary)
    for view in (entry_view(entry), incident_view(entry.incident)):
        assert all(map(harmless, _strings(msgspec.to_builtins(view))))


def test_a_command_is_shown_exactly() -> None:
    """Elements stand as they would be run, backslashes included, and the line reads back as the list."""
    command = ("systemctl", "restart", "dev-disk-by\\x2duuid.service", "two words", "it's")
    action = entry_view(an_entry(command=command)).action
    assert action.whole
    assert action.refusal is None
    assert action.command == command
    assert action.command_line is not None
    assert tuple(shlex.split(action.command_line)) == command


@pytest.mark.parametrize("element", ["x\u202ey", "a\nrm -rf /", "\x1b[2J", "z\u200b"])
def test_a_command_that_cannot_be_shown_cannot_be_approved(element: str) -> None:
    """An element with an invisible or active character makes the action refusable, with the reason."""
    action = entry_view(an_entry(command=("docker", "restart", element))).action
    assert not action.whole
    assert action.command_line is None
    assert action.refusal == "its command holds characters that cannot be shown as they are"


def test_a_long_command_is_never_cut() -> None:
    """An action has no length limit."""
    long = "x" * 50_000
    assert entry_view(an_entry(command=("echo", long))).action.command == ("echo", long)


def test_a_newer_fault_class_keeps_its_number() -> None:
    """A class that is not known here is told by its number on the wire."""
    assert entry_view(an_entry(FaultClass.UNKNOWN)).fault_class == "unknown:999"


@pytest.mark.parametrize(
    ("at_ns", "expected"),
    [
        (A_MOMENT_NS + 7_999_999, "2026-11-18T11:06:40.007Z"),
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, "0000-00-00T00:00:00Z"),
        (2**70, "0000-00-00T00:00:00Z"),
    ],
)
def test_times_are_rfc_3339_in_utc(at_ns: int, expected: str) -> None:
    """Nanoseconds become RFC 3339 with milliseconds; an impossible time does not break the view."""
    assert moment(at_ns) == expected


def test_a_silent_host_sees_nothing() -> None:
    """What a silent host said last about its sensors is not taken for sight."""
    host = HostState(
        agent_id=AgentId("spark-a"),
        last_heard_ns=A_MOMENT_NS,
        silent=True,
        agent_version="0.1.0",
        kernel_boot_id="b",
        open_cases=0,
        coverage=(
            SensorCoverage("kernel.oom_kill", None),
            SensorCoverage("kernel.listener", BlindReason.NO_HEADERS),
        ),
        losses=(Loss(LossKind.RING_FULL, "kernel.oom_kill", 17, exact=False),),
    )
    view = host_view(host)
    assert [coverage.seeing for coverage in view.coverage] == [False, False]
    assert view.coverage[0].words == "not known: the host is silent"
    assert "linux-headers" in view.coverage[1].words
    assert view.losses[0].words == ("at least 17 events: the kernel's ring buffer was full (kernel.oom_kill)")


def test_lists_in_evidence_read_as_their_entries() -> None:
    """Warnings and captures are one plain value each, so that a tool needs no second level."""
    (mesh,) = an_entry(FaultClass.MESH_DEGRADED).incident.evidence
    assert evidence_view(mesh)["warnings"] == "no-derp-connection, resolv-conf-overwritten"
    assert evidence_view(mesh)["kind"] == "mesh"
    line = LogEvidence(
        pattern="kernel.xid",
        count=1,
        window_s=60.0,
        process_name="kernel\x1b",
        captures=(Capture("number", 79.0), Capture("state", None, "dead")),
    )
    view = evidence_view(line)
    assert (view["captures"], view["process_name"]) == ("number 79, state dead", "kernel\\x1b")
