"""Evidence of what a host waits for, keeps, reaches and runs: unknown is said to be, and zero is not."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from escalation.host_examples import HOST_EXAMPLES
from escalation.inert import harmless
from escalation.model import (
    BlockEvidence,
    Capture,
    Change,
    ControlPlane,
    ControlPlaneEvidence,
    DescriptorCall,
    DescriptorEvidence,
    DriftEvidence,
    FaultClass,
    Gauge,
    LinkCounter,
    LinkEvidence,
    ListenerEvidence,
    LogEvidence,
    MeshEvidence,
    MeshState,
    MeshWarning,
    MetricEvidence,
    MountRole,
    PeerEvidence,
    PressureEvidence,
    ProcessEvidence,
    ProcessState,
    Reach,
    Reason,
    ReasonCode,
    Resource,
    RunDelayEvidence,
    ScopeBreach,
    ScopeEvidence,
    SessionsEvidence,
    StorageEvidence,
    ThrottleEvidence,
    UnitEvidence,
    UnitResult,
)
from escalation.wire.fields import fit_word
from escalation.wording.evidence import fact
from escalation.wording.network import counter_words, mesh_words, plane_name, warning_words
from escalation.wording.pressure import call_words, resource_name, state_words
from escalation.wording.reason import sentence
from escalation.wording.service import change_words, gauge_words, result_words
from escalation.wording.storage import role_words
from probes.logs.patterns import PATTERNS

HOSTILE = "\x1b[2J\u202ex"


def example(kind: type[Any]) -> Any:
    """Return evidence of this kind as the examples have it."""
    found = (piece for each in HOST_EXAMPLES.values() for piece in each.evidence)
    return next(piece for piece in found if isinstance(piece, kind))


@pytest.mark.parametrize(
    ("word", "choices"),
    [
        (resource_name, Resource),
        (state_words, ProcessState),
        (call_words, DescriptorCall),
        (role_words, MountRole),
        (counter_words, LinkCounter),
        (mesh_words, MeshState),
        (warning_words, MeshWarning),
        (plane_name, ControlPlane),
        (result_words, UnitResult),
        (change_words, Change),
        (gauge_words, Gauge),
    ],
)
def test_every_choice_has_its_own_words(word: Callable[[Any], str], choices: type[enum.StrEnum]) -> None:
    """No two choices read the same, and none is empty."""
    words = [word(choice) for choice in choices]
    assert all(words)
    assert len(set(words)) == len(words)


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (
            replace(example(PressureEvidence), some_percent=None, full_percent=None, major_faults=0),
            (
                "how long tasks wait for memory is not told by the kernel, 48211 pages swapped, "
                "processes searched for memory themselves 917 times, within 30 s"
            ),
        ),
        (
            PressureEvidence(resource=Resource.IO, window_s=60.0, some_percent=0.0, full_percent=None),
            "waiting for disks: some tasks 0 % of the time, within 1 min",
        ),
        (
            replace(example(ThrottleEvidence), quota_cores=None),
            "its quota stopped it in 2701 of 3000 periods, for 3 min 8 s in all, within 5 min",
        ),
        (
            replace(example(RunDelayEvidence), p99_s=None, neighbour=""),
            "its threads waited for a CPU for 1 min 1 s in 90312 waits, within 2 min",
        ),
        (
            ProcessEvidence(
                process_name="", pid=None, state=ProcessState.UNKNOWN, lasted_s=5.0, used_cpu_s=None
            ),
            "a process without a name has been in an unknown state for 5 s",
        ),
        (
            replace(example(ProcessEvidence), port=80, backlog=1, used_cpu_s=0.0),
            (
                "VLLM::EngineCore (pid 4711) has been stuck in the kernel (D) for 3 min 4 s, "
                "used no CPU meanwhile, 1 connection waits at port 80"
            ),
        ),
        (
            replace(example(DescriptorEvidence), host_wide=True, limit=None, failures=1),
            (
                "litellm (pid 812) was refused to accept a connection once, because the whole host has no "
                "file descriptor left"
            ),
        ),
        (
            replace(example(StorageEvidence), mounted=False),
            "/var/lib/docker (ext4), for containers and images: not mounted",
        ),
        (
            replace(
                example(StorageEvidence),
                free_bytes=None,
                free_inodes=None,
                refused_writes=0,
                read_only=True,
                full_in_s=7200.0,
            ),
            (
                "/var/lib/docker (ext4), for containers and images: read-only, its free space is unknown, "
                "full in 2 h at this rate"
            ),
        ),
        (
            replace(example(StorageEvidence), total_inodes=0, free_inodes=0, refused_writes=0, free_bytes=0),
            "/var/lib/docker (ext4), for containers and images: 0 bytes of 1000.0 GiB free",
        ),
        (
            replace(example(BlockEvidence), errors=0, filesystem_errors=0, device=""),
            "a disk without a name: 812 reads, 64 writes, within 1 min",
        ),
        (
            replace(example(PeerEvidence), segments=0, retransmitted=0, address="fd00::1", port=443),
            "[fd00::1]:443: nothing was sent, within 1 min",
        ),
        (
            replace(
                example(PeerEvidence), segments=0, retransmitted=0, attempts=9, failed=3, errno=110, resets=2
            ),
            (
                "100.64.0.7: 3 of 9 attempts to connect failed, mostly ETIMEDOUT, 2 connections reset, "
                "within 1 min"
            ),
        ),
        (
            replace(example(LinkEvidence), up=None, port=0, device="eth0", rise=1),
            "eth0: acknowledgements that timed out rose by 1 within 1 min; its state is unknown",
        ),
        (
            MeshEvidence(
                state=MeshState.NO_DAEMON,
                online=None,
                key_expires_in_s=-3.0,
                warnings=(),
                peers_active=0,
                peers_relayed=0,
            ),
            "the mesh's daemon does not run, its key has expired",
        ),
        (
            replace(example(ControlPlaneEvidence), published=False, outside_peers=0, outside_peer=""),
            (
                "Ray's dashboard and job server listens on 0.0.0.0:8265; "
                "nobody from outside the mesh is connected"
            ),
        ),
        (
            ListenerEvidence("::", 1000, Reach.PUBLIC, "flood", confirmed=True, further=4967),
            ("flood listens on [::]:1000, a public address; the socket table agrees; and 4967 further ports"),
        ),
        (
            replace(example(UnitEvidence), exit_status=None, longest_s=None, starts=1),
            "started once within 10 min, last ended: with an error, lived 3 s",
        ),
        (
            DriftEvidence(
                server=example(DriftEvidence).server,
                changes=(),
                print_before="",
                print_now="00ff",
                context_before=None,
                context_now=4096,
                ran_s=60.0,
            ),
            (
                "vLLM came back with another command line: an unknown part, context not set before, 4096 "
                "tokens now, print unknown before, 00ff now, it had run as recorded for 1 min"
            ),
        ),
        (
            LogEvidence(pattern="", count=1, window_s=60.0, process_name=""),
            "log line without a name, once within 1 min",
        ),
        (
            replace(example(LogEvidence), captures=(Capture("xid", 79.0), Capture("state", None, "dead"))),
            (
                "log line nccl.ib_error by VLLM::Worker_TP1, 2 times within 5 min; the last one: "
                "xid 79, state dead"
            ),
        ),
        (
            replace(example(MetricEvidence), rise=0.0, port=0),
            "Ray tells of itself: nodes alive 1, which has not moved within 1 min",
        ),
        (
            replace(example(SessionsEvidence), limit=None, refused=0),
            "the database on port 5432: 100 connections taken, within 1 min",
        ),
        (
            replace(example(ScopeEvidence), breach=ScopeBreach.EXECUTABLE, executable="curl", denied=True),
            "python3 (pid 902) ran curl, 3 times, outside of scope agents; the kernel refused it",
        ),
    ],
)
def test_a_fact_says_what_is_known_and_no_more(evidence: Any, words: str) -> None:
    """What is unknown is left out or said to be; nothing unknown reads as zero."""
    assert fact(evidence) == words


@pytest.mark.parametrize("fault", sorted(HOST_EXAMPLES))
def test_hostile_names_are_inert_in_every_fact(fault: FaultClass) -> None:
    """Mounts, disks, peers, neighbours, executables and scopes are shown escaped."""
    for evidence in HOST_EXAMPLES[fault].evidence:
        texts = {
            name: HOSTILE
            for name in getattr(evidence, "__dataclass_fields__", ())
            if type(getattr(evidence, name)) is str
        }
        assert harmless(fact(replace(evidence, **texts)))


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (
            Reason(ReasonCode.SPACE_FALLS, threshold=86_400, window_s=7200),
            "It will be full soon at the present rate (in 2 h, threshold 1 d).",
        ),
        (
            Reason(ReasonCode.SEGMENTS_RETRANSMITTED, 1822, 1.5, 60),
            "TCP segments had to be sent again (1822 segments, within 1 min, threshold 1.5 %).",
        ),
        (
            Reason(ReasonCode.NEIGHBOUR_GROWS, threshold=4),
            "A neighbour uses much more CPU than before (threshold 4 cores).",
        ),
        (
            Reason(ReasonCode.SESSIONS_NEAR_LIMIT, 1, 95),
            "Nearly all connections that the database allows are taken (1 connection, threshold 95 %).",
        ),
        (Reason(ReasonCode.MOUNT_MISSING), "What belongs there is not mounted."),
        (
            Reason(ReasonCode.MESH_OFFLINE, 1, 120, 300),
            "The mesh's control server does not see this host (for 5 min, threshold 2 min).",
        ),
        (
            Reason(ReasonCode.QUOTA_THROTTLES, 30, 0.25, 60),
            "The quota stopped it before the period was over (30 periods, within 1 min, threshold 25 %).",
        ),
        (
            Reason(ReasonCode.READS_SLOW, 5, 0.008),
            "Reads take far longer than is usual on this disk (5 reads, usually 8 ms).",
        ),
        (
            Reason(ReasonCode.CONTEXT_CHANGED, 1, window_s=1200),
            "Its context has another length than recorded (after 20 min).",
        ),
        (Reason(ReasonCode.START_LIMIT_HIT, 1), "The service manager gave up starting it."),
        (Reason(ReasonCode.START_LIMIT_HIT, 2), "The service manager gave up starting it (2 times)."),
        (
            Reason(ReasonCode.LIVES_ARE_SHORT, 3, 60, 600),
            "It ended shortly after each start (3 starts, within 10 min, threshold 1 min).",
        ),
    ],
)
def test_the_numbers_of_a_reason_have_their_unit(reason: Reason, words: str) -> None:
    """What was counted, and in what the threshold is measured, goes by the code."""
    assert sentence(reason) == words


def test_the_examples_speak_of_patterns_that_there_are() -> None:
    """An id in a golden file is one that a host can send; and every id of the table is a word of the wire."""
    known = {pattern.id for pattern in PATTERNS}
    pieces = [piece for each in HOST_EXAMPLES.values() for piece in each.evidence]
    assert {piece.pattern for piece in pieces if isinstance(piece, LogEvidence)} <= known
    assert {fit_word("LogEvidence.pattern", each) for each in known} == known
