"""A spool that is cut, flipped, removed or of a newer version: what was lost is counted, nothing stops."""

from __future__ import annotations

import contextlib
import resource
import shutil
import sqlite3
from pathlib import Path

import pytest

from escalation.model import BootId, CaseReport, Loss, LossKind
from escalation.outbox import OutboxUnwritable
from escalation.wire.codec import decode
from tests.escalation.spools import case, drained, killed, losses, opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


def _filled(folder: Path, *, clean: bool) -> tuple[Path, BootId]:
    """Return a spool of 17 waiting reports, closed or as a killed process leaves it."""
    source, path = folder / "source.db", folder / "spool.db"
    outbox = opened(source)
    for n in range(20):
        outbox.append([case(str(n))], now_ns=1, notes={str(n): b"note"})
    outbox.acknowledge(outbox.boot_id, 3)
    if clean:
        outbox.close()
        for suffix in ("", ".mark"):
            shutil.copyfile(source.with_name(source.name + suffix), path.with_name(path.name + suffix))
    else:
        killed(outbox, source, path)
    return path, outbox.boot_id


def _check_damaged(path: Path, boot_id: BootId, why: str) -> bool:
    """Open a damaged spool: whatever is not there must be counted. Return whether anything was lost."""
    outbox = opened(path)
    notes = outbox.notes("")
    reports = drained(outbox)
    names = [each.body.case_id for each in reports if isinstance(each.body, CaseReport)]
    lost = [each.body for each in reports if isinstance(each.body, Loss)]
    assert names == sorted(set(names), key=int), why
    missing = {str(n) for n in range(3, 20)} - set(names)
    missing_notes = {str(n) for n in range(20)} - set(notes)
    assert not (missing or missing_notes) or lost, f"{why}: lost {sorted(missing)} unaccounted"
    assert all(each.kind is LossKind.SPOOL_QUARANTINED for each in lost), why
    if missing:
        assert sum(each.count for each in lost) >= len(missing) or not all(each.exact for each in lost), why
    new = outbox.append([case("99")], now_ns=1)[0]
    assert (new.boot_id, new.sequence) not in {(each.boot_id, each.sequence) for each in reports}, (
        f"{why}: a number was used twice"
    )
    if not all(each.exact for each in lost):
        assert outbox.boot_id != boot_id, f"{why}: a number may be used again"
    outbox.close()
    return bool(missing)


