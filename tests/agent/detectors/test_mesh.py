"""F33: a mesh that is down, alone, about to expire or relayed; and what is normal for a moment."""

from __future__ import annotations

from typing import Any

import pytest

from agent.detectors.mesh import Config, MeshDegraded
from agent.finding import Verdict
from agent.testing import HOST, SURROUNDINGS, at, blind, open_case, present, seeing, slept, tick
from escalation.model import (
    FaultClass,
    MeshEvidence,
    MeshState as WireState,
    MeshWarning as WireWarning,
    ReasonCode,
    Severity,
    Subject,
    SubjectKind,
)
from probes.observation import MeshState, MeshStatus, MeshWarning, SensorName

HERE = Subject(SubjectKind.HOST, HOST)
FAULT = FaultClass.MESH_DEGRADED


@pytest.fixture
def detector() -> MeshDegraded:
    """A detector on a host where the mesh ran a moment ago."""
    made = MeshDegraded.build(Config(), SURROUNDINGS)
    assert present(made, seeing(-60, "mesh.tailscale"), status(-30)) == []
    return made


def status(seconds: float, **said: Any) -> MeshStatus:
    """Return a mesh that is well, with one active peer on a direct path, unless told otherwise."""
    usual: dict[str, Any] = {
        "state": MeshState.RUNNING,
        "online": True,
        "key_expires_in_s": 100 * 86400.0,
        "peers_known": True,
        "peers_active": 1,
    }
    return MeshStatus(sensor=SensorName("mesh.tailscale"), at=at(seconds), **(usual | said))


def relayed(seconds: float, *addresses: str) -> MeshStatus:
    """Return a status with these active peers on relayed paths."""
    return status(seconds, peers_active=len(addresses) + 1, peers_relayed=len(addresses), relayed=addresses)


@pytest.mark.parametrize(
    ("said", "lasting_s", "code", "severity"),
    [
        ({"state": MeshState.NEEDS_LOGIN}, 60, ReasonCode.MESH_NOT_RUNNING, Severity.HIGH),
        ({"state": MeshState.NO_STATE}, 60, ReasonCode.MESH_NOT_RUNNING, Severity.HIGH),
        ({"state": MeshState.NO_DAEMON}, 60, ReasonCode.MESH_NOT_RUNNING, Severity.HIGH),
        ({"state": MeshState.STARTING}, 180, ReasonCode.MESH_NOT_RUNNING, Severity.HIGH),
        ({"state": MeshState.STOPPED}, 60, ReasonCode.MESH_NOT_RUNNING, Severity.NOTE),
        ({"online": False}, 60, ReasonCode.MESH_OFFLINE, Severity.HIGH),
        ({"expired": True}, 0, ReasonCode.KEY_EXPIRED, Severity.HIGH),
        ({"key_expires_in_s": -5.0}, 0, ReasonCode.KEY_EXPIRED, Severity.HIGH),
        ({"key_expires_in_s": 6 * 86400.0}, 0, ReasonCode.KEY_EXPIRES_SOON, Severity.NOTE),
        ({"warnings": (MeshWarning.NO_DERP_HOME,)}, 300, ReasonCode.HEALTH_WARNINGS, Severity.MEDIUM),
        ({"warnings": (MeshWarning.OTHER,)}, 300, ReasonCode.HEALTH_WARNINGS, Severity.NOTE),
    ],
)
def test_what_lasts_is_a_case_and_what_passes_is_none(
    detector: MeshDegraded, said: dict[str, Any], lasting_s: float, code: ReasonCode, severity: Severity
) -> None:
    """Each sign opens once it has lasted as long as it must, with its reason, and not before."""
    if lasting_s:
        assert present(detector, status(0, **said), status(lasting_s - 1, **said)) == []
    (found,) = present(detector, status(lasting_s, **said))
    assert (found.subject, found.severity) == (HERE, severity)
    assert [reason.code for reason in found.reasons] == [code]


