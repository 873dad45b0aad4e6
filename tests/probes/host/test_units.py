"""host.units: what the manager's signals mean, whose signals count, and what hostile ones do."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from probes.host.bus import BusGone, BusRefused, LibraryMissing, Signal, Target
from probes.host.unit_runs import escaped, run_of, unit_of
from probes.host.units import LOOK_S, NAME, STANDING_MAX, STOPPED_S, UNITS_MAX, UnitsSensor
from probes.observation import (
    BlindReason,
    Gap,
    Instant,
    ManagerReloaded,
    Origin,
    Seeing,
    UnitEnded,
    UnitResult,
    UnitsStanding,
    UnitStopped,
    UnitUp,
)
from probes.sensor import SensorBlind

NOW = Instant(boot_ns=10**12, unix_ns=1_795_000_000 * 10**9)
MANAGER = ":1.0"


def properties(began_s: float = 100, ended_s: float = 0, **said: Any) -> dict[str, Any]:
    """Return a service's properties as the bus's library gives them."""
    values: dict[str, Any] = {
        "ExecMainStartTimestampMonotonic": ("t", int(began_s * 1e6)),
        "ExecMainExitTimestampMonotonic": ("t", int(ended_s * 1e6)),
        "ExecMainStatus": ("i", said.get("status", 0)),
        "NRestarts": ("u", said.get("restarts", 0)),
        "Result": ("s", said.get("result", "success")),
    }
    return values


class FakeBus:
    """A bus with services whose properties a test sets, and signals that it puts in."""

    def __init__(self) -> None:
        self.lost = 0
        self.services: dict[str, dict[str, Any]] = {}
        self.waiting: deque[Signal | Exception] = deque()
        self.refuses: Exception | None = None
        self.called: list[str] = []
        self.closed = False

    def open(self) -> None:
        """Open, or refuse as told."""
        if self.refuses is not None:
            raise self.refuses

    def match(self, rule: str) -> None:
        """Accept."""
        assert rule.startswith("type='signal'")

    def owner(self, name: str) -> str:
        """Return the manager's name."""
        assert name == "org.freedesktop.systemd1"
        return MANAGER

    def call(
        self, target: Target, member: str, signature: str | None = None, arguments: tuple[Any, ...] = ()
    ) -> tuple[Any, ...]:
        """Answer as the manager does."""
        self.called.append(member)
        if member == "ListUnitsByPatterns":
            states = arguments[0]
            listed = [
                unit
                for unit, values in self.services.items()
                if values.get("ActiveState", ("s", "active"))[1] in states
            ]
            return ([(unit, "", "", "", "", "", path(unit)) for unit in listed],)
        if member == "Get":
            unit = unit_of(target[1])
            values = self.services.get(unit or "")
            if values is None or arguments[1] not in values:
                raise BusRefused("UnknownObject")
            return (values[arguments[1]],)
        return ()

    def signals(self) -> Iterable[Signal]:
        """Yield what a test put in."""
        while self.waiting:
            item = self.waiting.popleft()
            if isinstance(item, Exception):
                raise item
            yield item

    def close(self) -> None:
        """Remember."""
        self.closed = True


def path(unit: str) -> str:
    """Return the object path of a service."""
    return "/org/freedesktop/systemd1/unit/" + escaped(unit)


def changed(values: Any, *, unit: str = "vllm.service", sender: str = MANAGER) -> Signal:
    """Return the signal of a service that changed."""
    return Signal(
        sender,
        path(unit),
        "org.freedesktop.DBus.Properties",
        "PropertiesChanged",
        ("org.freedesktop.systemd1.Service", values, []),
    )


def manager(member: str, *body: Any, sender: str = MANAGER) -> Signal:
    """Return a signal of the manager."""
    return Signal(
        sender, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", member, tuple(body)
    )


@pytest.fixture
def bus() -> FakeBus:
    """A bus with a manager and no services."""
    return FakeBus()


def opened(
    bus: FakeBus, *, seconds: float = 1000, monotonic: Callable[[], float] | None = None
) -> UnitsSensor:
    """Return an open sensor, `seconds` after the boot, or by a clock."""
    sensor = UnitsSensor(bus=lambda: bus, booted=Path("/"), monotonic=monotonic or (lambda: seconds))
    sensor.open()
    return sensor


