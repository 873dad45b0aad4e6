"""Hostile storage: whatever mount points, disks and sizes a host tells, every report can be sent."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from agent.case_notes import decode as decode_note
from agent.cases import CaseBook
from agent.detector import Tick
from agent.detectors.registry import DETECTORS
from agent.judge import Judge, hysteresis_of
from agent.testing import HOST, KERNEL_BOOT, SURROUNDINGS, at, death, seeing
from escalation.model import BootId, Report
from escalation.wire.codec import decode, encode
from probes.observation import Filesystem, Observation, Sight, StorageErrors, StorageFailure, StorageRole
from tests.agent.detectors.filesystems import activity, look, readiness
from tests.agent.test_hostile import ORIGINS

NAMES = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["\udcff\udc80", "\x00\x1b[2J", "/" + "a" * 5000, "é" * 700, "\u202ereversed", ""]),
)
SIZES = st.none() | st.integers(min_value=0, max_value=2**63 - 1)
FILESYSTEMS = st.builds(
    Filesystem,
    mount=NAMES,
    role=st.sampled_from(StorageRole),
    filesystem=NAMES,
    device=st.sampled_from(["8:1", "", "0:40"]),
    disk=st.sampled_from(["sda", "", "x" * 300]),
    mounted=st.booleans(),
    read_only=st.booleans(),
    forced=st.booleans(),
    device_gone=st.none() | st.booleans(),
    error_count=st.none() | st.integers(0, 2**31),
    sight=st.sampled_from(Sight),
    total_bytes=SIZES,
    free_bytes=SIZES,
    total_inodes=SIZES,
    free_inodes=SIZES,
)
MOMENTS = st.integers(0, 5000)
OBSERVATIONS: st.SearchStrategy[Observation] = st.one_of(
    st.builds(lambda seconds, each: look(seconds, *each), MOMENTS, st.lists(FILESYSTEMS, max_size=3)),
    st.builds(
        StorageErrors,
        sensor=st.just(look(0).sensor),
        at=MOMENTS.map(at),
        failure=st.sampled_from(StorageFailure),
        device=st.sampled_from(["sda", "8:1", "", "x" * 300]),
        origin=ORIGINS,
        errno=st.sampled_from([0, 5, 28, 122]),
        count=st.integers(1, 2**32),
    ),
    st.builds(
        lambda seconds, where, listens, size: readiness(
            seconds, where=where, listens=listens, shared_memory_bytes=size
        ),
        MOMENTS,
        ORIGINS,
        st.none() | st.booleans(),
        SIZES,
    ),
    st.builds(lambda seconds, mean: activity(seconds, read_mean_s=mean), MOMENTS, st.floats(1e-9, 1e6)),
    st.builds(lambda where: death(1, 7, code=2, where=where), ORIGINS),
)


@settings(max_examples=150)
@given(st.lists(OBSERVATIONS, max_size=12))
def test_every_report_can_be_sent_and_every_note_kept(story: list[Observation]) -> None:
    """Nothing raises; what is reported comes back from the wire as it was, and so do the notes."""
    detectors = [kind.build(kind.SETTINGS(), SURROUNDINGS) for kind in DETECTORS]
    book = CaseBook(agent_id=HOST, kernel_boot_id=KERNEL_BOOT, hysteresis=hysteresis_of(detectors))
    failed: list[str] = []
    judge = Judge(
        detectors=detectors, book=book, failed=lambda name, error: failed.append(f"{name}: {error!r}")
    )
    sensors = ("host.storage", "kernel.storage_error", "host.readiness", "kernel.fatal_signal")
    judge.observe([seeing(0, sensor) for sensor in sensors], at(0))
    for number, observation in enumerate(story):
        changes = judge.observe([observation], at(5000 + number))
        for sequence, body in enumerate(changes.bodies, start=1):
            boot = BootId("0d3f3f1e-0000-4000-8000-00000000000b")
            report = Report(
                agent_id=HOST, boot_id=boot, sequence=sequence, created_ns=at(1).unix_ns, body=body
            )
            assert decode(encode(report)) == report
        for note in changes.notes.values():
            assert note is None or decode_note(note) is not None
    for detector in detectors:
        detector.tick(Tick(now=at(9000)))
    assert failed == []