@pytest.mark.parametrize(
    "said", [{"state": MeshState.STARTING}, {"online": False}, {"warnings": (MeshWarning.DERP_TIMED_OUT,)}]
)
def test_what_comes_and_goes_stays_quiet(detector: MeshDegraded, said: dict[str, Any]) -> None:
    """A sign that is gone in between begins anew."""
    moments = [status(30 * n, **(said if n % 2 else {})) for n in range(40)]
    assert present(detector, *moments) == []


@pytest.mark.parametrize("said", [{"online": False}, {"peers_relayed": 1, "relayed": ("100.64.0.3",)}])
def test_a_night_asleep_is_no_time_that_anything_lasted(detector: MeshDegraded, said: dict[str, Any]) -> None:
    """A laptop that is closed loses its network first, and finds it again some seconds after it wakes."""
    night_s = 8 * 3600
    told = (status(0, **said), slept(night_s, night_s), status(night_s, **said), status(night_s + 30))
    assert present(detector, *told) == []


def test_a_daemon_that_warms_up_stays_quiet(detector: MeshDegraded) -> None:
    """It says so itself."""
    warming = [status(30 * n, warnings=(MeshWarning.WARMING_UP,)) for n in range(40)]
    assert present(detector, *warming) == []


def test_an_active_peer_that_stays_relayed_is_a_case(detector: MeshDegraded) -> None:
    """The first minutes of a path are normal; the peer that stays relayed is counted, with for how long."""
    assert present(detector, *(relayed(30 * n, "100.64.0.3") for n in range(10))) == []
    (found,) = present(detector, relayed(300, "100.64.0.3", "100.64.0.4"))
    assert found.severity is Severity.MEDIUM
    (reason,) = found.reasons
    assert (reason.code, reason.count, reason.window_s) == (ReasonCode.PEERS_RELAYED, 1, 300)
    assert found.evidence == (
        MeshEvidence(
            state=WireState.RUNNING,
            online=True,
            key_expires_in_s=100 * 86400.0,
            warnings=(),
            peers_active=3,
            peers_relayed=2,
        ),
    )


def test_other_peers_in_turn_on_relayed_paths_stay_quiet(detector: MeshDegraded) -> None:
    """Each begins relayed and becomes direct; none stays so."""
    assert present(detector, *(relayed(30 * n, f"100.64.0.{n // 5}") for n in range(40))) == []


def test_a_fleet_that_is_asked_about_rarely_is_followed_all_the_same(detector: MeshDegraded) -> None:
    """A status without peers neither ends nor begins a relayed path."""
    between = [status(30 * n, peers_known=False, peers_active=0) for n in range(1, 10)]
    assert present(detector, relayed(0, "100.64.0.3"), *between) == []
    assert len(present(detector, relayed(300, "100.64.0.3"))) == 1


def test_a_host_that_never_had_a_mesh_is_quiet() -> None:
    """No daemon, for hours; unless the mesh is declared to be there."""
    none = [status(30 * n, state=MeshState.NO_DAEMON, online=None) for n in range(200)]
    assert present(MeshDegraded.build(Config(), SURROUNDINGS), *none) == []
    declared = MeshDegraded.build(Config(expected=True), SURROUNDINGS)
    assert present(declared, *none)[0].severity is Severity.HIGH


def test_that_a_mesh_ran_here_is_remembered_for_a_while(detector: MeshDegraded) -> None:
    """Across restarts of the agent, within bounds of time; a memory that cannot be read is counted."""
    none = [status(30 * n, state=MeshState.NO_DAEMON) for n in range(1, 5)]
    fresh = MeshDegraded.build(Config(), SURROUNDINGS)
    assert fresh.recall(detector.memory()) == 0
    assert present(fresh, *none)
    late = MeshDegraded.build(Config(remember_s=10), SURROUNDINGS)
    assert late.recall(detector.memory()) == 0
    assert present(late, *none) == []
    assert late.recall({"ran": b"yesterday"}) == 1
    assert late.recall({}) == 0