@pytest.mark.parametrize("clean", [True, False], ids=["closed", "killed"])
@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_spool_cut_at_any_byte_is_counted(tmp_path: Path, clean: bool, suffix: str) -> None:
    """Torn anywhere (sampled), file or log: it opens, and what is gone is reported as lost."""
    original, boot_id = _filled(tmp_path, clean=clean)
    part = original.with_name(original.name + suffix)
    if not part.exists():
        return
    size = part.stat().st_size
    cuts = sorted({0, 1, 15, 16, 31, 32, 99, 100, 101, size - 1, *range(7, size, max(1, size // 60))})
    lost = 0
    for number, cut in enumerate(cuts):
        folder = tmp_path / str(number)
        folder.mkdir()
        for each in tmp_path.glob("spool.db*"):
            shutil.copyfile(each, folder / each.name)
        with (folder / part.name).open("r+b") as file:
            file.truncate(cut)
        lost += _check_damaged(folder / "spool.db", boot_id, f"cut{suffix} at {cut}")
        shutil.rmtree(folder)
    if clean == (suffix == ""):  # where the reports are
        assert lost > len(cuts) // 2


@pytest.mark.parametrize("clean", [True, False], ids=["closed", "killed"])
@pytest.mark.parametrize("suffix", ["", "-wal", ".mark"])
def test_a_spool_with_a_flipped_bit_is_counted(tmp_path: Path, clean: bool, suffix: str) -> None:
    """A bit flipped anywhere (sampled), in file, log or mark: it opens, and what is gone is reported."""
    original, boot_id = _filled(tmp_path, clean=clean)
    part = original.with_name(original.name + suffix)
    if not part.exists():
        return
    size = part.stat().st_size
    places = sorted({*range(min(size, 110)), *range(111, size, max(1, size // 150))})
    for number, at in enumerate(places):
        folder = tmp_path / str(number)
        folder.mkdir()
        for each in tmp_path.glob("spool.db*"):
            shutil.copyfile(each, folder / each.name)
        raw = bytearray((folder / part.name).read_bytes())
        raw[at] ^= 1 << (at % 8)
        (folder / part.name).write_bytes(raw)
        _check_damaged(folder / "spool.db", boot_id, f"flip{suffix} at {at}")
        shutil.rmtree(folder)


def test_a_damaged_spool_is_kept_aside_and_only_the_newest_few(path: Path) -> None:
    """The file can be looked at later; three are kept, and the Loss is the first report of the fresh one."""
    for n in range(5):
        path.write_bytes(b"no database at all" * 100 + bytes([n]))
        outbox = opened(path)
        (first,) = drained(outbox)
        assert (first.sequence, first.body) == (1, Loss(LossKind.SPOOL_QUARANTINED, "", n and 1, exact=False))
        outbox.close()
    aside = sorted(each.name for each in path.parent.glob("*.quarantined-*"))
    assert aside == [f"spool.db.quarantined-{n}" for n in (3, 4, 5)]


def test_a_spool_that_somebody_removed_is_a_loss(path: Path) -> None:
    """The mark still knows that reports waited, also when the file was emptied; told once."""
    for removal in (Path.unlink, lambda each: each.write_bytes(b"")):
        outbox = opened(path)
        outbox.append([case("a"), case("b")], now_ns=1)
        waiting = outbox.depth().reports
        outbox.close()
        removal(path)
        outbox = opened(path)
        assert losses(outbox) == [Loss(LossKind.SPOOL_QUARANTINED, "", waiting, exact=False)]
        outbox.close()
        outbox = opened(path)
        assert len(losses(outbox)) == 1
        outbox.acknowledge(outbox.boot_id, 9)
        outbox.close()


def test_a_flip_that_no_structure_shows_is_found_by_its_checksum(path: Path) -> None:
    """A row whose payload changed is set aside and counted; the others are sent."""
    outbox = opened(path)
    outbox.append([case("a"), case("b" * 40), case("c")], now_ns=1, notes={"k": b"n" * 40, "l": b"ok"})
    outbox.close()
    raw = path.read_bytes()
    assert raw.count(b"b" * 40) == raw.count(b"n" * 40) == 1
    path.write_bytes(raw.replace(b"b" * 40, b"b" * 39 + b"B").replace(b"n" * 40, b"n" * 39 + b"N"))
    outbox = opened(path)
    assert outbox.notes("") == {"l": b"ok"}
    one = Loss(LossKind.SPOOL_QUARANTINED, "", 1, exact=True)
    drained(outbox)
    assert [each.body for each in drained(outbox)] == [case("a"), case("c"), one, one]
    assert outbox.depth().reports == 4
    outbox.close()


def test_damage_under_a_running_agent_starts_afresh(path: Path) -> None:
    """A file overwritten while it is open is moved aside; the report in hand is kept in the fresh one."""
    outbox = opened(path)
    outbox.append([case(str(n)) for n in range(400)], now_ns=1)
    outbox.close()
    outbox = opened(path)
    old_row = outbox.pending(after_row=0, limit=1000, max_bytes=1 << 20)[-1].row
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)
    outbox._database.execute("PRAGMA shrink_memory")
    (kept,) = outbox.append([case("x")], now_ns=1)
    assert kept.boot_id == outbox.boot_id
    found = outbox.pending(after_row=old_row, limit=10, max_bytes=1 << 20)
    assert [decode(each.payload).body for each in found] == [
        Loss(LossKind.SPOOL_QUARANTINED, "", 400, exact=False),
        case("x"),
    ]
    outbox.close()


def test_a_spool_that_cannot_be_begun_anew_yet_is_tried_again(path: Path) -> None:
    """Damage on a disk that is full: each call is refused as such until there is room, then all goes on."""
    outbox = opened(path)
    outbox.append([case(str(number)) for number in range(17)], now_ns=1)
    outbox.close()
    outbox = opened(path)
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)
    outbox._database.execute("PRAGMA shrink_memory")
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, unlimited[1]))  # no file may grow: EFBIG, as on a full disk
    try:
        for _ in range(2):
            with pytest.raises(OutboxUnwritable):
                outbox.append([case("in hand")], now_ns=2)
            with pytest.raises(OutboxUnwritable):
                outbox.notes("")
            with pytest.raises(OutboxUnwritable):
                outbox.depth()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    outbox.append([case("in hand")], now_ns=3)
    loss, kept = [report.body for report in drained(outbox)]
    assert loss == Loss(LossKind.SPOOL_QUARANTINED, "", 17, exact=False)
    assert kept == case("in hand")
    outbox.close()


def test_a_spool_of_a_newer_version_is_kept_aside_and_counted(path: Path) -> None:
    """After a downgrade nothing is guessed: the file stays for the newer one, and what waited is a loss."""
    newer = opened(path)
    newer.append([case("a"), case("b")], now_ns=1)
    newer.close()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version=2")
    outbox = opened(path)
    assert [report.body for report in drained(outbox)] == [
        Loss(LossKind.SPOOL_QUARANTINED, "", 2, exact=False)
    ]
    outbox.close()
    assert path.with_name("spool.db.quarantined-1").exists()
