"""What the playbook says about a host: the words beside the command, and the names that it may use."""

from __future__ import annotations

import dataclasses

import pytest

from escalation.model import (
    ActionKind,
    Change,
    ControlPlane,
    FaultClass,
    Incarnation,
    ListenerEvidence,
    MountRole,
    Reach,
    ReasonCode,
    ScopeBreach,
    Subject,
    SubjectKind,
    UnitResult,
)
from escalation.server.playbook import names
from escalation.server.playbook.registry import advise
from escalation.server.testing import CONTAINER
from tests.escalation.server.playbook.host_incidents import (
    BOX,
    HOST,
    LOOK,
    MOUNT,
    PEER,
    PORTS,
    SECOND_UNKNOWN,
    UNIT,
    drift_evidence,
    incident_of,
    plane_evidence,
    scope_evidence,
    sessions_evidence,
    storage_evidence,
    unit_evidence,
)

_F, _R = FaultClass, ReasonCode


def test_says_what_differs_of_a_server_that_drifted() -> None:
    """The changes in words, the lengths of the context in tokens, and never a print."""

    def summary(*changes: Change, **lengths: int) -> str:
        return advise(incident_of(_F.SERVICE_CONFIG_DRIFT, UNIT, drift_evidence(*changes, **lengths))).summary

    assert summary(Change.PARSER).startswith("It differs in the parser of reasoning or tool calls. ")
    both = summary(Change.MODEL, Change.CONTEXT, Change.MEMORY, before=65_536, now=8192)
    assert "the model, the context length (65536 tokens before, 8192 now) and the share of memory." in both
    assert "aaaa" not in both
    assert summary().startswith("It differs in its command line. ")
    told = {summary(change) for change in Change}
    assert len(told) == len(Change)


def test_names_the_setting_that_closes_each_control_plane() -> None:
    """Each kind that is known has its own words; one that is not has the general ones."""
    words = {
        plane: advise(incident_of(_F.EXPOSURE_OPEN_CONTROL_PLANE, HOST, plane_evidence(plane))).summary
        for plane in ControlPlane
    }
    plain = words.pop(ControlPlane.UNKNOWN)
    assert words.pop(ControlPlane.OTHER) == plain
    assert len(set(words.values())) == len(words)
    assert "--dashboard-host=127.0.0.1" in words[ControlPlane.RAY_DASHBOARD]


def test_tells_of_somebody_who_is_connected_from_outside() -> None:
    """Closing it is then not enough: somebody may have used it."""

    def limits(outside: int) -> str:
        found = incident_of(_F.EXPOSURE_OPEN_CONTROL_PLANE, HOST, plane_evidence(outside=outside))
        return advise(found).will_not_fix

    assert "change the secrets" in limits(1)
    assert "change the secrets" not in limits(0)


def test_an_off_mesh_listener_of_docker_is_published_anew() -> None:
    """Held by docker-proxy, the port is published on loopback or the mesh, with its own number."""
    listener = ListenerEvidence("0.0.0.0", 3000, Reach.ALL_INTERFACES, "docker-proxy", confirmed=True)
    subject = Subject(SubjectKind.LISTENER, "0.0.0.0:3000/tcp")
    advice = advise(incident_of(_F.EXPOSURE_OFF_MESH_LISTENER, subject, listener))
    assert advice.action.command == ("docker", "ps", "--no-trunc", "--filter=publish=3000")
    assert "-p 127.0.0.1:3000:3000" in advice.summary
    assert "-p 100.x.y.z:3000:3000" in advice.summary
    other = dataclasses.replace(listener, process_name="node")
    advice = advise(
        incident_of(
            _F.EXPOSURE_OFF_MESH_LISTENER, subject, other, reasons=(_R.PUBLISHED_BY_PROXY,), target=BOX
        )
    )
    assert advice.action.command == PORTS


def test_a_listener_that_was_never_there_is_asked_about_first() -> None:
    """Closing what somebody has just started hides who it was."""
    subject = Subject(SubjectKind.LISTENER, "0.0.0.0:3000/tcp")
    advice = advise(incident_of(_F.EXPOSURE_OFF_MESH_LISTENER, subject, reasons=(_R.NOT_EXPECTED_HERE,)))
    assert advice.summary.startswith("Find out first who started it")


@pytest.mark.parametrize(
    ("result", "word"),
    [
        (UnitResult.OOM_KILL, "want of memory"),
        (UnitResult.TIMEOUT, "TimeoutStartSec="),
        (UnitResult.START_LIMIT_HIT, "systemctl reset-failed"),
        (UnitResult.EXIT_CODE, "Stop it until"),
    ],
)
def test_a_restart_loop_is_read_by_how_it_ends(result: UnitResult, word: str) -> None:
    """What ended the unit says where to look; a start limit says how to start it again afterwards."""
    assert word in advise(incident_of(_F.UNIT_RESTART_LOOP, UNIT, unit_evidence(result))).summary