def test_a_life_is_told_once_with_its_length(bus: FakeBus) -> None:
    """The manager says everything with each change; only the end of a run is news."""
    sensor = opened(bus)
    begun, over = properties(100), properties(100, 100.25, status=3, restarts=1, result="exit-code")
    again = properties(101, 0, restarts=2)
    bus.waiting.extend(map(changed, [begun, begun, over, over, again]))
    bus.services["vllm.service"] = {"ActiveState": ("s", "active"), "StartLimitBurst": ("u", 5)}
    assert list(sensor.read(NOW)) == [
        UnitEnded(
            sensor=NAME,
            at=NOW,
            origin=Origin(unit="vllm.service"),
            result=UnitResult.EXIT_CODE,
            exit_status=3,
            restarts=1,
            lived_s=0.25,
        )
    ]


def test_a_service_that_the_manager_gave_up_is_told(bus: FakeBus) -> None:
    """Asked once it failed after restarts: failed for good, as often as its limit allows. Told once."""
    sensor = opened(bus)
    bus.services["vllm.service"] = {"ActiveState": ("s", "activating"), "StartLimitBurst": ("u", 5)}
    bus.waiting.append(changed(properties(100, 101, restarts=5, result="exit-code", status=1)))
    assert [one.result for one in sensor.read(NOW) if isinstance(one, UnitEnded)] == [UnitResult.EXIT_CODE]
    bus.services["vllm.service"]["ActiveState"] = ("s", "failed")
    (told,) = sensor.read(NOW)
    assert isinstance(told, UnitEnded)
    assert (told.result, told.exit_status, told.lived_s) == (UnitResult.START_LIMIT_HIT, 1, None)
    assert list(sensor.read(NOW)) == []


def test_a_service_that_was_given_up_before_is_told_too(bus: FakeBus) -> None:
    """The agent began later, or lost sight of the manager meanwhile."""
    failed = properties(100, 101, restarts=5, result="exit-code", status=1)
    bus.services["vllm.service"] = failed | {"ActiveState": ("s", "failed"), "StartLimitBurst": ("u", 5)}
    bus.services["once.service"] = properties(100, 101, result="exit-code")
    told = opened(bus).read(NOW)
    assert [(one.origin.unit, one.result) for one in told if isinstance(one, UnitEnded)] == [
        ("vllm.service", UnitResult.START_LIMIT_HIT)
    ]


@pytest.mark.parametrize(("state", "burst"), [("failed", 6), ("failed", 0), ("active", 5), ("inactive", 5)])
def test_a_service_that_failed_otherwise_was_not_given_up(bus: FakeBus, state: str, burst: int) -> None:
    """Fewer restarts than its limit, no limit, or up again."""
    sensor = opened(bus)
    bus.services["vllm.service"] = {"ActiveState": ("s", state), "StartLimitBurst": ("u", burst)}
    bus.waiting.append(changed(properties(100, 101, restarts=5, result="exit-code")))
    assert [one.result for one in sensor.read(NOW) if isinstance(one, UnitEnded)] == [UnitResult.EXIT_CODE]


@pytest.mark.parametrize(
    "after",
    [
        properties(100, 101, restarts=5, result="exit-code", status=1),
        properties(100, 101),
        properties(150, 151, restarts=5),
    ],
    ids=["stopped between two lives", "reset", "stopped while it ran"],
)
def test_a_restarted_service_that_stays_inactive_was_stopped(bus: FakeBus, after: dict[str, Any]) -> None:
    """Told once, after a minute in which it was always inactive; what was given up is not that."""
    clock = [1000.0]
    sensor = opened(bus, monotonic=lambda: clock[0])
    state = bus.services["vllm.service"] = {"ActiveState": ("s", "failed"), "StartLimitBurst": ("u", 5)}

    def stopped() -> list[UnitStopped]:
        return [one for one in sensor.read(NOW) if isinstance(one, UnitStopped)]

    bus.waiting.append(changed(properties(100, 101, restarts=5, result="exit-code", status=1)))
    assert stopped() == []
    clock[0] += 10 * STOPPED_S
    state["ActiveState"] = ("s", "inactive")
    bus.waiting.append(changed(after))
    assert stopped() == []
    clock[0] += STOPPED_S - 1
    assert stopped() == []
    clock[0] += 1
    assert stopped() == [
        UnitStopped(sensor=NAME, at=NOW, origin=Origin(unit="vllm.service"), stopped_s=STOPPED_S)
    ]
    clock[0] += STOPPED_S
    assert stopped() == []


