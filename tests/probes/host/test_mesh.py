"""mesh.tailscale: what the daemon's LocalAPI says, over a real Unix socket, and no more than it may say."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from probes.host import local_api
from probes.host.mesh import (
    NAME,
    RELAYED_MAX,
    StatusUnreadable,
    TailscaleSensor,
    parse_status,
    parse_warnings,
)
from probes.observation import BlindReason, Instant, MeshState, MeshStatus, MeshWarning
from probes.recording import to_line
from probes.sensor import SensorBlind
from tests.probes.host import tailscaled
from tests.probes.host.tailscaled import BUS, STATUS, STATUS_ALONE, Tailscaled, peer, status

NOW = Instant(boot_ns=10**12, unix_ns=1_795_000_000 * 10**9)  # 2026-11-18


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Tailscaled]:
    """A daemon that runs well."""
    with tailscaled.running(tmp_path / "tailscaled.sock") as running:
        yield running


def read(daemon: Tailscaled, *, timeout_s: float = 2.0) -> MeshStatus:
    """Return what a sensor tells of the daemon."""
    sensor = TailscaleSensor(socket=daemon.path, ask=functools.partial(local_api.ask, timeout_s=timeout_s))
    sensor.open()
    (told,) = sensor.read(NOW)
    assert isinstance(told, MeshStatus)
    return told


def test_a_mesh_that_is_well_is_told_with_its_peers(daemon: Tailscaled) -> None:
    """State, own reachability, the key's end, who is active and who is relayed, by documented fields."""
    daemon.answers[STATUS] = status(
        peer(1, Active=True, CurAddr="203.0.113.9:41641"),
        peer(2, Active=True),
        peer(3),
        peer(4, Active=True, PeerRelay="203.0.113.7:1:vni:2"),
        own={"KeyExpiry": "2026-11-28T08:26:40Z"},
    )
    assert read(daemon) == MeshStatus(
        sensor=NAME,
        at=NOW,
        state=MeshState.RUNNING,
        online=True,
        key_expires_in_s=854_400.0,
        peers_known=True,
        peers_active=3,
        peers_relayed=1,
        relayed=("100.64.0.3",),
    )
    assert daemon.asked == [STATUS]  # nobody asks for warnings where there are none


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("NoState", MeshState.NO_STATE),
        ("NeedsLogin", MeshState.NEEDS_LOGIN),
        ("NeedsMachineAuth", MeshState.NEEDS_MACHINE_AUTH),
        ("Stopped", MeshState.STOPPED),
        ("Starting", MeshState.STARTING),
        ("InUseOtherUser", MeshState.UNKNOWN),
    ],
)
def test_each_state_has_its_word(daemon: Tailscaled, said: str, state: MeshState) -> None:
    """A state that is new to us is unknown, not well."""
    daemon.answers[STATUS] = status(BackendState=said, Self=None)
    told = read(daemon)
    assert (told.state, told.online, told.key_expires_in_s) == (state, None, None)


def test_an_expired_key_is_told(daemon: Tailscaled) -> None:
    """By the daemon's own word, beside the seconds that have gone since."""
    daemon.answers[STATUS] = status(
        own={"Expired": True, "KeyExpiry": "2026-11-17T08:26:40Z", "Online": False}
    )
    told = read(daemon)
    assert (told.expired, told.online, told.key_expires_in_s) == (True, False, -96_000.0)


def test_warnings_are_codes_by_a_closed_table(daemon: Tailscaled) -> None:
    """The sentences stay where they are; harmless codes are left out, unknown ones are OTHER."""
    daemon.answers[STATUS] = status(Health=["a sentence about secret-name-7"])
    daemon.answers[BUS] = tailscaled.bus_page(
        "no-derp-home", "update-available", "brand-new-code", "no-udp4-bind"
    )
    told = read(daemon)
    assert told.warnings == (MeshWarning.NO_DERP_HOME, MeshWarning.NO_UDP4_BIND, MeshWarning.OTHER)
    assert daemon.asked == [STATUS, BUS]


def test_only_harmless_warnings_are_none(daemon: Tailscaled) -> None:
    """That there is an update says nothing about the mesh."""
    daemon.answers[STATUS] = status(Health=["an update is available"])
    daemon.answers[BUS] = tailscaled.bus_page("update-available")
    assert read(daemon).warnings == ()


def test_warnings_whose_codes_cannot_be_had_are_other(daemon: Tailscaled) -> None:
    """A daemon without the bus still says that there are warnings."""
    daemon.answers[STATUS] = status(Health=["a sentence"])
    assert read(daemon).warnings == (MeshWarning.OTHER,)


def test_nothing_of_names_or_people_is_told(daemon: Tailscaled) -> None:
    """Host names, users, keys and endpoints stay with the daemon."""
    daemon.answers[STATUS] = status(
        *(peer(n, Active=True) for n in range(1, 4)), Health=["secret-name-1 is bad"]
    )
    daemon.answers[BUS] = tailscaled.bus_page("login-state")
    line = to_line(read(daemon))
    for word in ("secret", "nodekey", "example.org", "203.0.113", "sentence", "ts.net"):
        assert word not in line