def test_a_full_database_disk_loses_nothing() -> None:
    """No command that removes anything is ever shown for it, and the words say to leave its files alone."""
    for reasons in ((_R.SPACE_LOW, _R.WRITES_REFUSED), (_R.INODES_LOW,)):
        found = incident_of(
            _F.STORAGE_FULL, MOUNT, storage_evidence(MountRole.DATABASE, mount="/srv/pg"), reasons=reasons
        )
        advice = advise(found)
        assert advice.action.command[0] == "du"
        assert "Never remove a file of a database" in advice.summary


def test_valid_keys_are_not_to_be_changed() -> None:
    """A router that refuses keys for want of its database says nothing about the keys."""
    found = incident_of(
        _F.DATABASE_CONNECTIONS_EXHAUSTED, UNIT, sessions_evidence(), reasons=(_R.KEYS_REFUSED_AT_ROUTER,)
    )
    assert "are good: do not change them" in advise(found).summary
    assert "below 100" in advise(found).summary


def test_a_worker_that_was_lost_elsewhere_is_started_there_first() -> None:
    """The command restarts what is here; the words say what has to come before it, and where."""
    reasons = (_R.NODE_MARKED_DEAD, _R.CONNECTIONS_RESET)
    found = incident_of(_F.DISTRIBUTED_WORKER_LOST, PEER, target=BOX, reasons=reasons)
    advice = advise(found)
    assert advice.action.command == ("docker", "restart", CONTAINER)
    assert advice.summary.startswith("Start the worker again on the other host first")


@pytest.mark.parametrize(
    ("reasons", "kind"),
    [
        ((_R.SHARED_MEMORY_SMALL, _R.DIED_BY_BUS_ERROR), ActionKind.RECREATE_CONTAINER),
        ((_R.SHARED_MEMORY_REFUSED, _R.LOG_LINE_MATCHES), ActionKind.RECREATE_CONTAINER),
        ((_R.SHARED_MEMORY_SMALL,), LOOK),
        ((_R.SHARED_MEMORY_REFUSED, _R.SHARED_MEMORY_SMALL, SECOND_UNKNOWN), LOOK),
    ],
)
def test_two_signs_of_small_shared_memory_make_a_proposal(
    reasons: tuple[ReasonCode, ...], kind: ActionKind
) -> None:
    """Its size is one of them; a single one is only looked at."""
    assert advise(incident_of(_F.CONTAINER_SHM_TOO_SMALL, BOX, reasons=reasons)).action.kind is kind


def test_a_secret_has_to_be_changed() -> None:
    """It was readable, so moving it is not enough; a wider scope is no answer to it."""
    secret = advise(incident_of(_F.SCOPE_VIOLATION, UNIT, scope_evidence(ScopeBreach.SECRET)))
    assert "change the secret" in secret.summary
    assert "wider" not in secret.summary
    refused = advise(
        incident_of(_F.SCOPE_VIOLATION, UNIT, scope_evidence(ScopeBreach.DESTINATION, denied=True))
    )
    assert "The kernel refused it." in refused.summary


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        (f"/docker/{CONTAINER}", BOX),
        (f"/system.slice/docker-{CONTAINER}.scope", BOX),
        (f"/system.slice/docker-{CONTAINER}.scope/system.slice/cron.service", BOX),
        ("/system.slice/whisper.service", UNIT),
        ("/system.slice/whisper.service/worker", UNIT),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/whisper.service", None),
        (f"/kubepods/{CONTAINER}", None),
        ("/machine.slice/vm.service/system.slice/whisper.service", None),
        ("/system.slice/a b.service", None),
        ("/", None),
    ],
)
def test_a_neighbour_is_found_by_its_control_group(path: str, owner: Subject | None) -> None:
    """Docker's containers and the host's own services; never a unit of what runs inside something."""
    assert names.owner_of_cgroup(path) == owner


@pytest.mark.parametrize(
    ("mount", "safe"),
    [
        ("/", True),
        ("/mnt/models", True),
        ("/usr/share/ollama/.ollama", True),
        ("/mnt/../etc", False),
        ("/mnt/.", False),
        ("mnt", False),
        ("-rf", False),
        ("/mnt/a b", False),
        ("/mnt/a\n", False),
        ("//etc", False),
        ("/" + "x" * 300, False),
    ],
)
def test_a_path_of_a_mount_is_used_only_when_it_is_plain(mount: str, safe: bool) -> None:
    """No step upward, no blank, no option, no end of line."""
    found = incident_of(_F.STORAGE_FULL, Subject(SubjectKind.MOUNT, mount))
    assert (names.mount_path(found) == mount) is safe


@pytest.mark.parametrize(("pid", "ticks", "known"), [(4242, 9, 4242), (1, 9, None), (4242, None, None)])
def test_a_process_is_named_by_its_life_only(pid: int, ticks: int | None, known: int | None) -> None:
    """A pid without its start may be another process's by now, and init is never acted on."""
    found = incident_of(_F.PROCESS_NOT_ANSWERING, UNIT)
    found = dataclasses.replace(found, incarnation=Incarnation("kernel-1", pid=pid, start_ticks=ticks))
    assert names.process_id(found) == known
