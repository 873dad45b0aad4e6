"""Hostile input: whatever a host calls its processes, units and cgroups, every report can be sent."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from agent.case_notes import decode as decode_note
from agent.cases import CaseBook
from agent.detectors.registry import DETECTORS
from agent.judge import Judge, hysteresis_of
from agent.testing import HOST, KERNEL_BOOT, SURROUNDINGS, at, death, inventory, oom_kill, opens
from escalation.model import BootId, CasePhase, Report
from escalation.wire.codec import decode, encode
from probes.observation import (
    CgroupId,
    Listener,
    ListenerOpened,
    NvidiaDevice,
    Observation,
    OomScope,
    Origin,
    SensorName,
    ServerKind,
)

TEXT = st.one_of(
    st.none(),
    st.text(alphabet=st.characters(), max_size=40),
    st.sampled_from(["\udcff\udc80", "\x00\x1b[2J", "a" * 5000, "é" * 700, "\u202ereversed", "/../..", ""]),
)
NUMBER = st.one_of(st.none(), st.integers(min_value=0, max_value=2**22))
ORIGINS = st.builds(
    Origin,
    cgroup_id=st.one_of(st.none(), st.integers(min_value=1, max_value=2**63).map(CgroupId)),
    cgroup_path=TEXT,
    unit=TEXT,
    container_id=TEXT,
    pid=NUMBER,
    start_ticks=NUMBER,
    process_name=TEXT,
    server=st.sampled_from(ServerKind),
)
OBSERVATIONS: st.SearchStrategy[Observation] = st.one_of(
    st.builds(lambda where, signal: death(1, signal, where=where), ORIGINS, st.integers(0, 64)),
    st.builds(
        lambda where, scope, kills: oom_kill(1, scope=scope, kills=kills, where=where),
        ORIGINS,
        st.sampled_from(OomScope),
        NUMBER,
    ),
    st.builds(
        lambda where, errno, device, prior, minor: opens(
            1, errno, device=device, prior=prior, minor=minor, where=where
        ),
        ORIGINS,
        st.integers(0, 133),
        st.sampled_from(NvidiaDevice),
        st.integers(0, 3),
        NUMBER,
    ),
    st.builds(
        lambda where, address, port, confirmed: ListenerOpened(
            SensorName("kernel.listener"), at(1), Listener(address, port, where), confirmed
        ),
        ORIGINS,
        st.one_of(
            st.ip_addresses().map(str), st.sampled_from(["0.0.0.0", "::", "*", "", "fe80::1%" + "x" * 90])
        ),
        st.integers(0, 65535),
        st.sampled_from([True, False, None]),
    ),
)


@settings(max_examples=200)
@given(st.lists(OBSERVATIONS, min_size=1, max_size=8))
def test_every_report_of_every_observation_can_be_sent_and_kept(observations: list[Observation]) -> None:
    """No text makes a detector fail, a report unsendable or a note unreadable."""
    detectors = [kind.build(kind.SETTINGS(), SURROUNDINGS) for kind in DETECTORS]
    failures: list[str] = []
    book = CaseBook(agent_id=HOST, kernel_boot_id=KERNEL_BOOT, hysteresis=hysteresis_of(detectors))
    judge = Judge(
        detectors=detectors, book=book, failed=lambda name, error: failures.append(f"{name}: {error!r}")
    )
    changes = judge.observe([inventory(0, addresses={"8.8.8.8": "eth0"}), *observations], at(2))
    assert failures == []
    for number, body in enumerate(changes.bodies, start=1):
        assert body.phase is not CasePhase.UNKNOWN
        report = Report(
            agent_id=HOST, boot_id=BootId(KERNEL_BOOT), sequence=number, created_ns=at(2).unix_ns, body=body
        )
        assert decode(encode(report)) == report
    for raw in book.notes().values():
        assert decode_note(raw) is not None