def test_a_moment_between_two_lives_is_no_stop(bus: FakeBus) -> None:
    """Inactive, then on its way again: the minute begins anew. Nor is a job that nobody restarts told."""
    clock = [1000.0]
    sensor = opened(bus, monotonic=lambda: clock[0])
    for unit in ("vllm.service", "job.service"):
        bus.services[unit] = {"ActiveState": ("s", "inactive"), "StartLimitBurst": ("u", 5)}
    failed = properties(100, 101, restarts=3, result="exit-code")
    told: list[object] = []
    bus.waiting.extend([changed(failed), changed(properties(100, 101), unit="job.service")])
    for state in ("inactive", "activating", "inactive"):
        bus.services["vllm.service"]["ActiveState"] = ("s", state)
        told += sensor.read(NOW)
        clock[0] += STOPPED_S - 1
    assert [type(one) for one in told if not isinstance(one, UnitsStanding)] == [UnitEnded, UnitEnded]


def standing(sensor: UnitsSensor) -> list[UnitsStanding]:
    """Read, and return the looks at all services that are over."""
    return [one for one in sensor.read(NOW) if isinstance(one, UnitsStanding)]


def test_what_stands_is_told_after_each_opening_after_losses_and_each_hour(bus: FakeBus) -> None:
    """What stood at one of two looks, or moved between them; what was inactive both times is not in it."""
    clock = [1000.0]
    states = {"up": "active", "again": "activating", "down": "failed", "late": "inactive", "off": "inactive"}
    bus.services = {f"{unit}.service": {"ActiveState": ("s", state)} for unit, state in states.items()}
    sensor = opened(bus, monotonic=lambda: clock[0])

    def looked() -> list[tuple[str, ...]]:
        assert standing(sensor) == []
        bus.services["up.service"]["ActiveState"] = ("s", "inactive")
        bus.services["late.service"]["ActiveState"] = ("s", "activating")
        bus.waiting.append(changed(properties(100, 101), unit="moved.service"))
        clock[0] += STOPPED_S - 1
        assert standing(sensor) == []
        clock[0] += 1
        return [one.units for one in standing(sensor)]

    first = ("again.service", "down.service", "late.service", "moved.service", "up.service")
    later = tuple(unit for unit in first if unit != "up.service")
    assert looked() == [first]
    clock[0] += LOOK_S
    assert looked() == [later]
    bus.lost += 1
    sensor.read(NOW)
    assert looked() == [later]
    sensor.close()
    bus.lost = 0
    sensor.open()
    assert looked() == [later]


def test_which_of_too_many_services_do_not_stand_is_not_told(bus: FakeBus) -> None:
    """A list that is cut would say of the rest that they were stopped."""
    clock = [1000.0]
    bus.services = {f"u{number}.service": properties() for number in range(STANDING_MAX)}
    sensor = opened(bus, monotonic=lambda: clock[0])
    assert standing(sensor) == []
    for number in range(3):
        bus.waiting.append(changed(properties(100, 101), unit=f"more{number}.service"))
    clock[0] += STOPPED_S
    assert standing(sensor) == []


def test_what_runs_for_long_is_told_once_a_life(bus: FakeBus) -> None:
    """At the start too, for what ran before; and only after the manager said once more that it runs."""
    bus.services = {
        "old.service": properties(100),
        "young.service": properties(900),
        "dead.service": properties(100, 200),
        "gone.service": properties(100),
    }
    sensor = opened(bus)
    del bus.services["gone.service"]
    told = list(sensor.read(NOW))
    assert told == [UnitUp(sensor=NAME, at=NOW, origin=Origin(unit="old.service"), up_s=900.0)]
    bus.called.clear()
    assert list(sensor.read(NOW)) == []
    assert bus.called == []


def test_only_the_managers_own_signals_count(bus: FakeBus) -> None:
    """Anybody may send a signal to anybody."""
    sensor = opened(bus)
    over = properties(100, 101, result="exit-code")
    bus.waiting.extend([changed(over, sender=":1.66"), manager("Reloading", False, sender=":1.66")])
    assert list(sensor.read(NOW)) == []


def test_a_reload_is_told_when_it_is_over(bus: FakeBus) -> None:
    """Reloading(true) begins it, Reloading(false) ends it."""
    sensor = opened(bus)
    bus.waiting.extend([manager("Reloading", True), manager("Reloading", False)])
    assert list(sensor.read(NOW)) == [ManagerReloaded(NAME, NOW)]