def test_a_clock_that_was_set_back_forgets_no_mesh(detector: MeshDegraded) -> None:
    """A host that boots with a clock in the future ran its mesh then; the daemon is missed all the same."""
    fresh = MeshDegraded.build(Config(), SURROUNDINGS)
    assert fresh.recall({"ran": str(at(86400).unix_ns).encode()}) == 0
    assert present(fresh, *(status(30 * n, state=MeshState.NO_DAEMON) for n in range(1, 5)))


def test_is_one_event_however_often_it_is_told(detector: MeshDegraded) -> None:
    """Only the first telling counts; after the case was closed there is a new one."""
    told = present(detector, *(status(30 * n, expired=True) for n in range(5)))
    assert [found.count for found in told] == [1, 0, 0, 0, 0]
    detector.tick(tick(150))
    assert [found.count for found in present(detector, status(180, expired=True))] == [1]


def test_clears_when_the_daemon_says_that_all_is_well(detector: MeshDegraded) -> None:
    """Running, heard and without a warning."""
    present(detector, status(0, expired=True))
    (found,) = detector.observe(status(30))
    assert (found.verdict, found.subject) == (Verdict.ABSENT, HERE)
    assert [reason.code for reason in found.reasons] == [ReasonCode.MESH_WELL_AGAIN]


@pytest.mark.parametrize(
    "said",
    [
        {"state": MeshState.STARTING},
        {"state": MeshState.NO_DAEMON},
        {"online": False},
        {"warnings": (MeshWarning.OTHER,)},
    ],
)
def test_does_not_clear_on_half_of_it(detector: MeshDegraded, said: dict[str, Any]) -> None:
    """A sign that has not lasted yet is still a sign."""
    assert list(detector.observe(status(0, **said))) == []


def test_idle_peers_end_no_case_of_relayed_ones(detector: MeshDegraded) -> None:
    """Without active peers there is no path to be seen; with a direct one it is over."""
    present(detector, *(relayed(30 * n, "100.64.0.3") for n in range(11)))
    assert list(detector.observe(status(330, peers_active=0))) == []
    assert list(detector.observe(status(360, peers_known=False))) == []
    (found,) = detector.observe(status(390))
    assert found.verdict is Verdict.ABSENT


def test_a_case_of_relayed_peers_is_known_after_a_restart() -> None:
    """The open case itself says what it began with."""
    fresh = MeshDegraded.build(Config(), SURROUNDINGS)
    evidence = MeshEvidence(
        state=WireState.RUNNING,
        online=True,
        key_expires_in_s=None,
        warnings=(WireWarning.OTHER,),
        peers_active=2,
        peers_relayed=1,
    )
    fresh.observe(seeing(0, "mesh.tailscale"))
    assert list(fresh.tick(tick(1, open_case(FAULT, HERE, evidence=(evidence,))))) == []
    assert list(fresh.observe(status(2, peers_active=0))) == []
    assert [found.verdict for found in fresh.observe(status(3))] == [Verdict.ABSENT]


def test_keeps_open_when_the_daemon_does_not_answer(detector: MeshDegraded) -> None:
    """Blindness is unknown, at once and at each tick, and what lasted begins anew."""
    present(detector, status(0, online=False), status(60, online=False))
    (found,) = detector.observe(blind(70, "mesh.tailscale"))
    assert (found.verdict, found.subject) == (Verdict.UNKNOWN, HERE)
    assert [one.verdict for one in detector.tick(tick(80, open_case(FAULT, HERE)))] == [Verdict.UNKNOWN]
    assert present(detector, status(90, online=False), status(149, online=False)) == []


def test_the_words_of_both_sides_are_the_same() -> None:
    """Each state and warning that a sensor may tell has its word in a report."""
    assert {state.value for state in MeshState} == {state.value for state in WireState}
    assert {warning.value for warning in MeshWarning} == {w.value for w in WireWarning} - {"unknown"}