def test_no_daemon_is_a_fact_and_not_health(tmp_path: Path) -> None:
    """No socket, and a socket that nobody listens on, are both told as no daemon."""
    sensor = TailscaleSensor(socket=str(tmp_path / "none.sock"))
    assert [told.state for told in sensor.read(NOW) if isinstance(told, MeshStatus)] == [MeshState.NO_DAEMON]
    left = tmp_path / "left.sock"
    with tailscaled.running(left):
        pass
    assert left.exists()
    sensor = TailscaleSensor(socket=str(left))
    assert [told.state for told in sensor.read(NOW) if isinstance(told, MeshStatus)] == [MeshState.NO_DAEMON]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Tailscaled.HANG, BlindReason.NOT_ANSWERING),
        (b"", BlindReason.READ_FAILED),
        (b"HTTP/1.0 403 Forbidden\r\n\r\nstatus access denied\n", BlindReason.READ_FAILED),
        (b'HTTP/1.0 200 OK\r\n\r\n{"BackendState": "Runn', BlindReason.READ_FAILED),
        (b"HTTP/1.0 200 OK\r\n\r\n[]", BlindReason.READ_FAILED),
        (b"HTTP/1.0 200 OK\r\n\r\n" + b"[" * 100_000, BlindReason.READ_FAILED),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", BlindReason.READ_FAILED),
        (b"HTTP/1.0 200 OK\r\n" + b"X: y\r\n" * 20_000, BlindReason.READ_FAILED),
    ],
)
def test_a_daemon_that_does_not_answer_the_question_blinds(
    daemon: Tailscaled, answer: Any, reason: BlindReason
) -> None:
    """Hanging, refusing, cut off, nonsense: blind with its reason, never healthy."""
    daemon.answers[STATUS] = answer
    with pytest.raises(SensorBlind) as caught:
        read(daemon, timeout_s=0.2 if answer is Tailscaled.HANG else 2.0)
    assert caught.value.blind.reason is reason


@pytest.mark.root
def test_a_socket_that_may_not_be_opened_blinds(daemon: Tailscaled) -> None:
    """An ordinary user in front of a closed socket says that it lacks the privilege."""
    Path(daemon.path).chmod(0o600)
    os.seteuid(65534)
    try:
        with pytest.raises(SensorBlind) as caught:
            read(daemon)
    finally:
        os.seteuid(0)
    assert caught.value.blind.reason is BlindReason.NO_PRIVILEGE


def test_a_large_fleet_is_asked_about_rarely_and_told_within_bounds(daemon: Tailscaled) -> None:
    """A thousand peers are read at each tenth time; in between the peers are not known, the rest is."""
    daemon.answers[STATUS] = status(*(peer(n, Active=True) for n in range(1, 1001)))
    sensor = TailscaleSensor(socket=daemon.path)
    told = [one for _ in range(11) for one in sensor.read(NOW) if isinstance(one, MeshStatus)]
    assert daemon.asked == [STATUS, *[STATUS_ALONE] * 9, STATUS]
    assert [one.peers_known for one in told] == [True, *[False] * 9, True]
    assert (told[0].peers_active, told[0].peers_relayed, len(told[0].relayed)) == (1000, 1000, RELAYED_MAX)
    assert all(one.state is MeshState.RUNNING for one in told)


def test_an_answer_beyond_the_bound_is_asked_for_without_peers(daemon: Tailscaled) -> None:
    """A status that is too long is left unread, and the short one is taken."""
    daemon.answers[STATUS] = status(Extra="x" * (5 << 20))
    told = read(daemon)
    assert (told.state, told.peers_known) == (MeshState.RUNNING, False)
    assert daemon.asked == [STATUS, STATUS_ALONE]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(
    fields=st.dictionaries(
        st.sampled_from(["BackendState", "Self", "Peer", "Health", "Warnings"]), _JSON, max_size=5
    ),
    one=st.dictionaries(
        st.sampled_from(["Active", "CurAddr", "Relay", "TailscaleIPs", "Online", "KeyExpiry", "PublicKey"]),
        _JSON,
        max_size=7,
    ),
)
def test_whatever_a_daemon_says_is_a_status_or_unreadable(
    fields: dict[str, Any], one: dict[str, Any]
) -> None:
    """Fields of any type: a bounded status or StatusUnreadable, and nothing else."""
    for said in (fields, {"BackendState": "Running", "Self": one, "Peer": {"a": one, "b": one}} | fields):
        raw = json.dumps(said).encode()
        try:
            told, _ = parse_status(raw, NOW, peers_known=True)
        except StatusUnreadable:
            continue
        assert len(told.relayed) <= told.peers_relayed <= told.peers_active
        assert "\n" not in to_line(told)
    health = json.dumps({"Health": fields}).encode()
    assert set(parse_warnings(health)) <= set(MeshWarning)


@given(raw=st.binary(max_size=200))
def test_bytes_that_are_no_json_are_unreadable(raw: bytes) -> None:
    """Any bytes at all."""
    for parse in (lambda: parse_status(raw, NOW, peers_known=True), lambda: parse_warnings(raw)):
        with contextlib.suppress(StatusUnreadable):
            parse()