def test_lost_signals_are_a_gap(bus: FakeBus) -> None:
    """What did not fit is counted."""
    sensor = opened(bus)
    bus.lost = 3
    assert list(sensor.read(NOW)) == [Gap(NAME, NOW, Seeing(), 3)]
    assert list(sensor.read(NOW)) == []


def test_a_bus_that_goes_away_blinds_and_leaves_what_was_told(bus: FakeBus) -> None:
    """What came before it is not lost."""
    sensor = opened(bus)
    bus.waiting.extend([changed(properties(100, 101, result="signal")), BusGone("it hung up")])
    with pytest.raises(SensorBlind) as caught:
        sensor.read(NOW)
    assert caught.value.blind.reason is BlindReason.READ_FAILED
    assert [type(one) for one in caught.value.last] == [UnitEnded]
    sensor.close()
    assert bus.closed


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BusGone("no socket"), BlindReason.READ_FAILED),
        (BusRefused("AccessDenied"), BlindReason.NO_PRIVILEGE),
        (LibraryMissing("no package"), BlindReason.NO_LIBRARY),
    ],
)
def test_a_bus_that_cannot_be_had_blinds_with_its_reason(
    bus: FakeBus, error: Exception, reason: BlindReason
) -> None:
    """And nothing is left open."""
    bus.refuses = error
    with pytest.raises(SensorBlind) as caught:
        opened(bus)
    assert caught.value.blind.reason is reason
    assert bus.closed


def test_a_host_without_systemd_says_so(tmp_path: Path) -> None:
    """It has no manager that could be asked."""
    with pytest.raises(SensorBlind) as caught:
        UnitsSensor(booted=tmp_path / "none").open()
    assert caught.value.blind.reason is BlindReason.UNSUPPORTED_PLATFORM


def test_a_storm_of_services_leaves_bounded_memory(bus: FakeBus) -> None:
    """Only the latest are remembered."""
    sensor = opened(bus)
    for number in range(2 * UNITS_MAX):
        values = properties(100, 101, restarts=1, result="exit-code")
        bus.waiting.append(changed(values, unit=f"u{number}.service"))
    sensor.read(NOW)
    assert len(sensor._units) == UNITS_MAX
    assert len(sensor._doubtful) <= UNITS_MAX
    assert len(sensor._restarted) <= UNITS_MAX


@pytest.mark.parametrize(
    ("unit", "encoded"),
    [
        ("vllm.service", "vllm_2eservice"),
        ("getty@tty1.service", "getty_40tty1_2eservice"),
        ("9p-x_y.service", "_39p_2dx_5fy_2eservice"),
        ("käse.service", "k_c3_a4se_2eservice"),
    ],
)
def test_names_of_services_are_written_as_the_manager_does(unit: str, encoded: str) -> None:
    """There and back."""
    assert escaped(unit) == encoded
    assert unit_of("/org/freedesktop/systemd1/unit/" + encoded) == unit


@pytest.mark.parametrize("path", ["/", "/org/freedesktop/systemd1/unit/x_2esocket", "/x/vllm_2eservice"])
def test_other_objects_are_no_services(path: str) -> None:
    """Sockets, mounts, and objects elsewhere."""
    assert unit_of(path) is None


_ANY = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.tuples(st.text(max_size=2), st.integers())
)


@given(
    values=st.dictionaries(st.sampled_from([*properties(), "Other"]), _ANY | st.tuples(st.just("t"), _ANY)),
    path=st.text(max_size=60),
    body=st.lists(_ANY, max_size=4),
)
def test_whatever_the_bus_carries_is_a_run_or_nothing(
    values: dict[str, Any], path: str, body: list[Any]
) -> None:
    """Values of any type, names of any characters: an observation or none, and no error."""
    run = run_of(values)
    assert run is None or run.restarts >= 0
    unit = unit_of("/org/freedesktop/systemd1/unit/" + path)
    assert unit is None or unit.endswith(".service")
    bus = FakeBus()
    sensor = opened(bus)
    for member in ("PropertiesChanged", "Reloading", "NameOwnerChanged"):
        bus.waiting.append(
            Signal(MANAGER, "/org/freedesktop/systemd1/unit/" + path, "i", member, tuple(body))
        )
    bus.waiting.append(changed(values))
    for told in sensor.read(NOW):
        assert isinstance(told, UnitEnded | ManagerReloaded | UnitUp | UnitStopped | UnitsStanding)
