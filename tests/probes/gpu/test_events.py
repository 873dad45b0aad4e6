"""Events of the driver: Xids and changed advice, told at once, and what is said when waiting fails."""

from __future__ import annotations

import select
import time

import pytest

from probes.gpu import worker
from probes.gpu.facts import Absence, Unread, XidSource
from probes.host import clock
from probes.observation import Gap, GpuAbsent, GpuState, GpuXid
from probes.sensor import SensorBlind
from tests.fake_nvml import profiles
from tests.fake_nvml.fake import FakeNvml
from tests.fake_nvml.profiles import Machine
from tests.probes.gpu.conftest import Drive, states


def test_xids_come_from_events_with_their_gpu(fake: FakeNvml, driven: Drive) -> None:
    """A prime number of events on two GPUs are as many Xids, each with its address; no older ones."""
    one, other = profiles.TWO_GPUS_WITH_MIG.gpus
    fake.become(Machine((one.telling(1, 79), other)))
    drive = driven()
    drive.next()
    for serial in range(2, 9):
        one = one.telling(serial, 31 if serial % 2 else 4242)
    fake.become(Machine((one, other.telling(9, 48))))
    seen: list[GpuXid] = []
    while len(seen) < 8:
        seen += [o for o in drive.next(lambda o: isinstance(o, GpuXid)) if isinstance(o, GpuXid)]
    assert [(x.facts.pci, x.facts.number) for x in seen] == [
        *[("0000:1b:00.0", 31 if serial % 2 else 4242) for serial in range(2, 9)],
        ("0000:43:00.0", 48),
    ]
    assert {x.facts.source for x in seen} == {XidSource.NVML}


def test_an_xid_rings(fake: FakeNvml, driven: Drive) -> None:
    """The descriptor is readable from the event to the read that tells it."""
    fake.become(profiles.RTX_5090_LAPTOP)
    drive = driven()
    drive.next()
    fd = drive.sensor.wakeup_fd()
    assert fd is not None
    assert select.select([fd], [], [], 0)[0] == []
    fake.become(Machine((profiles.RTX_5090_LAPTOP.gpus[0].telling(1, 31),)))
    assert select.select([fd], [], [], 10)[0] == [fd]
    assert [type(o) for o in drive.sensor.read(clock.now())][:1] == [GpuXid]
    assert select.select([fd], [], [], 0)[0] == []
    drive.sensor.close()
    assert drive.sensor.wakeup_fd() is None


def test_an_xid_that_takes_the_driver_along_is_still_told(fake: FakeNvml, driven: Drive) -> None:
    """What came before sight went is told with the blindness."""
    fake.become(profiles.RTX_5090_LAPTOP)
    drive = driven()
    drive.next()
    fd = drive.sensor.wakeup_fd()
    assert fd is not None
    gpu = profiles.RTX_5090_LAPTOP.gpus[0].telling(1, 79)
    fake.become(Machine((gpu,)).also("code nvmlDeviceGetClockInfo 9"))
    assert select.select([fd], [], [], 10)[0] == [fd]
    sampling = drive.sensor._worker
    assert sampling is not None
    sampling.ask()
    sampling._thread.join(10)
    with pytest.raises(SensorBlind) as caught:
        drive.sensor.read(clock.now())
    xid, absent = caught.value.last
    assert isinstance(xid, GpuXid)
    assert isinstance(absent, GpuAbsent)
    assert (xid.facts.number, absent.why) == (79, Absence.NO_DRIVER)


def test_more_xids_than_fit_are_counted_as_lost(
    fake: FakeNvml, driven: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storm of events costs its oldest, and the Gap says how many."""
    monkeypatch.setattr(worker, "_QUEUE", 5)
    fake.become(profiles.RTX_5090_LAPTOP)
    drive = driven()
    drive.next()
    gpu = profiles.RTX_5090_LAPTOP.gpus[0]
    for serial in range(1, 12):
        gpu = gpu.telling(serial, 13)
    fake.become(Machine((gpu,)))
    events = drive.sensor._worker and drive.sensor._worker._events
    assert events is not None
    until = time.monotonic() + 10
    while events._lost < 6 and time.monotonic() < until:
        time.sleep(0.01)
    found = drive.next(lambda o: isinstance(o, Gap))
    assert [o.lost for o in found if isinstance(o, Gap)] == [6]
    assert len([o for o in found if isinstance(o, GpuXid)]) == 5


def test_a_changed_recovery_action_is_read_at_once(fake: FakeNvml, driven: Drive) -> None:
    """The event brings the slow facts forward."""
    fake.become(profiles.RTX_5090_LAPTOP)
    drive = driven()
    drive.next()
    gpu = profiles.RTX_5090_LAPTOP.gpus[0].telling(1, 2, type_=profiles.RECOVERY_EVENT)
    fake.become(Machine((gpu.having(recovery_action=2),)))
    found = drive.next(lambda o: isinstance(o, GpuState) and o.facts.recovery_action == 2)
    assert not [o for o in found if isinstance(o, GpuXid)]


def test_a_gpu_without_xid_events_says_so(fake: FakeNvml, driven: Drive) -> None:
    """One of three sources is missing, and its code is told."""
    fake.become(Machine((profiles.LAPTOP.lacking("event_types"), profiles.LAPTOP.having(event_types=1))))
    codes = [{u.fact: u.code for u in s.facts.unread}["xids"] for s in states(driven().next())]
    assert codes == [3, 3]


def test_a_wait_that_fails_is_told_as_long_as_it_does(
    fake: FakeNvml, driven: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No GPU's Xids are heard while the waiting ends at once with a code; with none they are again."""
    monkeypatch.setattr(worker, "CALL_S", 0.05)
    fake.become(profiles.RTX_5090_LAPTOP.also("code nvmlEventSetWait_v2 999"))
    drive = driven()
    drive.next(lambda o: isinstance(o, GpuState) and Unread("xids", 999) in o.facts.unread)
    fake.become(profiles.RTX_5090_LAPTOP)
    drive.next(lambda o: isinstance(o, GpuState) and "xids" not in {u.fact for u in o.facts.unread})


def test_a_gpu_that_spoils_the_set_of_events_is_left_out_of_it(fake: FakeNvml, driven: Drive) -> None:
    """A registration that ends with 999 leaves a set that is of no use: the other GPU gets a fresh one."""
    one, other = profiles.TWO_GPUS_WITH_MIG.gpus
    other = other.having("code nvmlDeviceRegisterEvents 999")
    fake.become(Machine((one, other)))
    drive = driven()
    told = [{u.fact: u.code for u in state.facts.unread}.get("xids") for state in states(drive.next())]
    assert told == [None, 999]
    assert (fake.calls("nvmlEventSetCreate"), fake.calls("nvmlEventSetFree")) == (2, 1)
    fake.become(Machine((one.telling(1, 31), other)))
    (xid,) = [o for o in drive.next(lambda o: isinstance(o, GpuXid)) if isinstance(o, GpuXid)]
    assert (xid.facts.pci, xid.facts.number) == ("0000:1b:00.0", 31)
